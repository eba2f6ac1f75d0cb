"""The model run on many inputs, one layer's weights in memory at a time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoint import Checkpoint, return_large_blocks_to_the_system
from ..graphs.latent_step import LatentStep
from ..graphs.layers import attend
from ..graphs.prefill import Prefill
from ..graphs.vision_encoder import VisionBlock, VisionEncoder
from ..graphs.weights import CheckpointParameters, ReadParameter, TensorReader
from ..inputs import Patches, PreparedInput, normalised_together, patch_positions
from ..progress import Report, detail_of
from ..runtime.batch import prompt_arrays
from ..spec import DecoderSpec, ModelSpec
from ..weight_names import TOKEN_TABLE
from .activation_ranges import Phase
from .observe import Observer


def stream_parameters(module: nn.Module, tensors: TensorReader, model: ModelSpec) -> None:
    """Make a module that was built on the meta device runnable, in float32; memory stays bounded by one layer.

    Modules with child modules are never called themselves. Their own parameters (rotary frequencies) are read once and stay.
    Forward hooks that look at parameters must be registered before.
    """
    read = CheckpointParameters(tensors, model)
    for name, part in module.named_modules():
        parameters = dict(part.named_parameters(recurse=False))
        if not parameters:
            continue
        load = partial(_load, name, list(parameters), read)
        if next(part.children(), None) is not None:
            load(part)
        else:
            part.register_forward_pre_hook(load)
            part.register_forward_hook(partial(_drop, parameters))


def _load(name: str, parameters: list[str], read: ReadParameter, part: nn.Module, *_: Any) -> None:
    for parameter in parameters:
        value = read(f"{name}.{parameter}").to(torch.float32)
        setattr(part, parameter, nn.Parameter(value, requires_grad=False))


def _drop(parameters: dict[str, nn.Parameter], part: nn.Module, *_: Any) -> None:
    for name, on_meta_device in parameters.items():
        setattr(part, name, on_meta_device)


class FrameSize(NamedTuple):
    """Rows and columns of patches. The blank image before a text counts as another size, because it is not observed."""

    rows: int
    columns: int
    is_blank: bool


@dataclass(frozen=True)
class Frame:
    """One frame. `place` is the index of the medium in the input, and of the frame in the medium."""

    input_index: int
    place: tuple[int, int]
    patches: Patches  # of one frame


def frames_by_size(inputs: Sequence[PreparedInput]) -> dict[FrameSize, list[Frame]]:
    """Return all frames of all inputs; an image is one frame."""
    frames: dict[FrameSize, list[Frame]] = defaultdict(list)
    for input_index, item in enumerate(inputs):
        for medium_index, medium in enumerate(item.media):
            size = FrameSize(*medium.grid[1:], medium.is_blank)
            for frame in range(medium.patches.shape[0]):
                frames[size].append(Frame(input_index, (medium_index, frame), medium.patches.frames(frame, frame + 1)))
    return frames


# Upper limits of what runs at once, with padding. At 2B, a patch takes 0.1 MB in the vision encoder, a token of a prompt 0.3 MB
# in prefill and 57 kB of cache in the rollout. Attention needs three times the memory of its scores, which grow with the square
# of a prompt's tokens. An image has four times as many patches as tokens, so its scores are computed in parts.
_PATCHES, _PREFILL_TOKENS, _CACHE_BYTES, _VISION_SCORES = 4096, 4096, 1 << 30, 1 << 26


@dataclass(frozen=True)
class NamedInput:
    """A prompt and the name under which the user knows it."""

    name: str
    prepared: PreparedInput


class StreamedModel:
    """Runs inputs through the three graphs. The observer gets every layer in its phase: vision, prefill, step or readout."""

    def __init__(self, checkpoint: Checkpoint, observer: Observer, report: Report = lambda _: None) -> None:
        return_large_blocks_to_the_system()
        self._spec, self._tensors = checkpoint.model, checkpoint.tensors
        self._observer, self._report_detail = observer, detail_of(report)
        with torch.device("meta"):
            self._vision = VisionEncoder(self._spec.vision, self._spec.decoder.hidden, torch.float32)
            self._prefill = Prefill(self._spec.decoder, torch.float32)
            self._latent_step = LatentStep(self._spec, torch.float32)
        for block in cast("list[VisionBlock]", list(self._vision.visual.blocks)):
            block.attend = _attend_in_parts
        for module in (self._vision, self._prefill, self._latent_step):
            observer.watch(module)
            stream_parameters(module, self._tensors, self._spec)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[NamedInput], suffix_ids: NDArray[np.int64]) -> Tensor:
        """Return the embeddings, float32 [inputs, hidden], unit length."""
        visual = self._encode_media(inputs)
        suffix = self._tensors.read_rows(TOKEN_TABLE, torch.from_numpy(suffix_ids)).float()
        counts = [item.prepared.token_count for item in inputs]
        decoder = self._spec.decoder
        states = torch.empty(len(inputs), decoder.hidden)
        rollout_tokens = _CACHE_BYTES // (2 * decoder.layers * decoder.kv_heads * decoder.head_dim * torch.float32.itemsize)
        for rows in _batches(sorted(range(len(inputs)), key=counts.__getitem__), counts, rollout_tokens):
            batch = _RolloutBatch([inputs[row] for row in rows], decoder)
            for part in _batches(range(len(rows)), [counts[row] for row in rows], _PREFILL_TOKENS):
                self._run_prefill(batch, part, torch.cat([visual[rows[index]] for index in part]))
            states[rows] = self._roll_out(batch, suffix)
        return nn.functional.normalize(states, dim=-1)

    def _encode_media(self, inputs: Sequence[NamedInput]) -> list[Tensor]:
        """Return every input's visual embeddings, [visual_tokens, hidden]."""
        encoded: list[dict[tuple[int, int], Tensor]] = [{} for _ in inputs]
        for size, frames in frames_by_size([item.prepared for item in inputs]).items():
            for frame, visual in zip(frames, self._encode_frames(size, frames, inputs), strict=True):
                encoded[frame.input_index][frame.place] = visual
        return [torch.cat([frames[place] for place in sorted(frames)]) for frames in encoded]

    def _encode_frames(self, size: FrameSize, frames: Sequence[Frame], inputs: Sequence[NamedInput]) -> Iterator[Tensor]:
        """Yield the visual embeddings of frames of one size. Those of the blank image are constants and not observed."""
        positions = torch.from_numpy(patch_positions((1, size.rows, size.columns), self._spec.vision.merge_size))
        if size.is_blank:
            with self._observer.running(None, ["the blank image"]):
                blank: Tensor = self._vision(torch.from_numpy(frames[0].patches.normalised()), positions)
            yield from [blank] * len(frames)
            return
        self._report_detail(f"vision: {len(frames)} frames of {size.rows} x {size.columns} patches")
        frames_at_once = max(1, _PATCHES // (size.rows * size.columns))
        for first in range(0, len(frames), frames_at_once):
            part = frames[first : first + frames_at_once]
            patches = torch.from_numpy(normalised_together([frame.patches for frame in part]))
            with self._observer.running("vision", [inputs[frame.input_index].name for frame in part]):
                visual: Tensor = self._vision(patches, positions)
            yield from visual.unflatten(0, (len(part), -1))

    def _run_prefill(self, batch: "_RolloutBatch", part: Sequence[int], visual_embeddings: Tensor) -> None:
        """Run consecutive inputs of a batch, padded to the longest. Store states, keys and values in the batch."""
        inputs = [batch.inputs[index] for index in part]
        tokens = inputs[-1].prepared.token_count
        self._report_detail(f"prefill: {len(inputs)} inputs of up to {tokens} tokens")
        arrays = prompt_arrays([item.prepared for item in inputs], tokens)
        names = ("visual_index", "position_ids", "token_count", "anchor_index")
        input_ids, *others = (torch.from_numpy(arrays[name]) for name in ("input_ids", *names))
        is_real = torch.arange(tokens) < torch.from_numpy(arrays["token_count"])[:, None]  # [batch, tokens]
        with self._observer.running("prefill", [item.name for item in inputs], is_real):
            state, anchor, *cache = self._prefill(input_ids, visual_embeddings, *others)
        batch.store(slice(part[0], part[-1] + 1), state, anchor, cache)

    def _roll_out(self, batch: "_RolloutBatch", suffix: Tensor) -> Tensor:
        """Return the states at the last token of the suffix, [batch, hidden]."""
        steps, decoder = self._spec.rollout.latent_steps, self._spec.decoder
        slots = (steps, decoder.layers, len(batch.inputs), decoder.kv_heads, decoder.head_dim)
        rollout_keys, rollout_values = torch.zeros(2, *slots)
        is_anchored = self._spec.rollout.router_context == "disc"
        state, anchor = batch.state, batch.anchor if is_anchored else torch.zeros_like(batch.anchor)
        for step in range(steps):
            phase: Phase = "readout" if step == steps - 1 else "step"
            self._report_detail(f"latent step {step + 1} of {steps}: {len(batch.inputs)} inputs")
            with self._observer.running(phase, [item.name for item in batch.inputs]):
                state, rollout_keys[step], rollout_values[step], _ = self._latent_step(
                    state,
                    anchor,
                    torch.tensor(step),
                    suffix if phase == "readout" else suffix[:0],
                    batch.keys,
                    batch.values,
                    batch.token_count,
                    rollout_keys,
                    rollout_values,
                )
        return state


class _RolloutBatch:
    """Inputs, sorted by length, whose latent steps run together; and their states, keys and values from prefill."""

    def __init__(self, inputs: Sequence[NamedInput], decoder: DecoderSpec) -> None:
        self.inputs = inputs
        self.token_count = torch.tensor([item.prepared.token_count for item in inputs])
        self.state, self.anchor = torch.empty(2, len(inputs), decoder.hidden)
        shape = (len(inputs), decoder.kv_heads, int(self.token_count.max()), decoder.head_dim)
        # Zeros: a masked NaN would poison a softmax.
        self.keys, self.values = ([torch.zeros(shape) for _ in range(decoder.layers)] for _ in range(2))

    def store(self, rows: slice, state: Tensor, anchor: Tensor, cache: Sequence[Tensor]) -> None:
        """Store the results of prefill for some of the inputs. `cache` has the keys of every layer, then the values."""
        self.state[rows], self.anchor[rows] = state, anchor
        for padded, part in zip([*self.keys, *self.values], cache, strict=True):
            padded[rows, :, : part.shape[2]] = part


def _attend_in_parts(queries: Tensor, keys: Tensor, values: Tensor, mask: None) -> Tensor:
    """Return the result of `attend`, computed for some query rows at a time."""
    frames, heads, patches, _ = keys.shape
    rows_at_once = max(1, _VISION_SCORES // (frames * heads * patches))
    return torch.cat([attend(rows, keys, values, mask) for rows in queries.split(rows_at_once, 2)], 2)


def _batches(rows: Sequence[int], token_counts: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Split rows, sorted by token count, into batches of at most `max_tokens` with padding, but of at least one row."""
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * token_counts[row] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch
