"""Logs and warnings of other packages, and the package's own warnings, under the switches."""

import logging
import warnings

import pytest
from click.testing import CliRunner

from plume_export.cli import switches as own_module
from plume_export.cli.switches import command


@command()
def chat() -> None:
    """Log and warn as another package, and warn as this one."""
    logging.getLogger("another_package").warning("a log")
    warnings.warn_explicit("theirs", UserWarning, "/site-packages/torch/onnx.py", 1)
    warnings.warn_explicit("our own", UserWarning, own_module.__file__, 1)


@pytest.mark.parametrize("switch", [(), ("-q",)])
def test_others_are_hidden(switch: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    assert CliRunner().invoke(chat, switch).stderr == "warning: our own\n"
    assert caplog.records == []
    logging.getLogger("another_package").warning("after the command")
    assert len(caplog.records) == 1


def test_verbose_lets_them_through(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(UserWarning, match="theirs"):
        result = CliRunner().invoke(chat, ["-v"])
    assert "warning: our own" in result.stderr
    assert [record.message for record in caplog.records] == ["a log"]
