"""Processors that are not here: what they tell is given as text."""

from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from plume_export import Embedder
from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.machine.cores import PROCESSOR, check_threads, has_exact_int8_sums, usable_core_count, usable_cpus
from plume_export.machine.gpu import Read
from tests.cli.failures import assert_is_usage


def flags(text: str) -> Read:
    return {PROCESSOR: f"processor\t: 0\nflags\t\t: fpu {text} fsrm\n"}.get


@pytest.mark.parametrize(
    ("text", "is_exact"),
    [("avx2 fma", False), ("avx2 avx512f avx512bw", False), ("avx2 avx512f avx512_vnni", True), ("avx2 avx_vnni", True)],
)
def test_x86_needs_vnni(text: str, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x86_64", "AMD64"):
        monkeypatch.setattr("platform.machine", lambda name=name: name)
        assert has_exact_int8_sums(flags(text)) is is_exact


def test_what_is_not_told_counts_as_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not has_exact_int8_sums(lambda _: None)


def test_arm_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert has_exact_int8_sums(lambda _: None)


def a_machine(monkeypatch: pytest.MonkeyPatch, *, logical: int, cores: int | None, usable: list[int]) -> None:
    """A processor of which this process may use some CPUs."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True, all=logical: all if logical else cores)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: usable, raising=False)


SIBLINGS = {"cpu0": "0,2", "cpu1": "1,3", "cpu2": "0,2", "cpu3": "1,3"}


@pytest.mark.parametrize(
    ("cores", "usable", "count"),
    [
        (2, [0, 1, 2, 3], 2),
        (None, [0, 1, 2, 3], 4),  # the system does not say
        (2, [0, 2], 1),
        (2, [1, 0], 2),
        (2, [0, 1, 2], 2),
    ],
)
def test_hardware_threads_of_a_core_count_once(
    cores: int | None, usable: list[int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_machine(monkeypatch, logical=4, cores=cores, usable=usable)
    assert usable_core_count(lambda file: SIBLINGS[file.parts[-3]]) == count


def test_siblings_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    a_machine(monkeypatch, logical=8, cores=4, usable=[0, 1, 2])
    assert usable_core_count(lambda _: None) == 3


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS."""
    a_machine(monkeypatch, logical=8, cores=4, usable=[])
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    assert usable_cpus() == [*range(8)]
    assert usable_core_count() == 4


def test_as_many_as_the_machine_has_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    a_machine(monkeypatch, logical=4, cores=2, usable=[0, 2])
    for threads in (None, 1, 4):
        check_threads(threads)
    for threads in (0, -1, 5, 100_000):
        with pytest.raises(
            PlumeExportError, match=rf"threads is {threads}; expected 1 to 4\. .* may use 2 of .* 4 logical CPUs"
        ):
            check_threads(threads)


def test_the_embedder_refuses_before_it_opens_anything() -> None:
    with pytest.raises(PlumeExportError, match="threads is 100000; expected 1 to"):
        Embedder("no bundle", threads=100_000)


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "BUNDLE", "--text", "a"),
        ("search", "BUNDLE", "a", "--in", "."),
        ("evaluate", "BUNDLE", "--dataset", "DATASET"),
        ("selftest", "BUNDLE"),
        ("bench", "BUNDLE"),
    ],
)
def test_every_command_with_threads(tiny_cpu: Bundle, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    dataset = tmp_path / "dataset.jsonl"
    dataset.write_text(
        '{"task": "t", "id": "c", "candidate": {"text": "a"}}\n'
        '{"task": "t", "id": "q", "query": {"text": "a"}, "positive": "c"}\n'
    )
    names = {"BUNDLE": str(tiny_cpu.path), "DATASET": str(dataset)}
    command = [names.get(argument, argument) for argument in arguments]
    assert_is_usage(
        CliRunner().invoke(main, [*command, "--threads", "100000"]), "threads is 100000; expected 1 to", "--threads"
    )
