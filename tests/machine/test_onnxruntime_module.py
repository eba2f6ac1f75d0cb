"""ONNX Runtime collects nothing about a user who did not ask for it."""

import os
import re
import sys
from pathlib import Path

import pytest

import plume_export
from plume_export.errors import MissingExtraError
from plume_export.machine.onnxruntime_module import import_onnxruntime


@pytest.mark.parametrize(("asked", "expected"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_unless_asked_for(asked: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if asked is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", asked)
    assert import_onnxruntime().__name__ == "onnxruntime"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == expected


def test_nothing_else_imports_it() -> None:
    """Whoever comes first would start it with telemetry."""
    package = Path(plume_export.__file__).parent
    importing = [
        file.name for file in package.rglob("*.py") if re.search(r"^\s*(import|from) onnxruntime\b", file.read_text(), re.M)
    ]
    assert importing == ["onnxruntime_module.py"]


def test_every_session_logs_errors_only() -> None:
    """ONNX Runtime writes its log to the process's stderr, past Python's switches."""
    found = {}
    for file in Path(plume_export.__file__).parent.rglob("*.py"):
        text = file.read_text()
        for call in re.findall(r"InferenceSession\((.*)", text):
            has_options = re.search(r"\b_?options, providers=", call) is not None
            found[file.name, call] = has_options and ("log_severity_level = 3" in text or "session_options(" in text)
    assert len(found) == 6
    assert all(found.values()), found


def test_what_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime-gpu' is not installed.\n  fix: .*plume-export\[gpu\]"):
        import_onnxruntime("onnxruntime-gpu", "gpu")
