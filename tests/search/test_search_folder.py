"""Searching a folder without a model: what is counted, left out, remembered, and shown."""

import base64
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from plume_export.cli import main
from plume_export.errors import InputError
from plume_export.inputs import Item, NoticeTally
from plume_export.search import unreadable_image
from plume_export.search.cache import EmbeddingCache
from plume_export.search.results_json import report_from_result, skipped_line
from plume_export.search.results_page import page_from_result
from plume_export.search.search import SearchResult, search_folder

from .embedder_double import ColourEmbedder

COLOURS = ("red", "lime", "blue")
Search = Callable[..., SearchResult]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in COLOURS:
        Image.new("RGB", (56, 84), name).save(folder / "more" / f"{name}.png")
    return folder


@contextmanager
def no_progress(total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@pytest.fixture
def search(tmp_path: Path) -> Search:
    def run(folder: Path, text: str = "red", embedder: Any = None, **options: Any) -> SearchResult:
        options = {"top": 12, "batch_size": None, "on_error": "skip"} | options
        with EmbeddingCache(tmp_path / "cache" / "c.sqlite") as cache:
            query = text if isinstance(text, Item) else Item(text=text)
            return search_folder(embedder or ColourEmbedder(), folder, query, cache=cache, progress=no_progress, **options)

    return run


@pytest.fixture
def lying(folder: Path) -> Path:
    """A picture whose upper left corner is red as it is stored, and lime when it is turned upright."""
    picture = Image.new("RGB", (56, 84), "lime")
    picture.paste("red", (0, 0, 56, 42))
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(folder / "lying.png", exif=exif)
    return folder / "lying.png"


@pytest.mark.parametrize("exif_transpose", [False, True])
def test_thumbnails_show_what_the_model_saw(search: Search, folder: Path, lying: Path, exif_transpose: bool) -> None:
    embedder = ColourEmbedder(exif_transpose=exif_transpose)
    result = search(folder, "lime" if exif_transpose else "red", embedder)
    assert report_from_result(result).exif_transpose is exif_transpose
    assert {hit.file.name: round(hit.score, 3) for hit in result.hits}["lying.png"] == 1
    page = page_from_result(result, embedder.bundle, lying)
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]*)", page)]
    corners = [image.convert("RGB").getpixel((0, 0)) for image in shown if image.convert("RGB").getcolors(1) is None]
    assert corners == [(0, 255, 0) if exif_transpose else (255, 0, 0)] * 2  # the query's and the hit's


def test_an_embedding_of_a_lying_picture_is_not_used_upright(search: Search, folder: Path, lying: Path) -> None:
    for exif_transpose, embedded in ((False, 4), (True, 4), (False, 0), (True, 0)):
        result = search(folder, "red", ColourEmbedder(exif_transpose=exif_transpose))
        assert result.embedded == embedded
        assert ({hit.file.name: hit.score for hit in result.hits}["lying.png"] > 0.99) is not exif_transpose


def test_rotated_pictures_are_told_in_every_search(search: Search, folder: Path, lying: Path) -> None:
    for _ in range(2):
        tally = NoticeTally()
        search(folder, notify=tally.add)
        (line,) = tally.lines()
        assert line.startswith(f"{lying} has an EXIF rotation")
    renamed = lying.rename(folder / "renamed.png")
    tally = NoticeTally()
    search(folder, notify=tally.add)
    assert tally.lines()[0].startswith(f"{renamed} ")
    tally = NoticeTally()
    search(folder, embedder=ColourEmbedder(exif_transpose=True), notify=tally.add)
    assert tally.lines() == []


def test_deep_and_heic_pictures_are_left_out_with_the_way_on(
    search: Search, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(folder / "photo.HEIC")
    Image.new("I;16", (56, 84), 40_000).save(folder / "scan.png")
    assert "mode I;16 " in search(folder).skipped[folder / "scan.png"]
    assert search(folder).pictures == 4
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.new("RGB", (1, 1)).save(folder / "new.png")
    (folder / "photo.HEIC").write_bytes((folder / "photo.HEIC").read_bytes() + b"\0\0\0\x08free")
    assert "plume-export[heif]" in search(folder).skipped[folder / "photo.HEIC"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[ColourEmbedder]:
        yield ColourEmbedder()

    monkeypatch.setattr("plume_export.cli.search.Embedder", opened)

    def invoke(folder: Path, text: str = "red", *arguments: object) -> Result:
        words = ["search", "BUNDLE", text, "--in", folder, "--cache", tmp_path / "c.sqlite", *arguments]
        return CliRunner().invoke(main, [str(word) for word in words])

    return invoke


def hits(result: SearchResult) -> list[str]:
    return [str(hit.file.relative_to(result.folder)) for hit in result.hits]


def test_links_are_searched(search: Search, folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    (folder / "again").symlink_to("more")
    result = search(link, top=100)
    assert hits(result)[0] == "more/red.png"
    assert (result.pictures, result.embedded, result.skipped) == (3, 3, {})


def test_the_query_may_be_one_of_the_pictures(search: Search, folder: Path) -> None:
    result = search(folder, Item(images=(folder / "more" / "blue.png",)))
    assert hits(result)[0] == "more/blue.png"
    assert result.hits[0].score == pytest.approx(1.0)


def test_a_corrupt_picture_is_tried_once(search: Search, folder: Path) -> None:
    for name in ("one.png", "two.png"):  # of one content
        (folder / name).write_bytes(b"no picture")
    first, embedder = search(folder), ColourEmbedder()
    again = search(folder, embedder=embedder)
    assert (first.embedded, again.embedded) == (3, 0)
    assert embedder.prepared == 1  # the query
    assert first.skipped == again.skipped
    for name in ("one.png", "two.png"):
        assert again.skipped[folder / name].startswith(f"{folder / name} can")
    (folder / "one.png").rename(folder / "three.png")
    assert str(folder / "three.png") in search(folder).skipped[folder / "three.png"]


@pytest.mark.parametrize("change", ["file", "reader"])
def test_it_is_tried_again_when_something_changed(
    search: Search, folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "one.png").write_bytes(b"no picture")
    search(folder)
    if change == "file":
        Image.new("RGB", (56, 56), "pink").save(folder / "one.png")
    else:
        monkeypatch.setattr(unreadable_image, "_version", lambda package: "99.0")
    embedder = ColourEmbedder()
    assert search(folder, embedder=embedder).embedded == (1 if change == "file" else 0)
    assert embedder.prepared == 2


def test_a_remembered_failure_still_fails(search: Search, folder: Path) -> None:
    (folder / "one.png").write_bytes(b"no picture")
    search(folder)
    with pytest.raises(InputError, match=r"one\.png can"):
        search(folder, on_error="fail")


def test_only_the_contents_fault_is_remembered(search: Search, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large for this bundle, out of memory, a failing disk: all may be better next time."""
    result = search(folder, embedder=ColourEmbedder(fails=["lime"]))
    assert result.skipped[folder / "more" / "lime.png"] == "The picture is too large for this bundle.\n  fix: compile another"
    assert search(folder).embedded == 1
    Image.new("RGB", (56, 56), "pink").save(folder / "one.png")
    for error in (MemoryError(), OSError(5, "Input/output error")):

        def failing(*_: object, error: BaseException = error, **__: object) -> object:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", failing)
            patch.setattr("plume_export.inputs.image.Image.open", failing)
            assert folder / "one.png" in search(folder).skipped
    assert search(folder).embedded == 1


def test_a_picture_that_vanishes_before_it_is_read(search: Search, folder: Path) -> None:
    gone = folder / "more" / "lime.png"

    class Vanishing(ColourEmbedder):
        def prepare(self, item: Item) -> Any:
            gone.unlink(missing_ok=True)
            return super().prepare(item)

    result = search(folder, embedder=Vanishing())
    assert result.pictures == 2
    assert gone in result.skipped
    Image.new("RGB", (56, 84), "lime").save(gone)
    assert search(folder).pictures == 3


def test_top_may_be_more_than_there_are(search: Search, folder: Path) -> None:
    assert len(search(folder, top=10**9).hits) == 3


def test_fail_names_what_is_no_picture(search: Search, folder: Path) -> None:
    (folder / "gone.png").symlink_to("nothing")
    with pytest.raises(InputError, match=r"gone\.png is a broken link\."):
        search(folder, on_error="fail")


def test_json_has_hits_and_what_was_skipped(command: Callable[..., Result], folder: Path) -> None:
    (folder / "notes.txt").write_text("")
    (folder / "broken.png").write_bytes(b"no picture")
    strange = folder / os.fsdecode(b"caf\xe9 #1%\n.png")
    (folder / "more" / "blue.png").rename(strange)
    result = command(folder, "red", "--json", "--top", 2)
    assert result.exit_code == 0, result.output
    report = msgspec.json.decode(result.stdout)  # strict: no unpaired surrogates
    assert report["folder"] == str(folder)
    assert (report["pictures"], report["embedded"]) == (3, 3)
    assert Path(report["hits"][0]["file"]).name == "red.png"
    assert len(report["hits"]) == 2
    skipped = {Path(entry["file"]).name: entry["reason"] for entry in report["skipped"]}
    assert skipped["notes.txt"] == "not an image by its suffix"
    assert str(folder / "broken.png") in skipped["broken.png"]
    report = json.loads(command(folder, "blue", "--json").stdout)
    assert report["embedded"] == 0
    assert report["hits"][0]["file"] == f"{folder}/caf\\xe9 #1%\n.png"
    assert report["hits"][0]["uri"] == f"file://{folder}/caf%E9%20%231%25%0A.png"


def test_the_table_shows_whole_names_and_no_control_characters(command: Callable[..., Result], folder: Path) -> None:
    long = "long " + "x" * 200 + " end.png"
    for name in (long, "\x1b[31mred\x07\n.png", "[bold]tag :smile:.png"):
        Image.new("RGB", (56, 56), "pink").save(folder / name)
    (folder / "\x1b[31mbroken\n.png").write_bytes(b"no picture")
    result = command(folder)
    assert result.exit_code == 0, result.output
    table = result.stdout
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert r"\x1b[31mred\x07\n.png" in table
    assert "[bold]tag :smile:.png" in table
    letters = re.sub(r"[^\w.]", "", table)
    assert re.sub(r"[^\w.]", "", long) in letters
    assert r"skipped 1 files, such as \x1b[31mbroken\n.png: " in result.stderr
    assert all(len(line) <= 200 for line in table.splitlines())


def test_the_first_broken_picture_is_named_before_other_files(search: Search, folder: Path) -> None:
    (folder / "a.txt").write_text("")
    (folder / "z.png").write_bytes(b"no picture")
    line = skipped_line(search(folder))
    assert line.startswith("skipped 2 files, such as z.png: ")
    assert "\n" not in line


@pytest.fixture
def page(search: Search, folder: Path) -> Callable[..., str]:
    def make(text: str = "red", image: Path | None = None) -> str:
        embedder = ColourEmbedder()
        result = search(folder, "red", embedder=embedder)
        changed = SearchResult(Item(text=text), folder, result.hits, result.pictures, result.embedded, result.skipped)
        return page_from_result(changed, embedder.bundle, image)

    return make


def test_pictures_link_to_their_files_and_have_alt_texts(page: Callable[..., str], folder: Path) -> None:
    name = os.fsdecode(b'<b>"caf\xe9" & #1%?.png')
    (folder / "more" / "red.png").rename(folder / name)
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").mkdir()
    (folder / "more" / "lime.png").rename(folder.parent / "elsewhere" / "lime.png")
    text = page(image=folder / "more" / "blue.png")
    links = re.findall(r'<a href="([^"]*)"><img ', text)
    assert len(links) == 3
    files = [Path(unquote(link.removeprefix("file://"), errors="surrogateescape")) for link in links]
    assert all(file.is_file() for file in files)
    assert links[0] == f"file://{folder}/%3Cb%3E%22caf%E9%22%20%26%20%231%25%3F.png"
    assert {file.parent for file in files} == {folder, folder / "more", folder.parent / "elsewhere"}
    alts = re.findall(r'<img src="[^"]*" alt="([^"]*)"', text)
    assert len(alts) == text.count("<img ") == 4
    assert alts[:2] == ["query image: blue.png", r"&lt;b&gt;&quot;caf\xe9&quot; &amp; #1%?.png"]
    assert text.encode()


def test_bars_start_at_zero_and_the_score_is_explained(page: Callable[..., str]) -> None:
    text = page()
    scores = [float(score) for score in re.findall(r"<i>(-?[\d.]+)</i>", text)]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", text)]
    assert scores[0] == 1.0
    assert scores[-1] < 0
    assert widths == pytest.approx([100 * max(score, 0) for score in scores], abs=0.1)
    assert "cosine" in text
    assert "from 0 to 1" in text


def test_names_are_whole_on_the_page(page: Callable[..., str], folder: Path) -> None:
    name = "a  long\nname " + "x" * 200 + ".png"
    (folder / "more" / "red.png").rename(folder / name)
    text = page()
    assert f"<span>{name}</span>".replace("\n", r"\n") in text
    assert "ellipsis" not in text
    assert "overflow: hidden; text-overflow" not in text


def test_a_picture_that_is_gone_is_said_so_on_the_page(search: Search, folder: Path) -> None:
    embedder = ColourEmbedder()
    result = search(folder, embedder=embedder)
    (folder / "more" / "red.png").unlink()
    (folder / "more" / "lime.png").write_bytes(b"no picture")
    text = page_from_result(result, embedder.bundle, None)
    assert text.count('class="gone"') == 2
    assert text.count("<img ") == 1


def test_a_query_of_any_characters(page: Callable[..., str]) -> None:
    text = page("<script>\x00\x1b\u202e</script>\n two")
    assert r"<title>&lt;script&gt;\x00\x1b\u202e&lt;/script&gt; two</title>" in text
    assert "<script>" not in text


def test_the_report_is_what_was_found(search: Search, folder: Path) -> None:
    result = search(folder)
    report = report_from_result(result)
    assert [hit.file for hit in report.hits] == [str(hit.file) for hit in result.hits]
