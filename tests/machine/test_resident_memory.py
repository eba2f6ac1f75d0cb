"""What is mapped twice is told apart."""

import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from plume_export.machine.resident_memory import mapped_twice_bytes, resident_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of mappings")
_BYTES = 16 << 20


@pytest.fixture
def map_and_read(tmp_path: Path) -> Iterator[Callable[[slice], None]]:
    """Map one file once more, whole, and read a part of it."""
    file = tmp_path / "file"
    file.write_bytes(bytes(_BYTES))
    with ExitStack() as opened, file.open("rb") as stream:

        def read(part: slice) -> None:
            mapped = opened.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            mapped.madvise(mmap.MADV_RANDOM)  # no page but those that are read
            assert sum(mapped[part][:: mmap.PAGESIZE]) == 0

        yield read


def _mapped_twice() -> int:
    count = mapped_twice_bytes()
    assert count is not None
    return count


def test_a_file_read_twice_is_counted_twice_by_the_system_alone(map_and_read: Callable[[slice], None]) -> None:
    before, found = _mapped_twice(), []
    for _ in range(2):
        map_and_read(slice(None))
        found.append(resident_memory())
    once, twice = found
    assert twice.now - once.now == pytest.approx(_BYTES, rel=0.25)
    assert twice.peak >= twice.now
    assert _mapped_twice() - before == pytest.approx(_BYTES, rel=0.05)


def test_two_mappings_that_were_read_in_different_places_are_not(map_and_read: Callable[[slice], None]) -> None:
    before = _mapped_twice()
    map_and_read(slice(0, _BYTES // 4))
    map_and_read(slice(_BYTES // 2, None))
    assert _mapped_twice() - before < _BYTES // 16


def test_a_kernel_that_reports_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes have a /proc with fewer fields."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name:\tpython\nVmRSS:\t1024 kB\n")
    memory = resident_memory()
    assert memory.peak >= memory.now > 1 << 20
