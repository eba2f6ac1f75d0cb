"""What the pages show as code: commands and flags exist, Python compiles, JSON is JSON."""

import ast
import json
import re
from pathlib import Path

import click
import pytest

from plume_export.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {name: main.get_command(click.Context(main), name) for name in main.list_commands(click.Context(main))}
OTHERS_FLAGS = {"--force-exclude", "--long", "--strict"}
_FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*\b(?!\d)")


def flags_of(name: str) -> set[str]:
    command = COMMANDS[name]
    assert command is not None
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def code(page: Path) -> list[str]:
    """Lines of shell blocks, continued lines joined and comments left out, and everything in backticks."""
    lines = [line.split("  #")[0] for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return lines + re.findall(r"`([^`\n]+)`", prose)


def unknown_flags(text: str) -> list[str]:
    """Commands and flags of plume-export that do not exist; of a flag that stands alone, those of no command."""
    if re.fullmatch(r"--[a-z][\w-]*( .*)?", text):
        every = set().union(*map(flags_of, COMMANDS)) | OTHERS_FLAGS | {"--help", "--version"}
        return [flag for flag in _FLAG.findall(text) if flag not in every]
    found = []
    for name, rest in re.findall(r"plume-export ([a-z][\w-]*)([^|;&#]*)", text):
        if name not in COMMANDS:
            found.append(f"plume-export {name}")
        else:
            found += [f"{name} {flag}" for flag in _FLAG.findall(rest) if flag not in flags_of(name)]
    return found


def test_unknown_flags_are_found() -> None:
    assert unknown_flags("plume-export embed BUNDLE --out x && plume-export fly") == ["embed --out", "plume-export fly"]
    assert unknown_flags("--precison fp16") == ["--precison"]
    assert unknown_flags("plume-export embed BUNDLE --output x -o x") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_exist(page: Path) -> None:
    ours = [text for text in code(page) if text.startswith("--") or "plume-export " in text]
    assert [flag for text in ours if text != "plume-export bundle" for flag in unknown_flags(text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_and_json_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "json"):
        for line in block.splitlines():
            json.loads(line)


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_links_outside_the_site_exist(page: Path) -> None:
    """The site's own are checked when it is built."""
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (ROOT / link).exists(), link
