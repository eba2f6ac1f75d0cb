"""The outputs of all stages that the runtime can observe for one input. `parity` compares them."""

from collections.abc import Callable

import numpy as np

from ..inputs import PreparedInput
from ..spec import ModelSpec
from ..stages import FloatArray, Stages
from .output_rows import unit_rows
from .runner import Runner

WithSuffix = Callable[[PreparedInput], PreparedInput]


def observed_stages(
    runner: Runner, prepared: PreparedInput, with_suffix: WithSuffix, *, model: ModelSpec, steps: int
) -> Stages:
    """Run one prompt and return the outputs of its stages. If `steps` is 0, the suffix is part of the prompt."""
    latent_states: list[FloatArray] = []
    probabilities: list[FloatArray] = []

    def observe(step: int) -> None:
        probabilities.append(first("router_probabilities"))
        if step < steps - 1:
            latent_states.append(first("next_state"))

    def first(name: str) -> FloatArray:
        row: FloatArray = runner.download(prefilled.buffer(name))[0]
        return row

    prefilled = runner.prefill([prepared])
    visual_embeddings = runner.download(prefilled.visual_embeddings)[prefilled.visual_rows]
    prefix_state, anchor = first("state"), first("anchor")
    if steps > 0:
        state = runner.roll_out(prefilled, observe)
    else:
        state = runner.download(runner.prefill([with_suffix(prepared)]).buffer("state"))
    return Stages(
        visual_embeddings=visual_embeddings,
        position_ids=prepared.position_ids,
        anchor=anchor,
        prefix_state=prefix_state,
        latent_states=np.array(latent_states, np.float32).reshape(-1, model.decoder.hidden),
        router_probabilities=np.array(probabilities, np.float32).reshape(-1, model.transition.experts),
        embedding=unit_rows(state)[0],
    )
