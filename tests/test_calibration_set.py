"""The calibration set that ships: drawn by its script, readable, of every kind, and apart from its held-out part."""

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from plume_export.inputs import sources_from_file
from plume_export.samples import calibration_inputs_file, held_out_inputs_file

SCRIPT = Path(__file__).parents[1] / "calibration" / "draw_calibration.py"


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("calibration")
    runpy.run_path(str(SCRIPT))["main"](directory)
    return directory


def test_the_script_draws_what_ships(redrawn: Path) -> None:
    """The lines byte by byte; pictures by their pixels, since how a PNG is packed is up to Pillow's version."""
    shipped = calibration_inputs_file().parent
    for name in ("calibration", "held_out"):
        assert (redrawn / f"{name}.jsonl").read_bytes() == (shipped / f"{name}.jsonl").read_bytes()
        pictures = sorted(path.relative_to(redrawn) for path in (redrawn / "images" / name).iterdir())
        assert pictures == sorted(path.relative_to(shipped) for path in (shipped / "images" / name).iterdir())
        for picture in pictures:
            with Image.open(redrawn / picture) as drawn, Image.open(shipped / picture) as kept:
                assert drawn.mode == kept.mode == "RGB"
                assert drawn.size == kept.size
                assert ImageChops.difference(drawn, kept).getbbox() is None, picture


@pytest.mark.parametrize(("file", "count"), [(calibration_inputs_file(), 40), (held_out_inputs_file(), 20)])
def test_every_kind_is_there(file: Path, count: int) -> None:
    kinds: Counter[str] = Counter()
    for source in sources_from_file(file):
        item = source.read()
        images = "images" * (len(item.images) > 1) or "image" * len(item.images)
        kinds["+".join(part for part in ("text" * bool(item.text), images, "video" * bool(item.video)) if part)] += 1
    assert kinds.total() == count
    assert set(kinds) == {"text", "image", "text+image", "text+images", "video", "text+video"}


def test_calibration_and_held_out_part_share_nothing() -> None:
    (texts, pictures), (other_texts, other_pictures) = map(contents, (calibration_inputs_file(), held_out_inputs_file()))
    generic = {"", "What changed between the two pictures?", "Find a document page like this one.", "What does it do?"}
    assert texts & other_texts <= generic
    assert not pictures & other_pictures


def contents(file: Path) -> tuple[set[str], set[bytes]]:
    texts = {source.read().text for source in sources_from_file(file)}
    return texts, {path.read_bytes() for path in (file.parent / "images" / file.stem).iterdir()}


def test_it_is_small() -> None:
    directory = calibration_inputs_file().parent
    assert sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) < 1_000_000
    lines = [json.loads(line) for line in calibration_inputs_file().read_text(encoding="utf-8").splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
