"""Draw the calibration set and its held-out part, the same every time: python calibration/draw_calibration.py"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from plume_export.inputs import Item
from plume_export.plume_tiny.drawing import draw_clip, draw_picture
from plume_export.plume_tiny.scenes import Clip, Split, sample_clip, sample_page, sample_picture
from plume_export.plume_tiny.tasks import draw_query, sample_scene

HERE = Path(__file__).parent
# Width and height in pixels; beside multiples of 28 some that are not, and some that are far from square.
PICTURE_SIZES = ((112, 112), (140, 112), (111, 113), (139, 83), (224, 224), (56, 168), (253, 97), (85, 141))
QUESTIONS = ("What changed between the two pictures?", "Represent the given images.", "Which one has more figures?")


@dataclass(frozen=True)
class Plan:
    """How many inputs of each kind a set has. A sheet is a large image: drawings in columns and rows."""

    name: str
    split: Split  # of plume-tiny's scenes: its evaluation has held-out ones only, its training none of them
    texts: Sequence[str]
    captions: int
    pictures: int
    composed: int
    pages: int
    pairs: int
    clip_frames: Sequence[int]
    picture_sheets: Sequence[tuple[int, int]]
    page_sheets: Sequence[tuple[int, int]]


CALIBRATION = Plan(
    "calibration",
    split="train",
    texts=(
        "tea",
        "Which document page shows the quarterly revenue by region?",
        "Zwei Hunde laufen bei Sonnenuntergang am Strand entlang, ein dritter schläft im Schatten.",
        "一只红色的小船停在湖边，远处是雪山。",
        "كتاب مفتوح على طاولة خشبية بجانب النافذة",
        "def area(radius): return 3.14159 * radius ** 2  # square metres",
        "Order 48-1127: 12 x 0.75 l, 3.5 kg, EUR 219.90, due 2026-03-31 (paid).",
        "The ferry leaves the harbour at ten past six, when the fish market is still setting up its stalls. From the upper "
        "deck one sees the whole town: the white houses on the hill, the two churches, the long pier with its cranes. It takes "
        "forty minutes to the first island, where most passengers get off; the rest sail on, past the lighthouse and the seal "
        "bank, to a village of nine houses and one shop, also the post office, the bakery and, on Fridays, the cinema.",
    ),
    captions=8,
    pictures=6,
    composed=4,
    pages=5,
    pairs=3,
    clip_frames=(4, 4, 3, 2),
    picture_sheets=((8, 6),),
    page_sheets=((4, 4),),
)
HELD_OUT = Plan(
    "held_out",
    split="held-out",
    texts=(
        "a map of the old town",
        "Un vélo bleu appuyé contre un mur de briques, à côté d'un panier de pommes.",
        "夕方の駅で電車を待つ人々",
        "The recipe is older than the house. Peel the pears, leave the stalks on, and simmer them in red wine with a stick of "
        "cinnamon until they are dark all the way through; then take them out, reduce the wine to a syrup, and let both cool. "
        "They keep for a week and taste best on the third day.",
    ),
    captions=5,
    pictures=3,
    composed=2,
    pages=2,
    pairs=1,
    clip_frames=(4, 3),
    picture_sheets=((5, 4),),
    page_sheets=(),
)


def main(directory: Path = HERE) -> None:
    """Write calibration.jsonl and held_out.jsonl, their pictures in images/."""
    for plan in (CALIBRATION, HELD_OUT):
        (directory / "images" / plan.name).mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(_stored(item, plan.name, directory), ensure_ascii=False) for item in _items(plan)]
        (directory / f"{plan.name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _items(plan: Plan) -> Iterator[Item]:
    random = Random(f"calibration {plan.name}")
    samplers = (sample_picture, sample_picture, sample_page, sample_clip)
    for number, text in enumerate(plan.texts):
        yield Item(id=f"text-{number}", text=text)
    for number in range(plan.captions):
        sample = samplers[number % len(samplers)]
        yield Item(id=f"caption-{number}", text=sample(random, plan.split).caption(random))
    for number in range(plan.pictures):
        yield Item(id=f"picture-{number}", images=(_picture(plan, random, number),))
    for number in range(plan.composed):
        scene = sample_scene("composed-image", random, plan.split)
        query = draw_query("composed-image", scene, random, plan.split)
        yield Item(id=f"composed-{number}", text=query.text, images=query.images)
    for number in range(plan.pages):
        page = draw_picture(sample_page(random, plan.split), random)
        yield Item(id=f"page-{number}", text="Find a document page like this one." if number % 2 else "", images=(page,))
    for number in range(plan.pairs):
        pair = (_picture(plan, random, number), _picture(plan, random, number + 3))
        yield Item(id=f"pair-{number}", text=QUESTIONS[number], images=pair)
    yield from _clips(plan, random)
    yield from _sheets(plan, random)


def _clips(plan: Plan, random: Random) -> Iterator[Item]:
    for number, frames in enumerate(plan.clip_frames):
        clip = sample_clip(random, plan.split)
        assert isinstance(clip, Clip)
        yield Item(id=f"clip-{number}", text="What does it do?" if number % 2 else "", video=draw_clip(clip, random)[:frames])


def _sheets(plan: Plan, random: Random) -> Iterator[Item]:
    """Large images: drawings of one size side by side."""
    for number, (columns, rows) in enumerate(plan.picture_sheets):
        drawings = [draw_picture(sample_picture(random, plan.split), random, (112, 112)) for _ in range(columns * rows)]
        yield Item(id=f"sheet-{number}", images=(_sheet(drawings, columns),))
    for number, (columns, rows) in enumerate(plan.page_sheets):
        drawings = [draw_picture(sample_page(random, plan.split), random) for _ in range(columns * rows)]
        yield Item(id=f"page-sheet-{number}", text="Which pages have a table?", images=(_sheet(drawings, columns),))


def _sheet(drawings: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = drawings[0].size
    sheet = Image.new("RGB", (columns * width, len(drawings) // columns * height))
    for index, drawing in enumerate(drawings):
        sheet.paste(drawing, (index % columns * width, index // columns * height))
    return sheet


def _picture(plan: Plan, random: Random, number: int) -> Image.Image:
    return draw_picture(sample_picture(random, plan.split), random, PICTURE_SIZES[number % len(PICTURE_SIZES)])


def _stored(item: Item, name: str, directory: Path) -> dict[str, object]:
    """Write an item's pictures; return its line."""
    line: dict[str, object] = {"id": item.id}
    if item.text:
        line["text"] = item.text
    for key, images in (("image", item.images), ("video", item.video or ())):
        paths = [f"images/{name}/{item.id}-{index}.png" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            image.save(directory / path, optimize=True)
        if paths:
            line[key] = paths if len(paths) > 1 or key == "video" else paths[0]
    return line


if __name__ == "__main__":
    main()
