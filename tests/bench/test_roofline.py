"""Limits by hand-checked numbers."""

import pytest

from plume_export.bench.inputs import InputSize
from plume_export.bench.limits.flops import Flops, prefill_flops
from plume_export.bench.limits.machine_limits import MachineLimits
from plume_export.bench.limits.weight_reads import WeightReads
from plume_export.bench.roofline import Work, limit_seconds, work_of_stages
from plume_export.bundle import Bundle
from plume_export.spec import GRAPH_NAMES

from .manifests import NO_PROMISE, changed

MACHINE = MachineLimits(read_bytes_per_s=10e9, flops_per_s={"float32": 100e9, "int8": 400e9}, reasons={})


def test_the_longer_of_two_times_is_the_limit(tiny_cpu: Bundle) -> None:
    manifest = tiny_cpu.manifest
    many = Work("prefill", Flops(linear=180 * 10**9, attention=20 * 10**9), bytes=10**9)
    assert limit_seconds(manifest, MACHINE, many) == (pytest.approx(2.0), "products")
    few = Work("latent_step", Flops(linear=10**9, attention=0), bytes=3 * 10**9)
    assert limit_seconds(manifest, MACHINE, few) == (pytest.approx(0.3), "memory")


def test_int8_layers_have_a_speed_of_their_own(tiny_cpu: Bundle) -> None:
    manifest = changed(tiny_cpu, precision="int8", quantisation=NO_PROMISE)
    work = Work("prefill", Flops(linear=400 * 10**9, attention=100 * 10**9), bytes=0)
    assert limit_seconds(manifest, MACHINE, work) == (pytest.approx(2.0), "products")  # a second each


def test_what_was_not_measured_gives_no_limit(tiny_cpu: Bundle) -> None:
    work = Work("prefill", Flops(1, 1), 1)
    assert limit_seconds(tiny_cpu.manifest, MachineLimits(None, {"float32": 1e9}, {}), work) is None
    assert limit_seconds(tiny_cpu.manifest, MachineLimits(1e9, {}, {}), work) is None


def test_work_counts_every_medium_and_the_cache(tiny_cpu: Bundle) -> None:
    reads = dict.fromkeys(GRAPH_NAMES, WeightReads(whole=1000, row=10))
    size = InputSize("a", prompt_tokens=50, visual_tokens=32, vision=[(1, 64), (1, 64)])
    work = work_of_stages(tiny_cpu.manifest, reads, size, suffix_tokens=5)
    decoder = tiny_cpu.manifest.model.decoder
    cache = 50 * 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * 4
    assert work["vision"].bytes == 2000
    assert work["prefill"].bytes == 1000 + (50 - 16) * 10
    assert work["latent step"].bytes == work["readout"].bytes == 1010 + cache
    assert work["readout"].flops.total > 4 * work["latent step"].flops.total
    assert "vision" not in work_of_stages(tiny_cpu.manifest, reads, InputSize("b", 50, 4, []), 5)


def test_cached_tokens_are_no_work(tiny_cpu: Bundle) -> None:
    reads = dict.fromkeys(GRAPH_NAMES, WeightReads(whole=1000, row=10))
    sizes = {"text": InputSize("a", 50, 4, []), "picture": InputSize("b", 50, 4, [(1, 16)])}
    for name, cached in (("text", 21), ("picture", 16)):
        work = work_of_stages(tiny_cpu.manifest, reads, sizes[name], 5)["prefill"]
        assert work.flops == prefill_flops(tiny_cpu.manifest.model, 50, cached)
        assert work.bytes == 1000 + (50 - cached) * 10
    without = work_of_stages(changed(tiny_cpu, cached_start=None), reads, sizes["text"], 5)["prefill"]
    assert without.flops == prefill_flops(tiny_cpu.manifest.model, 50)
