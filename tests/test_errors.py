"""Errors speak flags on the command line and keyword arguments from Python."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import plume_export
from plume_export.errors import InputError, MissingExtraError, PlumeExportError, keywords_from_flags

PACKAGE = Path(plume_export.__file__).parent


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        ("lower --batch-size", "lower batch_size"),
        ("build it with --precision bf16 (or --min-cosine 0)", "build it with precision bf16 (or min_cosine 0)"),
        ("plume-export build without --modalities text", "plume-export build without --modalities text"),
        ("plume-export compile B --target cpu, or another --output", "plume-export compile B --target cpu, or another output"),
        ("`plume-export embed B --text t` again; --resume", "`plume-export embed B --text t` again; resume"),
        ("python3 -m venv --system-site-packages .venv", "python3 -m venv --system-site-packages .venv"),
        ("a--b and photos--old", "a--b and photos--old"),
    ],
)
def test_flags_become_keywords_outside_of_commands(flags: str, keywords: str) -> None:
    assert keywords_from_flags(flags) == keywords


def test_text_of_an_error_in_python_and_on_the_command_line() -> None:
    error = InputError("The file --batch-size is missing.", fix="lower --batch-size")
    assert str(error) == "The file --batch-size is missing.\n  fix: lower batch_size"
    assert error.command_line_text == "The file --batch-size is missing.\n  fix: lower --batch-size"


def test_an_error_gets_its_place_and_another_fix() -> None:
    error = InputError("It is empty.", fix="fill it")
    error.add_place("in.jsonl line 3")
    error.add_fix("--on-error skip leaves it out")
    assert error.command_line_text == "in.jsonl line 3: It is empty.\n  fix: fill it; --on-error skip leaves it out"
    without = InputError("It is empty.")
    without.add_fix("fill it")
    assert without.fix == "fill it"


@pytest.mark.parametrize("error", [PlumeExportError("a", fix="--b"), InputError("a"), MissingExtraError("av", "video")])
def test_an_error_crosses_processes(error: PlumeExportError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.command_line_text) == (str(error), error.command_line_text)


def test_no_fix_of_the_package_shows_flags_to_python() -> None:
    """Every literal `fix` of the sources, its expressions left out."""
    fixes = [
        "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "fix"
        for parts in [node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]]
        if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts)
    ]
    assert sum("--" in fix for fix in fixes) > 20
    outside_of_commands = [re.sub(r"`[^`]*`|(plume-export|pip|python3) [^,;)]*", "", keywords_from_flags(fix)) for fix in fixes]
    assert not [fix for fix in outside_of_commands if re.search(r"(^|\s)--[a-z]", fix)]


def test_no_message_of_the_package_shows_flags_to_python() -> None:
    """Every literal message outside of the command line: it is the same in both, so it names no flag."""
    messages = [
        "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "cli")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args
        for parts in [node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]]
        if all(isinstance(part, ast.FormattedValue) or type(getattr(part, "value", None)) is str for part in parts)
    ]
    assert len(messages) > 200
    assert [message for message in messages if keywords_from_flags(message) != message] == []


def test_the_fix_speaks_python_and_keeps_the_flags() -> None:
    error = PlumeExportError("too large", fix="use a smaller --batch-size")
    error.add_fix("--on-error skip")
    assert error.fix == "use a smaller batch_size; on_error skip"
    assert error.command_line_fix == "use a smaller --batch-size; --on-error skip"
