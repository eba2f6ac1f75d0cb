"""The switches that every command takes, and how errors look under them."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.cli import sample_data as sample_data_command
from plume_export.cli.main import COMMANDS
from plume_export.cli.switches import Command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_command_takes_the_switches() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert isinstance(command, Command), name
        options = [option for parameter in command.params for option in parameter.opts]
        for switch in ("--json", "-q", "--quiet", "-v", "--verbose", "--debug"):
            assert options.count(switch) == 1, (name, switch)


@pytest.mark.parametrize("arguments", [("--json", "sample-data"), ("sample-data", "--json")])
@pytest.mark.slow
def test_json_at_the_group_and_at_the_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = run(*arguments, tmp_path / "drawn")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"path": str(tmp_path / "drawn")}
    assert result.stderr == ""


def test_an_error_under_json(tmp_path: Path) -> None:
    result = run("inspect", "--json", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)["error"]
    assert error["type"] == "BundleError"
    assert str(tmp_path / "none") in error["message"]
    assert set(error) == {"type", "message", "fix"}


@pytest.mark.parametrize("arguments", [("embed", "--json", "--none"), ("--json",), ("--json", "none"), ("embed", "--json")])
def test_a_usage_error_under_json(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr)["error"]["type"] == "UsageError"


def test_quiet_and_verbose_exclude_each_other() -> None:
    assert run("targets", "-q", "-v").exit_code == 2
    assert run("-q", "targets", "-v").exit_code == 2


def test_json_has_no_notes(tiny_cpu: Bundle) -> None:
    result = run("embed", tiny_cpu.path, "--text", "a text", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert [len(row["embedding"]) for row in document["embeddings"]] == [128]
    assert (document["path"], document["skipped"]) == (None, [])


@pytest.mark.parametrize("raised", [ValueError("odd"), MemoryError(), OSError(28, "No space left on device", "/x")])
def test_an_unexpected_error_is_one_message(raised: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(sample_data_command, "write_sample_data", fail)
    result = run("sample-data", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("error: ") >= 1
    assert "Traceback" not in result.stderr
    assert ("please report" in result.stderr) == isinstance(raised, ValueError)
    assert json.loads(run("sample-data", tmp_path, "--json").stderr)["error"]["message"]
    assert run("sample-data", tmp_path, "--debug").exception is raised
