"""The published computation, one input at a time: prompt, prefill, latent rollout, readout."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig
from transformers.cache_utils import DynamicCache
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen

from ..checkpoint import CheckpointTensors, return_large_blocks_to_the_system
from ..spec import ModelSpec
from ..stages import FloatArray, Stages
from ..weight_names import TOKEN_TABLE, TRANSITION
from .processor import ReferenceInputs
from .transition import LatentTransition


class Reference:
    """PLUME on top of transformers' Qwen2-VL, with `max_new_tokens = 0`: nothing is decoded after the forced suffix.

    With `resident=False`, the weights of a layer are read from the checkpoint when it runs, and freed afterwards. This is slow
    but needs memory for one layer only. Otherwise all weights are loaded on `device`.
    """

    def __init__(
        self,
        directory: Path,
        tensors: CheckpointTensors,
        model: ModelSpec,
        *,
        dtype: torch.dtype,
        resident: bool = True,
        device: str = "cpu",
    ) -> None:
        if not resident:
            return_large_blocks_to_the_system()
        self._tensors, self._model, self._dtype, self._device = tensors, model, dtype, torch.device(device)
        config: Any = Qwen2VLConfig.from_pretrained(directory)
        config._attn_implementation = "sdpa"
        config.text_config.vocab_size = model.decoder.vocab
        with torch.device("meta"):
            self._qwen = qwen.Qwen2VLModel(config).eval()
            self._transition = LatentTransition(model.decoder.hidden, model.transition).eval()
        # Buffers that are not stored in checkpoints.
        self._qwen.language_model.rotary_emb = qwen.Qwen2VLRotaryEmbedding(config.text_config).to(self._device)
        self._qwen.visual.rotary_pos_emb = qwen.Qwen2VLVisionRotaryEmbedding(config.vision_config).to(self._device)
        self._table = self._read(TOKEN_TABLE) if resident else None
        for name, unit in self._units():
            if resident:
                self._load(name, unit)
            else:
                unit.register_forward_pre_hook(lambda module, _, name=name: self._load(name, module))
                unit.register_forward_hook(lambda module, _inputs, _outputs: self._unload(module))

    def compile(self) -> None:
        """Let torch.compile compile the vision encoder and the decoder on their first run, with dynamic lengths."""
        self._qwen.visual.compile(dynamic=True)
        self._qwen.language_model.compile(dynamic=True)

    @torch.inference_mode()
    def stages(self, inputs: ReferenceInputs, *, latent_steps: int | None = None) -> Stages:
        """Return the output of every stage for one input. Source: PLUME, section 3, and its released evaluation."""
        steps = self._model.rollout.latent_steps if latent_steps is None else latent_steps
        cache = DynamicCache()
        visual = self.visual_embeddings(inputs)
        embeddings = self._embed(inputs.input_ids)
        embeddings[torch.isin(inputs.input_ids, inputs.visual_token_ids)] = visual
        position_ids = self._prompt_positions(inputs)
        prefix = self._decode(embeddings, position_ids, cache)
        state = prefix[-1]
        anchor = prefix[inputs.anchor_index]
        context = anchor if self._model.rollout.router_context == "disc" else torch.zeros_like(anchor)
        states, probabilities = [], []
        for step in range(steps):
            latent, step_probabilities = self._transition(state, context, step)
            state = self._decode(latent[None], self._next_positions(cache, 1), cache)[-1]
            states.append(state)
            probabilities.append(step_probabilities)
        suffix = self._embed(inputs.suffix_ids)
        readout = self._decode(suffix, self._next_positions(cache, len(suffix)), cache)[-1]
        hidden, experts = self._model.decoder.hidden, self._model.transition.experts
        return Stages(
            visual_embeddings=_array(visual),
            position_ids=position_ids[:, 0].cpu().numpy(),
            anchor=_array(anchor),
            prefix_state=_array(prefix[-1]),
            latent_states=_array(torch.stack(states) if states else torch.empty(0, hidden)),
            router_probabilities=_array(torch.stack(probabilities) if probabilities else torch.empty(0, experts)),
            embedding=_array(nn.functional.normalize(readout.float(), dim=-1)),
        )

    @torch.inference_mode()
    def visual_embeddings(self, inputs: ReferenceInputs) -> Tensor:
        """Return the visual tokens of all media in prompt order: [visual_tokens, hidden]."""
        grids = [grid for grid in (inputs.image_grids, inputs.video_grids) if grid is not None]
        pixels = inputs.pixel_values.to(self._device, self._dtype)
        output = self._qwen.visual(pixels, grid_thw=torch.cat(grids).to(self._device))
        visual: Tensor = output.pooler_output
        return visual

    def suffix_embeddings(self, suffix_ids: Tensor) -> Tensor:
        """Return the token embeddings of the forced suffix: [suffix_tokens, hidden]."""
        return self._embed(suffix_ids)

    def _decode(self, embeddings: Tensor, position_ids: Tensor, cache: DynamicCache) -> Tensor:
        """Run the decoder on new tokens [tokens, hidden] after the cached ones. Return final-norm states [tokens, hidden].

        No mask is passed, so attention is causal over the whole cache.
        """
        output = self._qwen.language_model(
            inputs_embeds=embeddings[None], position_ids=position_ids, cache=cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _prompt_positions(self, inputs: ReferenceInputs) -> Tensor:
        """Return M-RoPE positions [3, 1, tokens] as in transformers 4.51: text after an image or video continues from the
        largest position of that medium. Later versions ignore the temporal axis in this maximum, which differs for long videos.
        """
        grids = {kind: iter(grid) for kind, grid in ((1, inputs.image_grids), (2, inputs.video_grids)) if grid is not None}
        parts: list[Tensor] = []
        start = 0
        for kind, group in itertools.groupby(inputs.token_types.tolist()):
            if kind == 0:
                parts.append(torch.arange(start, start + len(list(group))).expand(3, -1))
            else:
                time, height, width = next(grids[kind]).tolist()
                merge = self._model.vision.merge_size
                axes = torch.arange(time), torch.arange(height // merge), torch.arange(width // merge)
                parts.append(start + torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1))
            start = int(parts[-1].max()) + 1
        return torch.cat(parts, 1)[:, None].to(self._device)

    def _next_positions(self, cache: DynamicCache, tokens: int) -> Tensor:
        """Return the KV length on all three rotary axes, as in the published evaluation, not continued M-RoPE positions."""
        length = cache.get_seq_length()
        return torch.arange(length, length + tokens, device=self._device).expand(3, 1, -1)

    def _embed(self, ids: Tensor) -> Tensor:
        if self._table is not None:
            return self._table[ids.to(self._device)]
        return self._tensors.read_rows(TOKEN_TABLE, ids).to(self._device, self._dtype)

    def _units(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules that are loaded as a whole, with the canonical prefix of their tensors."""
        yield TRANSITION, self._transition
        yield "visual.patch_embed.", self._qwen.visual.patch_embed
        for index, block in enumerate(self._qwen.visual.blocks):
            yield f"visual.blocks.{index}.", block
        yield "visual.merger.", self._qwen.visual.merger
        for index, layer in enumerate(self._qwen.language_model.layers):
            yield f"model.layers.{index}.", layer
        yield "model.norm.", self._qwen.language_model.norm

    def _load(self, prefix: str, module: nn.Module) -> None:
        state = {name: self._read(prefix + name) for name, _ in module.named_parameters()}
        module.load_state_dict(state, strict=True, assign=True)

    def _read(self, name: str) -> Tensor:
        return self._tensors.read(name).to(self._device, self._dtype)

    def _unload(self, module: nn.Module) -> None:
        module.to("meta")


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().numpy()
    return array
