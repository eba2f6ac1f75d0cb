"""The outputs of all stages of PLUME for one input, as `parity` compares them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Stages:
    """The outputs of all stages for one input. `steps` is the number of latent states that can be observed.

    The reference observes every latent state. The runtime runs the last latent step and the suffix as one pass, so it returns
    one state fewer; its router probabilities include every step.
    """

    visual_embeddings: FloatArray  # [visual_tokens, hidden]
    position_ids: NDArray[np.int64]  # [3, tokens]
    anchor: FloatArray  # [hidden], final-norm state at the last <disc_emb>
    prefix_state: FloatArray  # [hidden], final-norm state at the last prompt token
    latent_states: FloatArray  # [steps, hidden], final-norm state after each latent step
    router_probabilities: FloatArray  # [latent_steps, experts]
    embedding: FloatArray  # [hidden], unit length
