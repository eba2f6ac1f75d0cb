"""Processors that are not here: what they tell is given as text."""

import pytest

from plume_export.machine.gpu import Read
from plume_export.machine.processor import PROCESSOR, sums_int8_exactly


def flags(text: str) -> Read:
    return {PROCESSOR: f"processor\t: 0\nflags\t\t: fpu {text} fsrm\n"}.get


@pytest.mark.parametrize(
    ("text", "is_exact"),
    [("avx2 fma", False), ("avx2 avx512f avx512bw", False), ("avx2 avx512f avx512_vnni", True), ("avx2 avx_vnni", True)],
)
def test_x86_needs_vnni(text: str, is_exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x86_64", "AMD64"):
        monkeypatch.setattr("platform.machine", lambda name=name: name)
        assert sums_int8_exactly(flags(text)) is is_exact


def test_what_is_not_told_counts_as_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not sums_int8_exactly(lambda _: None)


def test_arm_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert sums_int8_exactly(lambda _: None)
