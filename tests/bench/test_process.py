"""The processes that are measured, and how they end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from plume_export import Embedder
from plume_export.bench.process import WorkerError, WorkerProcess
from plume_export.bench.worker_messages import (
    AskMemory,
    BundleCandidate,
    Done,
    Embed,
    Embedded,
    Load,
    Memory,
    RolloutTimes,
    TimeRollout,
)
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess("the bundle") as process:
        yield process


@pytest.fixture
def texts(tmp_path: Path) -> str:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a", "two dogs", "two dogs on a beach")))
    return str(file)


def test_a_bundle_embeds_in_a_process_of_its_own(worker: WorkerProcess, tiny_cpu: Bundle, texts: str) -> None:
    worker.ask(Load(BundleCandidate("the bundle", str(tiny_cpu.path), threads=1)), Done)
    embedded = worker.ask(Embed(texts, [2, 0], 2), Embedded)
    with Embedder(tiny_cpu, threads=1) as embedder:
        expected = embedder.embed(["two dogs on a beach", "a"])
    assert np.abs(np.frombuffer(embedded.embeddings, np.float32).reshape(2, -1) - expected).max() <= 1e-6
    assert set(embedded.stages) == {"preprocess", "prefill", "rollout"}
    assert sum(embedded.stages.values()) <= embedded.seconds
    rollouts = worker.ask(TimeRollout(texts, 1, 2), RolloutTimes).rollouts
    assert [len(one.runs) for one in rollouts] == [8, 8]


@pytest.mark.slow
def test_memory_is_the_process_s_own(worker: WorkerProcess) -> None:
    """A large process that starts a small one leaves no trace in its peak."""
    ballast = np.ones(400 << 20, np.uint8)
    with WorkerProcess("small") as small:
        memory = small.ask(AskMemory(), Memory)
    assert ballast[-1] == 1
    assert memory.resident <= memory.peak < 300 << 20


def test_errors_cross_with_their_fix(worker: WorkerProcess, tmp_path: Path) -> None:
    with pytest.raises(PlumeExportError, match="the bundle: No bundle at") as caught:
        worker.ask(Load(BundleCandidate("the bundle", str(tmp_path / "none"), threads=1)), Done)
    assert caught.value.fix is not None
    assert worker.ask(AskMemory(), Memory).peak > 0  # it goes on


def test_a_dead_process_shows_what_it_said_last(worker: WorkerProcess, texts: str) -> None:
    with pytest.raises(WorkerError, match="exited with code 1") as caught:
        worker.ask(Embed(texts, [0], 1), Embedded)  # nothing is loaded
    assert "AssertionError" in caught.value.message
    with pytest.raises(WorkerError):
        worker.ask(AskMemory(), Memory)


def test_a_killed_process_is_told_from_one_that_failed(worker: WorkerProcess) -> None:
    worker.ask(AskMemory(), Memory)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="code -9") as caught:
        worker.ask(AskMemory(), Memory)
    assert "memory ran out" in str(caught.value.fix)


def test_too_long_is_an_error_and_ends_it(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerError, match="did not answer"):
        worker.ask(AskMemory(), Memory, timeout_s=0)
    with pytest.raises(WorkerError):
        worker.ask(AskMemory(), Memory)


def test_what_libraries_print_stays_out_of_the_replies() -> None:
    code = """
import os
from plume_export.bench.worker import _taken_stdout
replies = _taken_stdout()
print("printed", flush=True)
os.system("echo from C")
replies.write(b"reply")
replies.close()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "reply"
    assert result.stderr.split() == ["printed", "from", "C"]
