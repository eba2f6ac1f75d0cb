"""Searching a folder: ranking, what the cache spares, what is skipped, and the page."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from plume_export.bundle import Bundle
from plume_export.cli import main

COLOURS = ("red", "green", "blue", "white")
Search = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in COLOURS:
        Image.new("RGB", (56, 84), name).save(folder / "more" / f"{name}.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("left out")
    return folder


@pytest.fixture
def search(tiny_cpu: Bundle, tmp_path: Path) -> Search:
    def invoke(folder: Path, *arguments: object, bundle: Bundle = tiny_cpu) -> Result:
        command = ["search", bundle.path, "--in", folder, "--cache", tmp_path / "cache" / "embeddings.sqlite", *arguments]
        return CliRunner().invoke(main, [str(argument) for argument in command])

    return invoke


def new_pictures(result: Result) -> int:
    assert result.exit_code == 0, result.output
    found = re.search(r"(\d+) new", result.stdout)
    assert found is not None
    return int(found[1])


@pytest.mark.slow
def test_a_picture_finds_itself(search: Search, folder: Path) -> None:
    for name in COLOURS:
        result = search(folder, "--image", folder / "more" / f"{name}.png", "--json")
        hits = json.loads(result.stdout)["hits"]
        assert len(hits) == 4
        assert Path(hits[0]["file"]).name == f"{name}.png"
        assert hits[0]["score"] == pytest.approx(1.0, abs=1e-5)
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_text_with_and_without_a_picture(search: Search, folder: Path) -> None:
    text, both = (search(folder, "a red square", "--json", *more) for more in ((), ("--image", folder / "more/red.png")))
    assert text.exit_code == both.exit_code == 0
    assert json.loads(text.stdout)["hits"] != json.loads(both.stdout)["hits"]


def test_only_new_contents_are_embedded(search: Search, folder: Path) -> None:
    assert new_pictures(search(folder, "a")) == 4
    assert new_pictures(search(folder, "b")) == 0
    shutil.copy(folder / "more" / "red.png", folder / "again.png")
    (folder / "more" / "red.png").rename(folder / "renamed.png")
    assert new_pictures(search(folder, "c")) == 0
    Image.new("RGB", (56, 84), "black").save(folder / "again.png")
    result = search(folder, "d")
    assert new_pictures(result) == 1
    assert "5 images" in result.stdout


def test_another_bundle_has_its_own_embeddings(search: Search, folder: Path, tiny_fp16: Bundle) -> None:
    assert new_pictures(search(folder, "a")) == 4
    assert new_pictures(search(folder, "a", bundle=tiny_fp16)) == 4
    assert new_pictures(search(folder, "a")) == 0


def test_no_pictures_are_counted_or_refused(search: Search, folder: Path) -> None:
    (folder / "broken.png").write_text("no picture")
    result = search(folder, "a")
    assert result.exit_code == 0
    assert "skipped 2 files" in result.stderr
    assert "4 images" in result.stdout
    refused = search(folder, "a", "--on-error", "fail")
    assert refused.exit_code == 1
    assert "notes.txt is not an image" in refused.stderr
    (folder / "notes.txt").unlink()
    assert "broken.png" in search(folder, "a", "--on-error", "fail").stderr


def test_folders_without_pictures(search: Search, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "it is empty" in search(tmp_path / "empty", "a").stderr
    (tmp_path / "empty" / "a.txt").write_text("")
    assert "no image among its 1 files" in search(tmp_path / "empty", "a").stderr
    (tmp_path / "empty" / "a.png").write_text("")
    nothing = search(tmp_path / "empty", "a").stderr
    assert "no image that can be embedded" in nothing
    assert "a.png cannot be read as an image" in nothing
    assert "is not a folder" in search(tmp_path / "none", "a").stderr


def test_nothing_to_search_for(search: Search, folder: Path) -> None:
    assert search(folder).exit_code == 2
    assert search(folder, "  ").exit_code == 2


def test_the_page_needs_nothing_beside_it(search: Search, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    query = folder / "more" / "blue.png"
    result = search(folder, "<script>alert(1)</script> & more", "--image", query, "--top", 3, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 4  # the query and three hits
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|<link|@import", text)


def test_a_page_that_can_not_be_written_stops_at_once(search: Search, folder: Path, tmp_path: Path) -> None:
    result = search(folder, "a", "--html", tmp_path / "none" / "out.html")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cache_is_reported_and_rebuilt(search: Search, folder: Path, tmp_path: Path) -> None:
    assert search(folder, "a").exit_code == 0
    cache = tmp_path / "cache" / "embeddings.sqlite"
    data = bytearray(cache.read_bytes())
    data[2000:] = b"\xff" * (len(data) - 2000)
    cache.write_bytes(data)
    result = search(folder, "a")
    assert new_pictures(result) == 4
    assert "was renamed to embeddings.sqlite.old" in result.stderr
    assert cache.with_name("embeddings.sqlite.old").read_bytes() == data
    again = search(folder, "a")
    assert new_pictures(again) == 0
    assert "renamed" not in again.stderr


def test_another_programs_database_is_not_taken(search: Search, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "cache" / "embeddings.sqlite"
    other.parent.mkdir()
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = other.read_bytes()
    refused = search(folder, "a")
    assert refused.exit_code == 1
    assert "it is another program's database" in refused.stderr
    assert other.read_bytes() == before


def test_a_content_that_changes_under_the_same_time_is_seen(search: Search, folder: Path) -> None:
    """`cp -p` and the like keep size and time of modification."""
    red, green = folder / "more" / "red.png", folder / "more" / "green.png"
    for file in (red, green):
        file.write_bytes(file.read_bytes().ljust(1000, b"\0"))
        os.utime(file, (1_000_000_000, 1_000_000_000))
    assert new_pictures(search(folder, "a")) == 4
    red.write_bytes(red.read_bytes()[:-1] + b"x")
    os.utime(red, (1_000_000_000, 1_000_000_000))
    assert new_pictures(search(folder, "a")) == 1


def test_names_are_shown_as_they_are(search: Search, folder: Path, tmp_path: Path) -> None:
    names = ["[draft] cat.png", "a[/b].png", ":smile:.png"]
    for number, name in enumerate(names):
        path = folder / name.replace("/", "_")
        Image.new("RGB", (60 + number, 56), "red").save(path)
    latin = os.fsencode(folder) + b"/caf\xe9.png"
    shutil.copyfile(folder / "more" / "blue.png", latin)
    result = search(folder, "a", "--html", tmp_path / "out.html")
    assert result.exit_code == 0, result.output
    for name in names:
        assert name.replace("/", "_") in result.stdout
    assert r"caf\xe9.png" in result.stdout
    assert r"caf\xe9.png" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_two_broken_files_of_one_content_are_two(search: Search, folder: Path) -> None:
    for name in ("one.png", "two.png"):
        (folder / name).write_text("no picture")
    assert "skipped 3 files" in search(folder, "a").stderr


def test_a_text_in_the_place_of_the_bundle_shows_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["search", "--in", str(tmp_path), "two red stars"])
    assert result.exit_code == 2
    assert "BUNDLE, the directory that" in result.stderr
    assert f"plume-export search BUNDLE --in {tmp_path} 'two red stars'" in " ".join(result.stderr.split())
