"""What is measured of a machine, and what is said where it cannot be."""

import pytest

from plume_export.bench.limits.machine_limits import measure_limits
from plume_export.bench.limits.read_bandwidth import copied_bytes_per_s, host_read_bytes_per_s
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError
from plume_export.machine.gpu import DeviceMemory

from ...runtime.emulated_cuda import EmulatedCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    emulated = EmulatedCuda(memory_bytes=1 << 24)
    monkeypatch.setattr("plume_export.runtime.cuda.device.import_cudart", lambda extra: emulated)
    return emulated


def test_a_cpu_has_both_limits(tiny_cpu: Bundle) -> None:
    limits = measure_limits(tiny_cpu.path, threads=1)
    assert limits.read_bytes_per_s is not None
    assert limits.read_bytes_per_s > 0
    assert set(limits.flops_per_s) == {"float32"}
    assert limits.reasons == {}


def test_a_gpu_s_copies_are_waited_for_and_freed(cuda: EmulatedCuda) -> None:
    assert copied_bytes_per_s() > 0
    assert cuda.waits > 5
    assert cuda.used_bytes == 0


def test_memory_that_is_short_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.bench.limits.read_bandwidth.system_memory", lambda: DeviceMemory(1 << 30, 1 << 30))
    with pytest.raises(PlumeExportError, match="1024 MiB of memory are free"):
        host_read_bytes_per_s(1)
    monkeypatch.setattr("plume_export.bench.limits.read_bandwidth.system_memory", lambda: None)
    with pytest.raises(PlumeExportError, match="does not tell"):
        host_read_bytes_per_s(1)
