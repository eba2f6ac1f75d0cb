"""The three graphs in one trainable model, its parameters in the checkpoint's layout."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plume_export.graphs.latent_step import LatentStep
from plume_export.graphs.prefill import Prefill
from plume_export.graphs.vision_encoder import VisionEncoder
from plume_export.graphs.weights import CheckpointParameters
from plume_export.spec import ModelSpec
from plume_export.weight_names import TOKEN_TABLE

from .batches import Prompts


class TrainablePlume:
    """PLUME over the modules that are exported, so that what is trained is what will run.

    Parameters are the tensors of a checkpoint; the modules' own are arranged from them in every pass, as at export.
    """

    def __init__(self, model: ModelSpec, tensors: dict[str, Tensor]) -> None:
        self._model, self._read_parameter = model, CheckpointParameters(self, model)
        self.tensors = {name: nn.Parameter(tensor) for name, tensor in tensors.items()}
        with torch.device("meta"):
            self._vision = VisionEncoder(model.vision, model.decoder.hidden, torch.float32)
            self._prefill = Prefill(model.decoder, torch.float32)
            self._step = LatentStep(model, torch.float32)

    def read(self, name: str) -> Tensor:
        return self.tensors[name]

    def embed(self, prompts: Prompts, suffix_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the final state [batch, hidden], the anchor [batch, hidden] and the router's probabilities.

        The probabilities are [latent_steps, batch, experts]. Neither state is normalised.
        """
        visual = torch.cat(
            [self._run(self._vision, patches, positions) for patches, positions in prompts.media]
        )  # [visual_tokens, hidden]
        state, anchor, *cache = self._run(
            self._prefill,
            *(prompts.input_ids, visual, prompts.visual_index, prompts.position_ids, prompts.token_count, prompts.anchor_index),
        )
        suffix = self.tensors[TOKEN_TABLE][suffix_ids]
        slots = self._model.rollout.latent_steps
        decoder = self._model.decoder
        keys, values = cache[: decoder.layers], cache[decoder.layers :]
        empty = torch.zeros(decoder.layers, len(state), decoder.kv_heads, decoder.head_dim)
        rollout_keys, rollout_values = [empty] * slots, [empty] * slots
        arguments = self._arguments(self._step)
        probabilities = []
        for step in range(slots):
            state, step_keys, step_values, routing = functional_call(
                self._step,
                arguments,
                (
                    *(state, anchor, torch.tensor(step), suffix if step == slots - 1 else suffix[:0], keys, values),
                    *(prompts.token_count, torch.stack(rollout_keys), torch.stack(rollout_values)),
                ),
            )
            rollout_keys[step], rollout_values[step] = step_keys, step_values
            probabilities.append(routing)
        return state, anchor, torch.stack(probabilities)

    def _run(self, module: nn.Module, *inputs: Tensor) -> Any:
        return functional_call(module, self._arguments(module), inputs)

    def _arguments(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: self._read_parameter(name) for name, _ in module.named_parameters()}
