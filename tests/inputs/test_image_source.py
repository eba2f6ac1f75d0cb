"""Image files from bytes and open files."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plume_export.errors import InputError
from plume_export.inputs import load_image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


@pytest.fixture(params=["png", "jpg", "webp", "tif", "gif", "bmp"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    PICTURE.save(tmp_path / f"picture.{request.param}")
    return tmp_path / f"picture.{request.param}"


def test_bytes_and_paths_agree(file: Path) -> None:
    expected, content = load_image(file).tobytes(), file.read_bytes()
    for source in (str(file), content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert load_image(source).tobytes() == expected


def test_an_open_file_is_read_from_its_start_and_left_where_it_was(file: Path) -> None:
    expected = load_image(file).tobytes()
    with file.open("rb") as opened:
        opened.seek(5)
        for _ in range(2):
            assert load_image(opened).tobytes() == expected
            assert opened.tell() == 5
        assert opened.read(1) == file.read_bytes()[5:6]


def test_a_file_in_an_archive(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "picture.png", "picture.png")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive, archive.open("picture.png") as opened:
        assert load_image(opened).tobytes() == PICTURE.tobytes()  # type: ignore[arg-type]


def test_damaged_bytes_are_named_by_their_size() -> None:
    with pytest.raises(InputError, match="the image of 9 bytes cannot be read as an image: its format is unknown"):
        load_image(b"no image!")
    opened = io.BytesIO(b"no image!")
    opened.seek(3)
    with pytest.raises(InputError, match="the open image file cannot be read"):
        load_image(opened)
    assert opened.tell() == 3
    with pytest.raises(InputError, match="the image of 0 bytes"):
        load_image(b"")


def test_a_file_opened_as_text(file: Path) -> None:
    opened: Any
    with (
        file.open(encoding="latin-1") as opened,
        pytest.raises(InputError, match=r"picture\.\w+ was opened as text(.|\n)*'rb'"),
    ):
        load_image(opened)


def test_what_cannot_be_rewound_is_to_be_read_first(file: Path) -> None:
    closed = file.open("rb")
    closed.close()
    read_end, write_end = os.pipe()
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        for source in (closed, pipe):
            with pytest.raises(InputError, match=r"cannot be read from its start(.|\n)*file\.read\(\)"):
                load_image(source)
