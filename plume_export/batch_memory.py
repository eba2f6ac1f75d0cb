"""Device memory for the buffers of a batch, computed from the inputs and outputs of the graphs. The same for all backends."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .recipe import MIN_IMAGE_TOKENS, ShapeRanges
from .spec import DType, GraphName, GraphSpec, TensorSpec, VisionSpec

DTYPE_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "int64": 8}
# TensorRT requires that the addresses of tensors and scratch memory are multiples of this.
ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class BufferBytes:
    """Bytes of the three parts: uploads (prompts and pixels), media (visual embeddings), batch (caches and states)."""

    uploads: int
    media: int
    batch: int

    @property
    def total(self) -> int:
        return self.uploads + self.media + self.batch


def buffer_bytes(graphs: Mapping[GraphName, GraphSpec], vision: VisionSpec, shapes: ShapeRanges) -> BufferBytes:
    """Return the bytes for the largest batch that `shapes` allows. Visual tokens are limited by the prompts that contain them.

    In a bundle for text only, the only image is the blank one.
    """
    batch, tokens = shapes.batch.max, shapes.prompt_tokens.max
    sizes = {"batch": batch, "tokens": tokens}
    inputs = {tensor.name: tensor for tensor in graphs["prefill"].inputs}
    visual_embeddings = inputs.pop("visual_embeddings")
    uploads = sum(tensor_bytes(tensor, sizes) for tensor in inputs.values())
    has_vision = "vision_encoder" in graphs
    if has_vision:
        patch = vision.patch_values * DTYPE_BYTES["float32"] + 2 * DTYPE_BYTES["int64"]  # pixels, row and column
        uploads += batch * tokens * vision.merged_patches * patch + batch * tokens // MIN_IMAGE_TOKENS * 2 * ALIGNMENT_BYTES
    of_batch = batch * (tokens if has_vision else MIN_IMAGE_TOKENS)
    of_one_call = min(of_batch, shapes.frames.max * shapes.image_tokens.max)
    media = sum(tensor_bytes(visual_embeddings, {"visual_tokens": rows}) for rows in (of_batch, of_one_call))
    return BufferBytes(
        uploads=uploads,
        media=media,
        batch=sum(tensor_bytes(tensor, sizes) for tensor in batch_tensors(graphs).values()),
    )


def batch_tensors(graphs: Mapping[GraphName, GraphSpec]) -> dict[str, TensorSpec]:
    """Return the tensors that stay on the device for one batch, by name: prefill's outputs, and all tensors of latent_step.

    The suffix is not included, because it is the same for all batches.
    """
    step = graphs["latent_step"]
    tensors = (*graphs["prefill"].outputs, *step.inputs, *step.outputs)
    return {tensor.name: tensor for tensor in tensors if tensor.name != "suffix_embeddings"}


def tensor_shape(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a tensor's shape for the sizes of its named axes."""
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in tensor.axes)


def tensor_bytes(tensor: TensorSpec, sizes: Mapping[str, int]) -> int:
    """Return the bytes of a tensor, rounded up to the alignment."""
    return aligned(math.prod(tensor_shape(tensor, sizes)) * DTYPE_BYTES[tensor.dtype])


def aligned(size: int) -> int:
    """Return the next multiple of the alignment."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
