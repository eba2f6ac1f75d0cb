"""What a machine tells of its processor."""

import pytest

from plume_export.bench.report import core_count, cpu_name


def test_hardware_threads_of_a_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert core_count(lambda file: "0,2" if file.parts[-3] in ("cpu0", "cpu2") else "1,3") == 2
    assert core_count(lambda _: None) == 4
    assert cpu_name(lambda _: "vendor : x\nmodel name\t: A Fast One\nmodel name\t: A Fast One\n") == "A Fast One"
