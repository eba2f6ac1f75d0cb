"""Lines are read as they are needed, and all of them are checked first."""

import io
import json
import os
import re
import threading
from itertools import islice
from pathlib import Path

import pytest

from plume_export.errors import InputError
from plume_export.inputs import inputs_from_arguments, inputs_from_file, inputs_from_stream, sources_from_file


def test_lines_ids_and_count(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes('\ufeff{"id": "ä", "text": "a\u2028b"}\r\n\n  \n{"text": "c"}\n{broken\n{"id": 7, "text": "d"}'.encode())
    inputs = inputs_from_file(file)
    assert [source.id for source in inputs.sources] == ["ä", "line 4", "line 5", "7"]
    assert [source.id for source in inputs.sources] == [source.id for source in sources_from_file(file)]
    assert inputs.count == 4
    assert inputs.blank_lines.count == 2  # however often the lines are read
    first, _, broken, last = inputs.sources
    assert first.read().text == "a\u2028b"
    assert last.read().text == "d"
    with pytest.raises(InputError, match=r"in\.jsonl line 5: The line is not JSON"):
        broken.read()


def test_a_line_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": "a", "image": ["p.png", "https://host/q.png"]}\n{"video": "clip.mp4"}\n')
    parsed = list[str]()
    parse = json.loads
    monkeypatch.setattr(json, "loads", lambda text, **kinds: parsed.append(text) or parse(text, **kinds))
    items = [source.read() for source in inputs_from_file(file).sources]
    assert parsed == file.read_text().splitlines()
    assert items[0].images == (str(tmp_path / "p.png"), "https://host/q.png")
    assert items[1].video == str(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    ("line", "name", "error"),
    [
        ('{"id": "a", "text": "b", "text": "c"}', "a", "The key 'text' is repeated"),
        ('{"text": "a", "text": "b"} {', "line 1", "The key 'text' is repeated"),
        ('{"id": "a", "image": {"x": 1, "x": 2}}', "a", "The key 'x' is repeated"),
        ('{"id": 1, "image": [["p.png"]]}', "1", "an element of type list"),
        ('{"id": "a", "image": %s}' % ("[" * 800 + "]" * 800), "a", "an element of type list"),
        ('[{"a": 1, "a": 2}]', "line 1", "The key 'a' is repeated"),
        ('["a"]', "line 1", "The line is a JSON list"),
        ("[" * 100_000, "line 1", "The line is not JSON"),
    ],
)
def test_a_bad_line_is_an_error_when_it_is_read(tmp_path: Path, line: str, name: str, error: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(f'{line}\n{{"text": "good"}}\n')
    bad, good = inputs_from_file(file).sources
    assert bad.id == name
    for _ in range(2):  # the place is named once, however often the line is read
        with pytest.raises(InputError, match=re.escape(error)) as raised:
            bad.read()
        assert raised.value.message.count("in.jsonl line 1") == 1
    assert good.read().text == "good"


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
    with pytest.raises(InputError, match=r"no\.jsonl cannot be read(.|\n)*UTF-8"):
        inputs_from_file(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        sources_from_file(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a"}\n' * 5000 + b"\xff\n")
    with pytest.raises(InputError, match="cannot be read"):
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


def test_a_folder_stands_for_its_pictures_and_videos(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.MP4", "a/y.jpg", "a.png", ".hidden.png", ".hidden/c.png", "notes.txt", "a/x.pdf"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    inputs = inputs_from_arguments([str(tmp_path / "in"), "other.png"], "text")
    names = [os.path.relpath(source.id, tmp_path / "in") for source in list(inputs.sources)[:-1]]
    assert names == ["a/y.jpg", "a/z.MP4", "a.png", "b.png"]
    assert [source.id for source in inputs.sources][-1] == "other.png"
    assert inputs.count == 5
    assert sorted(file.name for file in inputs.left_out) == ["notes.txt", "x.pdf"]
    assert set(inputs.left_out.values()) == {"not an image or video by its suffix"}
    video = next(source.read() for source in inputs.sources if source.id.endswith("MP4"))
    assert (video.text, video.images) == ("text", ())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no image or video: it is empty(.|\n)*fix:"):
        inputs_from_arguments([str(tmp_path / "in"), str(tmp_path / "empty")], None)


def test_a_stream_is_read_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"some")
    stream = io.BytesIO(b'\xef\xbb\xbf{"text": "a"}\n\n{"image": "a.png"}\n{broken\n' + b'{"text": "b"}\n' * 1000)
    inputs = inputs_from_stream(stream)
    assert inputs.count is None
    sources = iter(inputs.sources)
    first, second, third = islice(sources, 3)
    assert stream.tell() < 200
    assert (first.read().text, first.line) == ("a", 1)
    assert (second.id, second.read().images, second.content.split()[-4]) == ("line 3", ("a.png",), "4")
    with pytest.raises(InputError, match=r"^standard input line 4: The line is not JSON"):
        third.read()
    assert sum(1 for _ in sources) == 1000
    assert inputs.blank_lines.count == 1


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_stream_without_a_line_is_as_good_as_a_file_without_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    for inputs in (inputs_from_stream(io.BytesIO(content)), inputs_from_file(tmp_path / "in.jsonl")):
        assert list(inputs.sources) == []
        assert inputs.blank_lines.count == content.count(b"\n")


def test_a_stream_that_is_closed() -> None:
    with pytest.raises(InputError, match="Standard input is closed"):
        inputs_from_stream(None)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_path_that_the_system_refuses(name: str) -> None:
    with pytest.raises(InputError, match="read"):
        inputs_from_file(Path(name))
