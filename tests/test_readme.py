"""What a reader copies from the README does no harm to what is theirs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ".venv-plume"


def test_the_commands_use_an_environment_of_their_own() -> None:
    for file in (ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "docs" / "jetson.md", ROOT / "CONTRIBUTING.md"):
        commands = re.findall(r"-m venv (.*?) && \. (\S+)/bin/activate", file.read_text())
        assert commands
        for created, activated in commands:
            assert "--clear" not in created
            assert created.split()[-1] == activated == ENVIRONMENT
    assert f"{ENVIRONMENT}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_ci_activates_the_environment_of_the_test_command() -> None:
    assert f". {ENVIRONMENT}/bin/activate" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_quick_start_is_the_same_everywhere() -> None:
    commands = [
        re.findall(r"^python3 -m venv .*plume-export search .*$", (ROOT / file).read_text(encoding="utf-8"), re.M)
        for file in ("README.md", "docs/index.md")
    ]
    assert len(commands[0]) == 1
    assert commands[0] == commands[1]
