"""The examples run, and find what the dot products say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from click.testing import CliRunner

from plume_export import Bundle, Embedder, api
from plume_export.cli import main

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TEXTS = ["a red circle", "two blue squares", "three large cyan stars", "the word cat in green", "a small yellow star"]
QUERY = "three cyan stars"


@pytest.fixture(scope="module")
def parquet(plume_tiny_fp16: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    lines = [json.dumps({"id": text, "text": text}) for text in TEXTS]
    (directory / "in.jsonl").write_text("\n".join(lines))
    output = directory / "texts.parquet"
    arguments = ["embed", str(plume_tiny_fp16.path), "--input", str(directory / "in.jsonl"), "-o", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return output


@pytest.fixture(scope="module")
def best(plume_tiny_fp16: Bundle) -> list[tuple[str, float]]:
    """The three best texts and their cosines."""
    with Embedder(plume_tiny_fp16) as embedder:
        scores = embedder.embed(TEXTS) @ embedder.encode(QUERY)
    return [(TEXTS[row], float(scores[row])) for row in np.argsort(-scores)[:3]]


@pytest.mark.parametrize(("package", "script"), [("lancedb", "search_lancedb.py"), ("qdrant_client", "search_qdrant.py")])
@pytest.mark.slow
def test_a_database_finds_the_nearest(
    package: str, script: str, plume_tiny_fp16: Bundle, parquet: Path, best: list[tuple[str, float]], tmp_path: Path
) -> None:
    pytest.importorskip(package)
    assert found(script, plume_tiny_fp16.path, parquet, QUERY, directory=tmp_path) == best_printed(best)


@pytest.mark.slow
def test_langchain_finds_the_nearest(plume_tiny_fp16: Bundle, best: list[tuple[str, float]], tmp_path: Path) -> None:
    pytest.importorskip("langchain_core")
    assert found("search_langchain.py", plume_tiny_fp16.path, QUERY, *TEXTS, directory=tmp_path) == best_printed(best)


def found(script: str, *arguments: str | Path, directory: Path) -> list[tuple[str, Any]]:
    """Run a script; return the ids and scores that it prints."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return [(name, float(score)) for score, _, name in lines]


def best_printed(best: list[tuple[str, float]]) -> list[tuple[str, Any]]:
    return [(text, pytest.approx(score, abs=2e-3)) for text, score in best]


def test_the_notebook(plume_tiny_fp16: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a bundle that is there already."""
    monkeypatch.setattr(api, "build", create_autospec(api.build, return_value=plume_tiny_fp16))
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "quick_start.ipynb").read_text(encoding="utf-8"))["cells"]
    values: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), values)
    assert values["images"].shape == (6, values["embedder"].dimension)
    assert values["found"][0][1] == "blue circle"
