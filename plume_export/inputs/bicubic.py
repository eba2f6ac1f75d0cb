"""PyTorch's antialiased bicubic resize of a uint8 frame, bit for bit, in numpy.

Source: torchvision's tensor resize (float32, clamp, round half to even) over `upsample_bicubic2d_aa` of PyTorch on a CPU.
Rounding is that of PyTorch's x86 build with fused multiply-add (AVX2, AVX512). Other builds of PyTorch round the last bit
differently, so that about one value in 10^5 differs by 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from .patches import FrameArray

_A = -0.5  # Keys' cubic, as in Pillow
_SUPPORT = 2.0  # half-width of the cubic, in input pixels
# In PyTorch's loop over taps, the compiler rounds and adds four products at a time. The remaining taps use fused multiply-adds.
_UNFUSED_TAPS = 4

Float32Array = NDArray[np.float32]


def resize_frame(frame: FrameArray, height: int, width: int) -> FrameArray:
    """Return uint8 [height, width, channels]. A frame that already has this size is returned unchanged."""
    if frame.shape[:2] == (height, width):
        return frame
    columns = np.ascontiguousarray(frame.transpose(1, 0, 2), np.float32)  # [width, height, channels]
    rows = _resize_first_axis(columns, width).transpose(1, 0, 2)
    resized = _resize_first_axis(np.ascontiguousarray(rows), height)
    rounded: FrameArray = np.rint(resized.clip(0, 255)).astype(np.uint8)
    return rounded


def _resize_first_axis(values: Float32Array, size: int) -> Float32Array:
    first, tap_count, weights = tap_weights(values.shape[0], size)
    # The sum starts with tap 0. The other taps are added unfused, as long as there are whole groups of four.
    last_unfused = (tap_count - 1) // _UNFUSED_TAPS * _UNFUSED_TAPS
    shape = (size, *[1] * (values.ndim - 1))
    total = values[first] * weights[:, 0].reshape(shape)
    for tap in range(1, weights.shape[1]):
        taps = values[np.minimum(first + tap, values.shape[0] - 1)]
        weight = weights[:, tap].reshape(shape)
        unfused = (tap <= last_unfused).reshape(shape)
        if unfused.all():
            total += taps * weight
        else:
            total = np.where(unfused, total + taps * weight, _fused_multiply_add(taps, weight, total))
    return total


def tap_weights(input_size: int, output_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32Array]:
    """Return the first input index [outputs], the tap count [outputs] and the weights [outputs, taps], 0 beyond the count.

    float32 and float64 are mixed as in PyTorch's C++ code.
    """
    scale = np.float32(input_size) / np.float32(output_size)
    widening = max(float(scale), 1.0)
    support = np.float32(_SUPPORT * widening)
    center: Float32Array = (float(scale) * (np.arange(output_size) + 0.5)).astype(np.float32)
    first = np.maximum(_truncated(center - support), 0)
    most_taps = 2 * math.ceil(support) + 1
    tap_count = np.minimum(np.minimum(_truncated(center + support), input_size) - first, most_taps)
    tap = np.arange(tap_count.max())
    distance = (first[:, None] + tap).astype(np.float32) - center[:, None]
    scaled = ((distance.astype(np.float64) + 0.5) * float(np.float32(1 / widening))).astype(np.float32)
    weights: Float32Array = np.where(tap < tap_count[:, None], _cubic(np.abs(scaled)), np.float32(0))
    total = np.zeros(output_size, np.float32)
    for column in weights.T:  # in sequence: float32 sums depend on the order
        total += column
    weights /= total[:, None]
    return first, tap_count, weights


def _truncated(position: Float32Array) -> NDArray[np.int64]:
    return (position.astype(np.float64) + 0.5).astype(np.int64)


def _cubic(x: Float32Array) -> Float32Array:
    """Return Keys' cubic convolution kernel at x >= 0, in Horner form with fused multiply-adds."""
    near = _fused_multiply_add(x, _A + 2, -(_A + 3))
    near = _fused_multiply_add(near * x, x, 1)
    far = _fused_multiply_add(x, _A, -5 * _A)
    far = _fused_multiply_add(far, x, 8 * _A)
    far = _fused_multiply_add(far, x, -4 * _A)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))


def _fused_multiply_add(a: Float32Array, b: Float32Array | float, c: Float32Array | float) -> Float32Array:
    """Return a * b + c rounded once to float32. The product of two float32 values is exact in float64."""
    return (a.astype(np.float64) * b + c).astype(np.float32)
