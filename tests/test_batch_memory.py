"""Every batch within the limits finds room in the blocks that were allocated for the largest."""

import numpy as np
import pytest

from plume_export.batch_memory import BufferBytes, batch_tensors, buffer_bytes, tensor_shape
from plume_export.inputs import Media, Patches, PreparedInput
from plume_export.recipe import AxisRange, ShapeRanges
from plume_export.runtime.backend import TensorShape
from plume_export.runtime.batch import HostBatch, host_batch
from plume_export.runtime.cuda.device_memory import Block
from plume_export.spec import PLUME_2B, graph_specs

VISION = PLUME_2B.vision
GRAPHS = graph_specs(PLUME_2B, "fp16")
TEXT_GRAPHS = {name: spec for name, spec in GRAPHS.items() if name != "vision_encoder"}
LIMITS = [
    ShapeRanges(AxisRange(1, 1, 2), AxisRange(16, 64, 200), AxisRange(4, 16, 120)),
    ShapeRanges(AxisRange(1, 1, 1), AxisRange(16, 64, 1700), AxisRange(4, 64, 1600)),
]


def random_batch(limits: ShapeRanges, seed: int, *, is_text: bool) -> list[PreparedInput]:
    """As many prompts as are allowed, each filled with media to the last visual token; no pixels are made."""
    generator = np.random.default_rng(seed)
    return [random_prompt(limits, generator, is_text=is_text) for _ in range(limits.batch.max)]


def random_prompt(limits: ShapeRanges, generator: np.random.Generator, *, is_text: bool) -> PreparedInput:
    tokens = limits.prompt_tokens.max
    media = [Media(pixels(1, 16), (1, 4, 4), is_blank=True)] if is_text else []
    left = tokens if not is_text else 0
    while left >= 4:
        per_frame = int(generator.integers(4, min(left, limits.image_tokens.max) + 1)) if generator.random() < 0.7 else 4
        frames = int(generator.integers(1, left // per_frame + 1))
        media.append(Media(pixels(frames, 4 * per_frame), (frames, 2, 2 * per_frame)))
        left -= frames * per_frame
    zeros = np.zeros(tokens, np.int64)
    return PreparedInput(zeros, np.zeros((3, tokens), np.int64), zeros - 1, 0, tuple(media))


def pixels(frames: int, patches: int) -> Patches:
    channels, temporal, values = VISION.channels, VISION.temporal_patch_size, VISION.patch_size**2
    zeros = np.broadcast_to(np.uint8(0), (frames, patches, channels, 1, values))
    return Patches(zeros, np.zeros((channels, 256), np.float32), temporal)


def placed(host: HostBatch, sizes: BufferBytes) -> None:
    """Place all that a batch uploads and its visual embeddings; `place` asserts that they fit."""
    dtypes = {"float32": "float32", "int64": "int64"}
    Block(0, sizes.uploads).place({n: TensorShape(a.shape, dtypes[a.dtype.name]) for n, a in host.arrays.items()})  # type: ignore[arg-type]
    most = max(call.visual_tokens for call in host.vision_calls)
    hidden = PLUME_2B.decoder.hidden
    Block(0, sizes.media).place({str(rows): TensorShape((rows, hidden), "float16") for rows in (host.visual_tokens, most)})


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.slow
def test_random_batches_fit(limits: ShapeRanges, is_text: bool) -> None:
    sizes = buffer_bytes(TEXT_GRAPHS if is_text else GRAPHS, VISION, limits)
    for seed in range(60):
        batch = random_batch(limits, seed, is_text=is_text)
        placed(host_batch(batch, limits.prompt_tokens.max, VISION, limits), sizes)


def test_the_batch_block_is_full_with_the_largest() -> None:
    limits = LIMITS[0]
    sizes = {"batch": limits.batch.max, "tokens": limits.prompt_tokens.max}
    shapes = {name: TensorShape(tensor_shape(tensor, sizes), tensor.dtype) for name, tensor in batch_tensors(GRAPHS).items()}
    last = list(Block(0, buffer_bytes(GRAPHS, VISION, limits).batch).place(shapes).values())[-1]
    assert 0 <= buffer_bytes(GRAPHS, VISION, limits).batch - (last.address + last.size) < 256


def test_a_bundle_for_text_needs_no_room_for_pixels() -> None:
    limits = LIMITS[1]
    text, everything = buffer_bytes(TEXT_GRAPHS, VISION, limits), buffer_bytes(GRAPHS, VISION, limits)
    assert text.uploads < 0.01 * everything.uploads
    assert text.media < 0.01 * everything.media
    assert text.batch == everything.batch
