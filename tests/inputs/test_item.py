"""What is an input, and what is not."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plume_export.errors import InputError
from plume_export.inputs import Item, item_from, item_from_json

IMAGE = Image.new("RGB", (4, 4))
ARRAY = np.zeros((4, 4, 3), np.uint8)
FILE = io.BytesIO(b"GIF89a")
BASE = Path("/data/set")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a text", Item(text="a text")),
        (IMAGE, Item(images=(IMAGE,))),
        (b"GIF89a", Item(images=(b"GIF89a",))),
        (Path("p.png"), Item(images=(Path("p.png"),))),
        (ARRAY, Item(images=(ARRAY,))),
        (FILE, Item(images=(FILE,))),
        ({"image": [b"GIF89a", FILE], "text": "x"}, Item("x", (b"GIF89a", FILE))),
        (Item(text="x"), Item(text="x")),
        ({"text": "x", "image": None, "video": None, "id": None}, Item(text="x")),
        ({"image": "p.png"}, Item(images=("p.png",))),
        ({"image": Path("p.png"), "text": None}, Item(images=(Path("p.png"),))),
        ({"image": ["p.png", IMAGE]}, Item(images=("p.png", IMAGE))),
        ({"text": "x", "image": []}, Item(text="x")),
        ({"image": ARRAY}, Item(images=(ARRAY,))),
        ({"video": ["0.png", "1.png"], "text": "x", "image": "p.png"}, Item("x", ("p.png",), ("0.png", "1.png"))),
        ({"video": (IMAGE,)}, Item(video=(IMAGE,))),
        ({"video": "clip.mp4", "id": "a"}, Item(video="clip.mp4", id="a")),
        ({"text": "x", "id": 7}, Item(text="x", id="7")),
    ],
)
def test_item_from(value: object, expected: Item) -> None:
    assert item_from(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ({}, "empty"),
        ({"text": " ", "image": []}, "empty"),
        ({"text": "x", "video": []}, "no frames"),
        ({"text": "x", "images": "p.png"}, "unknown key 'images'"),
        ({"text": 5}, "text is a int"),
        ({"text": "\ud800"}, "unpaired surrogate"),
        ({"text": "x", "id": 1.5}, "id is a float"),
        ({"text": "x", "id": True}, "id is a bool"),
        ({"image": 5}, "element of type int"),
        ({"image": ["p.png", None]}, "element of type NoneType"),
        ({"image": {"path": "p.png"}}, "element of type dict"),
        ({"video": 5}, "video is a int"),
        ({"video": IMAGE}, "video is a Image"),
        ({"video": [["0.png"]]}, "element of type list"),
        (5, "input is a int"),
        (None, "input is a NoneType"),
        (["a"], "input is a list"),
        (5.0, "for several images"),
        ({"video": b"bytes"}, "video is a bytes; expected a tuple of images or a path"),
    ],
)
def test_wrong_input(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        item_from(value)


def test_item_wants_tuples() -> None:
    images: Any = ["p.png"]
    with pytest.raises(InputError, match="images is a list; expected a tuple"):
        Item(images=images)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"id": "a", "text": "x"}, Item(text="x", id="a")),
        ({"image": "p.png"}, Item(images=("/data/set/p.png",))),
        ({"image": ["sub/p.png", "/abs/q.png"]}, Item(images=("/data/set/sub/p.png", "/abs/q.png"))),
        ({"video": "clip.mp4"}, Item(video="/data/set/clip.mp4")),
        ({"video": ["0.png", "1.png"]}, Item(video=("/data/set/0.png", "/data/set/1.png"))),
    ],
)
def test_item_from_json(line: dict[str, object], expected: Item) -> None:
    assert item_from_json(json.dumps(line), BASE) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "not JSON"),
        ('"a text"', "JSON str; expected an object"),
        ("[]", "JSON list; expected an object"),
        ("null", "JSON NoneType"),
        ('{"txt": "x"}', "unknown key 'txt'"),
        ('{"image": 3}', "element of type int"),
        ('{"text": "a", "text": "b"}', "The key 'text' is repeated"),
        ('{"image": {"path": 1, "path": 2}}', "The key 'path' is repeated"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_wrong_json(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        item_from_json(line, BASE)


@pytest.mark.parametrize("address", ["http://host/x.png", "data:image/png;base64,AAAA"])
def test_an_address_in_a_line_stays_as_it_was_written(address: str) -> None:
    assert item_from_json(json.dumps({"image": [address, "p.png"]}), Path("/base")).images == (address, "/base/p.png")
