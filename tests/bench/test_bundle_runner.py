"""The pass that looks into the rollout computes the same, and every call is noted."""

import numpy as np

from plume_export import Embedder
from plume_export.bench.bundle_runner import CallLog, TimedBackend
from plume_export.bench.latency import rollout_parts
from plume_export.bench.worker_messages import RolloutTime
from plume_export.bundle import Bundle
from plume_export.runtime.open_backend import open_backend


def test_same_embedding_and_every_run_noted(tiny_cpu: Bundle) -> None:
    log = CallLog()
    with Embedder(tiny_cpu, threads=1) as plain, Embedder(tiny_cpu, backend=TimedBackend(open_backend(tiny_cpu), log)) as timed:
        expected, actual = plain.embed(["two dogs"]), timed.embed(["two dogs"])
        seconds = timed.stopwatch.seconds["rollout"]
    assert np.abs(expected - actual).max() <= 1e-6
    kinds = [kind for kind, _ in log.calls]
    assert kinds.count("prefill") == 1
    assert kinds.count("latent_step") == 8
    assert kinds.count("vision_encoder") == 0  # a text's blank image is a constant
    in_rollout = log.calls[kinds.index("prefill") + 1 :]
    # The cache is cleared; then for each step its number, and but for the last one state, keys and values; then the result.
    assert [kind for kind, _ in in_rollout].count("copy") == 2 + 8 + 3 * 7 + 1
    assert sum(taken for _, taken in in_rollout) < seconds


def test_the_loop_is_what_is_left() -> None:
    parts = rollout_parts("a", [RolloutTime(total=0.1, runs=[0.01] * 7 + [0.02], copies=0.002)])
    assert parts.steps == 8
    assert parts.step_ms.p50 == 10
    assert parts.readout_ms.p50 == 20
    assert abs(parts.loop_ms_per_step.p50 - 1) < 1e-9  # (100 - 70 - 20 - 2) / 8
