"""Every byte of a small bundle, flipped; of a bundle that runs: python -m tests.resilience.bits BUNDLE."""

from pathlib import Path

import pytest

from plume_export.bundle import MANIFEST, open_bundle
from tests.bundle.small_bundle import FILES, write_small_bundle

from .bits import flip_every_byte, flips
from .killable import digest_of_tree


@pytest.mark.slow
def test_every_flip_is_found_or_harmless(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    before = digest_of_tree(bundle)
    counts = flip_every_byte(bundle, sample=1, seed=0)
    assert counts.keys() == {MANIFEST, *FILES}
    assert not any(counted["silent"] for counted in counts.values())
    for name, counted in counts.items():
        size = (bundle / name).stat().st_size
        assert counted.total() == size
        assert counted["found"] > 0.9 * size if name == MANIFEST else counted["found"] == size
    assert digest_of_tree(bundle) == before
    open_bundle(bundle)


def test_a_flip_is_there_meanwhile_and_gone_after(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    seen = [(position, file.read_bytes()[position] != b"abc"[position]) for position in flips(file, sample=1, seed=0)]
    assert seen == [(0, True), (1, True), (2, True)]
    assert file.read_bytes() == b"abc"
