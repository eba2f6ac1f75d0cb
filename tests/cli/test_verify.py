"""--no-verify leaves hashing out; inspect always does it."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from plume_export.bundle import WEIGHTS, bundle, open_bundle
from plume_export.cli.main import main

from ..bundle.small_bundle import write_small_bundle
from .failures import assert_fails


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a file of another content and the same size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = write_small_bundle(tmp_path / "bundle")
    (directory / WEIGHTS).write_text("X" * len(WEIGHTS))
    return directory


COMMANDS = {
    "embed": ["--text", "a"],
    "search": ["a", "--in", "."],
    "selftest": [],
    "compile": ["--target", "cpu", "-o"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_verify(name: str, altered: Path, tmp_path: Path) -> None:
    rest = [*COMMANDS[name], *([tmp_path / "out"] if name == "compile" else [])]
    assert_fails(run(name, altered, *rest), "sha256")
    assert "sha256" not in run(name, altered, *rest, "--no-verify").output


@pytest.mark.parametrize("name", [*COMMANDS, "evaluate", "bench", "parity"])
def test_every_command_that_works_with_a_bundle_has_it(name: str) -> None:
    assert "--no-verify" in run(name, "--help").output


def test_inspect_always_verifies(altered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "is_remembered", lambda _: True)
    open_bundle(altered)
    assert_fails(run("inspect", altered), "sha256")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("", "current directory"),
        (".", "current directory"),
        ("..", "ends in '..'"),
        ("/", "current directory"),
        ("n" * 250, "250 bytes"),
    ],
)
def test_outputs_of_compile_that_are_none(output: str, text: str, altered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(altered.parent)
    before = sorted(os.listdir(altered.parent))
    assert_fails(run("compile", altered, "--target", "cpu", "-o", output), text)
    assert sorted(os.listdir(altered.parent)) == before
