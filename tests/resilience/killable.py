"""Commands that are killed, or run out of disk: how each is started, and what must hold after that and after its end."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from PIL import Image

from plume_export.bundle import open_bundle, write_manifest
from plume_export.samples import PLUME_TINY

_RUNTIME = ("onnxruntime", "plume_export.runtime.onnxruntime_cpu")
_COMPILERS = (*_RUNTIME, "onnx", "onnx_ir", "plume_export.builders.onnxruntime.cached_start")
_EXPORTERS = (*_COMPILERS, "torch", "transformers", "onnxscript", "safetensors", "plume_export.portable_bundle")
_INPUTS = 120
_PICTURES = 150
_OUTPUTS = ("out.npy", "out.jsonl", "out.parquet")


class Killable:
    """One command into one place of `directory`. `modules` are imported before it is started."""

    modules: Sequence[str] = _RUNTIME

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def reset(self, number: int) -> None:
        """Bring about what a first run finds; `number` chooses between an empty place and one with an old result."""
        raise NotImplementedError

    def learn(self) -> None:
        """Remember what a run that nothing disturbed has left."""
        self.names = self._names()

    def check_stopped(self) -> str:
        """Return what stands at the output. Raises AssertionError if it is half-made, or if something finished is lost."""
        raise NotImplementedError

    def check_ended(self) -> None:
        """Raise AssertionError unless a run that ended left what it would have left undisturbed, and nothing else."""
        assert self._names() == self.names, f"left behind: {sorted(self._names() ^ self.names)}"

    def _names(self) -> set[str]:
        return {file.name for file in self.directory.iterdir()}


class WritesBundle(Killable):
    """`build`, `export`, or, where a bundle is the source, `compile`."""

    def __init__(self, directory: Path, command: Sequence[str], source: Path | None = None) -> None:
        super().__init__(directory)
        self.modules = _EXPORTERS if source is None else _COMPILERS
        self._command, self._source = command, source
        self._source_digest = None if source is None else digest_of_tree(source)
        self._output = directory / "bundle"
        self._old = directory.with_name(f"{directory.name}-old")

    def arguments(self) -> list[str]:
        return [*self._command, "-o", str(self._output)]

    def learn(self) -> None:
        super().learn()
        self._digest = digest_of_tree(self._output)
        shutil.rmtree(self._old, ignore_errors=True)  # of the way before
        shutil.copytree(self._output, self._old)
        manifest = open_bundle(self._old).manifest
        write_manifest_again(self._old, msgspec.structs.replace(manifest, versions={"plume-export": "older"}))
        self._old_digest = digest_of_tree(self._old)

    def reset(self, number: int) -> None:
        shutil.rmtree(self._output, ignore_errors=True)
        self._has_old = number % 2 == 1
        if self._has_old:
            shutil.copytree(self._old, self._output)

    def check_stopped(self) -> str:
        self._check_source()
        if not self._output.exists():
            # Between two renames; the next run restores it.
            hidden = [digest_of_tree(file) for file in self.directory.glob(".bundle.*.old")]
            assert not self._has_old or self._old_digest in hidden, "the old bundle is lost"
            return "moved aside" if self._has_old else "absent"
        open_bundle(self._output, verify_hashes="always")
        found = digest_of_tree(self._output)
        assert found in (self._digest, self._old_digest), "a bundle opens that is neither the old nor the new one"
        return "new" if found == self._digest else "old"

    def check_ended(self) -> None:
        super().check_ended()
        self._check_source()
        open_bundle(self._output, verify_hashes="always")
        assert digest_of_tree(self._output) == self._digest, "the bundle is not the one of a run that nothing disturbed"

    def _check_source(self) -> None:
        if self._source is not None:
            assert digest_of_tree(self._source) == self._source_digest, "the bundle that is compiled has changed"


class Embeds(Killable):
    """`embed --resume` of texts, pictures and pairs of pictures, two of them damaged, to each format in turn."""

    modules = (*_RUNTIME, "pyarrow.parquet")

    def __init__(self, directory: Path, bundle: Path, inputs: int = _INPUTS) -> None:
        super().__init__(directory)
        self._bundle = bundle
        self._inputs = directory.with_name(f"{directory.name}-inputs") / "in.jsonl"
        _write_inputs(self._inputs, inputs)
        self._output = directory / _OUTPUTS[0]
        self._expected: dict[str, bytes] = {}

    def arguments(self) -> list[str]:
        inputs = ["--input", str(self._inputs), "--output", str(self._output), "--resume"]
        return ["embed", str(self._bundle), *inputs, "--batch-size", "1", "--on-error", "skip", "--threads", "1"]

    def reset(self, number: int) -> None:
        for file in self.directory.iterdir():
            file.unlink()
        self._output = self.directory / _OUTPUTS[number // 2 % len(_OUTPUTS)]
        self._has_old = number % 2 == 1
        if self._has_old:
            self._output.write_bytes(b"what stood here")
        self._rows_kept = 0

    def learn(self) -> None:
        super().learn()
        self._expected[self._output.suffix] = self._output.read_bytes()
        if self._output.suffix == ".npy":
            self._rows = np.load(self._output)

    def check_stopped(self) -> str:
        rows = self._finished_rows()
        assert rows >= self._rows_kept, f"{self._rows_kept} rows were done, and {rows} are left"
        if not self._output.exists():
            assert not self._has_old, "what stood at the output is lost"
            found = "absent"
        else:
            found = "old" if self._output.read_bytes() == b"what stood here" else "new"
        if found == "new":
            self._check_output()
        else:
            self._rows_kept = rows
        return found

    def check_ended(self) -> None:
        assert self._names() == {self._output.name}, f"left behind: {sorted(self._names() - {self._output.name})}"
        self._check_output()

    def _check_output(self) -> None:
        # A format that comes for the first time is learnt from a run that was killed: its rows are those of the array.
        expected = self._expected.setdefault(self._output.suffix, self._output.read_bytes())
        assert self._output.read_bytes() == expected, "the output is not, byte for byte, that of a run that nothing disturbed"

    def _finished_rows(self) -> int:
        """Count the rows of whole windows in the partial run, which must be those of a run that nothing disturbed."""
        journal = self.directory / f".{self._output.name}.partial.jsonl"
        if not journal.exists():
            return 0
        lines = [json.loads(line) for line in journal.read_bytes().split(b"\n")[1:-1]]
        count = sum(len(line["ids"]) for line in lines if line["is_whole"])
        rows = (self.directory / f".{self._output.name}.partial").read_bytes()[: count * self._rows[0].nbytes]
        assert rows == self._rows[:count].tobytes(), f"the first {count} rows are not those of a run that nothing disturbed"
        return count


class Searches(Killable):
    """`search` of a folder of pictures with a fresh cache, and with a page of the hits."""

    def __init__(self, directory: Path, bundle: Path, pictures: int = _PICTURES) -> None:
        super().__init__(directory)
        self._bundle = bundle
        self._folder = directory.with_name(f"{directory.name}-pictures")
        self._folder.mkdir()
        for number in range(pictures):
            _picture(number).save(self._folder / f"{number}.png")
        (self._folder / "broken.png").write_bytes(b"no picture")
        self._cache, self._page = directory / "cache.sqlite", directory / "found.html"

    def arguments(self) -> list[str]:
        places = ["--in", str(self._folder), "--cache", str(self._cache), "--html", str(self._page)]
        return ["search", str(self._bundle), "a red picture", *places, "--top", "20", "--batch-size", "2", "--threads", "1"]

    def reset(self, number: int) -> None:
        for file in self.directory.iterdir():
            file.unlink()
        self._has_old = number % 2 == 1
        if self._has_old:
            self._page.write_bytes(b"an older page")
        self._rows_kept = 0

    def learn(self) -> None:
        super().learn()
        self._expected = self._hits()
        self._total = self._cached_rows()

    def check_stopped(self) -> str:
        rows = self._cached_rows()
        assert rows >= self._rows_kept, f"{self._rows_kept} embeddings were kept, and {rows} are left"
        self._rows_kept = rows
        if not self._page.exists():
            assert not self._has_old, "the page that stood there is lost"
            return "absent"
        if self._page.read_bytes() == b"an older page":
            return "old"
        assert self._hits() == self._expected, "the page is half-made"
        return "new"

    def check_ended(self) -> None:
        super().check_ended()
        assert self._hits() == self._expected, "the hits are not those of a search that nothing disturbed"
        assert self._cached_rows() == self._total

    def _hits(self) -> bytes:
        """The page without what says how much of it came from the cache."""
        page = self._page.read_bytes()
        assert page.rstrip().endswith(b"</html>"), "the page is cut off"
        return page[page.index(b"<body") :].split(b"<main", 1)[-1].split(b" new", 1)[-1]

    def _cached_rows(self) -> int:
        if not self._cache.exists() or self._cache.stat().st_size == 0:
            return 0
        with closing(sqlite3.connect(self._cache)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the cache is damaged"
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'embeddings'").fetchone()[0]
            return int(connection.execute("SELECT count(*) FROM embeddings").fetchone()[0]) if tables else 0


class Calibrates(Killable):
    """`calibrate` of a few inputs; the ranges of others stand there in every second round."""

    modules = _EXPORTERS

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._inputs = directory.with_name(f"{directory.name}-inputs.jsonl")
        self._inputs.write_text('{"text": "two red circles"}\n{"text": "a page"}\n')
        self._output = directory / "ranges.npz"

    def arguments(self) -> list[str]:
        return ["calibrate", "--checkpoint", PLUME_TINY, "--inputs", str(self._inputs), "-o", str(self._output)]

    def reset(self, number: int) -> None:
        for file in self.directory.iterdir():
            file.unlink()
        self._has_old = number % 2 == 1
        if self._has_old:
            self._output.write_bytes(b"older ranges")

    def learn(self) -> None:
        super().learn()
        self._expected = self._output.read_bytes()

    def check_stopped(self) -> str:
        if not self._output.exists():
            assert not self._has_old, "the ranges that stood there are lost"
            return "absent"
        found = self._output.read_bytes()
        assert found in (b"older ranges", self._expected), "the ranges are half-written"
        return "new" if found == self._expected else "old"

    def check_ended(self) -> None:
        super().check_ended()
        assert self._output.read_bytes() == self._expected


class DrawsSampleData(Killable):
    """`sample-data`, which replaces nothing."""

    modules = ("plume_export.plume_tiny.sample_data",)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._output = directory / "sample"

    def arguments(self) -> list[str]:
        return ["sample-data", str(self._output)]

    def reset(self, number: int) -> None:
        shutil.rmtree(self._output, ignore_errors=True)

    def learn(self) -> None:
        super().learn()
        self._digest = digest_of_tree(self._output)

    def check_stopped(self) -> str:
        if not self._output.exists():
            return "absent"
        assert digest_of_tree(self._output) == self._digest, "the sample data is half-made"
        return "new"

    def check_ended(self) -> None:
        super().check_ended()
        assert digest_of_tree(self._output) == self._digest


def digest_of_tree(directory: Path) -> dict[str, str]:
    """Return the hash of every file by its name below the directory."""
    files = (file for file in sorted(directory.rglob("*")) if file.is_file())
    return {str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest() for file in files}


def write_manifest_again(directory: Path, manifest: object) -> None:
    """Write a bundle's manifest with other fields."""
    (directory / "manifest.json").unlink()
    write_manifest(directory, manifest)  # type: ignore[arg-type]


def _picture(number: int) -> Image.Image:
    random = Random(number)
    size = (random.randrange(28, 90), random.randrange(28, 90))
    picture = Image.new("RGB", size, tuple(random.randrange(256) for _ in range(3)))  # type: ignore[arg-type]
    picture.paste((255, 255, 255), (5, 5, 5 + random.randrange(20), 5 + random.randrange(20)))
    return picture


def _write_inputs(file: Path, count: int) -> None:
    file.parent.mkdir()
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            line: dict[str, object] = {"id": f"id {number}", "text": f"input {number} of {count}"}
            if number % 3 == 1:
                _picture(number).save(file.parent / f"{number}.png")
                line["image"] = f"{number}.png"
            if number % 12 == 1:
                line["image"] = [f"{number}.png"] * 2
            if number in (7, count - 5):
                line["image"] = "missing.png"
            lines.write(json.dumps(line) + "\n")
