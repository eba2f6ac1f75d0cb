"""What a rollout's time is spent on: steps, readout, copies, and the loop around them."""

from collections.abc import Sequence

import msgspec

from .contestants.protocol import RolloutTime
from .statistics import Spread, spread_of


class RolloutParts(msgspec.Struct, frozen=True):
    """Milliseconds of one input's rollout, measured in a pass of its own that waits after every call.

    `step_ms` is one run of graph `latent_step`; the last one, with the suffix, is the readout. `copies_ms` are all copies of a
    rollout, `loop_ms_per_step` what is left of it outside of runs and copies, for each step.
    """

    input: str
    steps: int
    total_ms: Spread
    step_ms: Spread
    readout_ms: Spread
    copies_ms: Spread
    loop_ms_per_step: Spread


def rollout_parts(name: str, rollouts: Sequence[RolloutTime]) -> RolloutParts:
    """Summarise several rollouts of one input. A rollout of one step is its readout alone."""
    steps = len(rollouts[0].runs)
    plain = [1e3 * run for one in rollouts for run in one.runs[:-1]] or [0.0]
    loop = [1e3 * (one.total - sum(one.runs) - one.copies) / steps for one in rollouts]
    return RolloutParts(
        input=name,
        steps=steps,
        total_ms=spread_of([1e3 * one.total for one in rollouts]),
        step_ms=spread_of(plain),
        readout_ms=spread_of([1e3 * one.runs[-1] for one in rollouts]),
        copies_ms=spread_of([1e3 * one.copies for one in rollouts]),
        loop_ms_per_step=spread_of(loop),
    )
