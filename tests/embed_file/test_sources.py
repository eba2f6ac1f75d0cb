"""Lines are read as they are needed, and all of them are checked first."""

import os
import threading
from itertools import islice
from pathlib import Path

import pytest

from plume_export.embed_file import inputs_from_arguments, inputs_from_file, sources_from_file
from plume_export.errors import InputError


def test_lines_ids_and_count(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes('\ufeff{"id": "ä", "text": "a\u2028b"}\r\n\n  \n{"text": "c"}\n{broken\n{"id": 7, "text": "d"}'.encode())
    inputs = inputs_from_file(file)
    assert [source.id for source in inputs.sources] == ["ä", "line 4", "line 5", "7"]
    assert [source.id for source in inputs.sources] == [source.id for source in sources_from_file(file)]
    assert inputs.count == 4
    first, _, broken, last = inputs.sources
    assert first.read().text == "a\u2028b"
    assert last.read().text == "d"
    with pytest.raises(InputError, match=r"in\.jsonl line 5: The line is not JSON"):
        broken.read()


def test_only_the_lines_that_are_needed_are_read(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a"}\n' * 100_000)
    inputs = inputs_from_file(file)
    sources = iter(inputs.sources)
    assert len(list(islice(sources, 3))) == 3
    file.write_text('{"text": "a"}\n')  # what was not read is gone
    assert sum(1 for _ in sources) < 2_000
    assert inputs.count == 100_000


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl can not be read(.|\n)*UTF-8"):
        inputs_from_file(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="can not be read"):
        sources_from_file(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n' * 5000 + b"\xff\n")
    with pytest.raises(InputError, match="can not be read"):
        inputs_from_file(tmp_path / "in.jsonl")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=pipe.write_text, args=('{"text": "a"}\n{"text": "b"}\n',))
    thread.start()
    inputs = inputs_from_file(pipe)
    assert inputs.count is None
    assert [source.read().text for source in inputs.sources] == ["a", "b"]
    thread.join()


def test_arguments() -> None:
    inputs = inputs_from_arguments(["a.png", "b.mp4"], "text")
    assert inputs.count == 2
    image, video = (source.read() for source in inputs.sources)
    assert (image.images, image.text) == (("a.png",), "text")
    assert (video.video, video.images) == ("b.mp4", ())
    (alone,) = inputs_from_arguments([], "text").sources
    assert alone.read().text == "text"
