import signal
import subprocess
import sys
from pathlib import Path

import pytest

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def ended(tmp_path: Path, program: str) -> "subprocess.CompletedProcess[str]":
    program = f"import os, time\nfrom plume_export.cli.signals import stop_on_signals\nstop_on_signals()\n{program}"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in NUMBERS],
    )  # fmt: skip


def exit_code(number: signal.Signals) -> int:
    # Python ends itself by SIGINT after a KeyboardInterrupt that nobody caught.
    return -number if number == signal.SIGINT else 128 + number


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_cleans_up_and_ends(tmp_path: Path, number: signal.Signals) -> None:
    program = f"try:\n    os.kill(os.getpid(), {number:d})\n    time.sleep(30)\nfinally:\n    print('cleaned up')"
    process = ended(tmp_path, program)
    assert (process.returncode, process.stdout) == (exit_code(number), "cleaned up\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_an_import_is_not_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    body = f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(0.2)\nprint('imported')"
    (tmp_path / "outer.py").write_text("import inner\n")
    (tmp_path / "inner.py").write_text(body)
    process = ended(tmp_path, "import sys; sys.path.insert(0, os.getcwd())\nimport outer\ntime.sleep(30)\nprint('not stopped')")
    assert (process.returncode, process.stdout) == (exit_code(number), "imported\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_a_destructor_is_not_lost(tmp_path: Path, number: signal.Signals) -> None:
    held = f"class Held:\n    def __del__(self):\n        os.kill(os.getpid(), {number:d})\n        print('too late')"
    process = ended(tmp_path, f"{held}\nHeld()\nprint('went on')\ntime.sleep(30)\nprint('not stopped')")
    assert (process.returncode, process.stdout) == (exit_code(number), "went on\n")
    assert "ignored" not in process.stderr


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); stop_on_signals()"
    assert ended(tmp_path, program + "\nos.kill(os.getpid(), signal.SIGHUP)\nprint('went on')").stdout == "went on\n"


def test_other_errors_of_destructors_are_still_shown(tmp_path: Path) -> None:
    process = ended(tmp_path, "class Held:\n    def __del__(self):\n        raise ValueError('shown')\nHeld()")
    assert "ValueError: shown" in process.stderr
