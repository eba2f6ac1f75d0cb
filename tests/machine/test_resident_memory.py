"""What is mapped twice is told apart."""

import mmap
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from plume_export.machine.resident_memory import mapped_twice_bytes, resident_memory

_BYTES = 16 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of mappings")
def test_a_file_mapped_twice_is_counted_twice_by_the_system_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(_BYTES))
    before = mapped_twice_bytes()
    with ExitStack() as opened, file.open("rb") as stream:
        found = []
        for _ in range(2):
            mapped = opened.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            assert sum(mapped[:: mmap.PAGESIZE]) == 0  # every page is read
            memory = resident_memory()
            assert memory is not None
            found.append(memory)
        after = mapped_twice_bytes()
    once, twice = found
    assert twice.now - once.now == pytest.approx(_BYTES, rel=0.25)
    assert twice.peak >= twice.now
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(_BYTES, rel=0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of mappings")
def test_two_mappings_that_were_read_in_different_places_are_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(_BYTES))
    before = mapped_twice_bytes()
    with ExitStack() as opened, file.open("rb") as stream:
        for part in (slice(0, _BYTES // 4), slice(_BYTES // 2, None)):
            mapped = opened.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            mapped.madvise(mmap.MADV_RANDOM)  # no page but those that are read
            assert sum(mapped[part][:: mmap.PAGESIZE]) == 0
        after = mapped_twice_bytes()
    assert before is not None
    assert after is not None
    assert after - before < _BYTES // 16
