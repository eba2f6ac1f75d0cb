"""The sample data on disk: pictures to search, and held-out examples of every task to evaluate.

OUTPUT/pictures/*.png        named by what they show
OUTPUT/evaluation.jsonl      a dataset for `plume-export evaluate`, its media beside it in evaluation/
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import IO

from PIL import Image

from ..bundle import new_directory
from ..inputs import Item
from ..progress import Report
from .drawing import draw_picture
from .scenes import Scene, Split, sample_page, sample_picture
from .tasks import Task, draw_answer, draw_query, sample_scene

# Per task: the number of candidates, and the number of queries for each candidate. Equal queries are written once.
POOLS: dict[Task, tuple[int, int]] = {
    "text-to-image": (200, 2),
    "image-to-text": (100, 4),
    "composed-image": (100, 4),
    "text-to-video": (100, 1),
    "text-to-page": (100, 2),
}
# Number of scenes and of pages in the folder to search, and the number of drawings of each.
_PICTURES, _PAGES, _DRAWINGS = 80, 24, 3


def write_sample_data(output: Path, report: Report = lambda _: None) -> None:
    """Draw the sample data: identical in every run, all or nothing. Raises PlumeExportError if `output` is not empty."""
    with new_directory(output, report) as partial:
        _write_drawings(partial / "pictures", sample_picture, _PICTURES)
        _write_drawings(partial / "pages", sample_page, _PAGES)
        _write_evaluation(partial)


def held_out_scenes(task: Task, count: int) -> list[Scene]:
    """Return distinct scenes of combinations that training never sees."""
    random = Random(f"evaluation {task}")
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        scenes[sample_scene(task, random, "held-out")] = None
    return list(scenes)


def _write_drawings(folder: Path, sample: Callable[[Random, Split], Scene], count: int) -> None:
    """Draw `count` distinct scenes, each several times."""
    folder.mkdir()
    random = Random(folder.name)
    scenes: set[Scene] = set()
    while len(scenes) < count:
        scene = sample(random, random.choice(("train", "held-out")))
        if scene not in scenes:
            scenes.add(scene)
            name = scene.caption(random).replace(" ", "-").replace(",", "")
            for number in range(1, _DRAWINGS + 1):
                draw_picture(scene, random).save(folder / f"{name}-{number}.png")


def _write_evaluation(output: Path) -> None:
    with (output / "evaluation.jsonl").open("w", encoding="utf-8") as file:
        for task, (pool, queries) in POOLS.items():
            random = Random(f"drawings {task}")
            media = output / "evaluation" / task
            media.mkdir(parents=True)
            for number, scene in enumerate(held_out_scenes(task, pool)):
                answer = draw_answer(task, scene, random, "held-out")
                candidate = _stored(answer, media, f"{number:03}", output)
                _write_line(file, task=task, id=f"c{number:03}", candidate=candidate)
                texts: set[str] = set()
                for repeat in range(queries):
                    item = draw_query(task, scene, random, "held-out")
                    if not item.images and item.text in texts:
                        continue
                    texts.add(item.text)
                    query = _stored(item, media, f"{number:03}-query-{repeat}", output)
                    _write_line(file, task=task, id=f"q{number:03}-{repeat}", query=query, positive=f"c{number:03}")


def _stored(item: Item, media: Path, name: str, output: Path) -> dict[str, object]:
    """Write an item's media. Return the item as JSON, with paths relative to `output`."""
    stored: dict[str, object] = {"text": item.text} if item.text else {}
    frames = item.video if isinstance(item.video, tuple) else ()
    for key, images in (("image", item.images), ("video", frames)):
        paths = []
        for index, image in enumerate(images):
            assert isinstance(image, Image.Image)
            path = media / (f"{name}.png" if key == "image" else f"{name}-{index}.png")
            image.save(path)
            paths.append(path.relative_to(output).as_posix())
        if paths:
            stored[key] = paths
    return stored


def _write_line(file: IO[str], **line: object) -> None:
    file.write(json.dumps(line) + "\n")
