"""Symmetric scales of weights and activations, chosen for the smallest error in a layer's output."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..spec import INT4_BLOCK, IntegerPrecision
from .activation_ranges import LinearRange
from .folds import Fold

LEVELS: dict[IntegerPrecision, int] = {"int8": 127, "int8-weight": 127, "int4-weight": 7}
# SmoothQuant's migration strength alpha: the share of a channel's magnitude that moves into the weights.
_MIGRATIONS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Ranges of activations as shares of the largest magnitude in the calibration. Larger values saturate.
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
# Number of output channels on which errors are measured. Each channel has its own scale, so a sample is enough.
_SAMPLED_OUTPUTS = 512
_LEAST_NORM = 1e-30
_LEAST_SCALE = 2.0**-24  # the smallest that float16 holds


@dataclass(frozen=True)
class LayerScales:
    """How a layer is quantised.

    `error` is the relative error of its output on the sampled inputs, and `row_error` that of the worst input row. `migration`
    [input channels] divides the inputs and multiplies the weight's rows. None: no migration.
    """

    migration: NDArray[np.float32] | None
    activation_scale: float
    error: float
    row_error: float


def choose_scales(weight: Tensor, seen: LinearRange, scheme: IntegerPrecision, fold: Fold | None) -> LayerScales:
    """Return the migration and the activation's range with the least error in the layer's output.

    weight: float32 [in, out]. Without a fold nothing can be migrated.
    """
    best: LayerScales | None = None
    sampled = _sampled_outputs(weight)
    for share in _MIGRATIONS if fold is not None else (0.0,):
        migration = None if fold is None or share == 0.0 else _migration(weight, seen, share, fold)
        found = _with_best_range(sampled, seen, scheme, migration)
        if best is None or found.error < best.error:
            best = found
    assert best is not None
    return best


def range_of(weight: Tensor, seen: LinearRange, migration: NDArray[np.float32] | None) -> float:
    """Return the activation scale of a layer for the range that it has in one graph."""
    return _with_best_range(_sampled_outputs(weight), seen, "int8", migration).activation_scale


def weight_scales(weight: Tensor, scheme: IntegerPrecision) -> Tensor:
    """Return float16 scales of a weight [in, out]: one per output channel, or per block of its inputs."""
    blocks = weight.reshape(-1, INT4_BLOCK, weight.shape[1]) if scheme == "int4-weight" else weight[None]
    scales = blocks.abs().amax(1) / LEVELS[scheme]  # [in / INT4_BLOCK, out] or [1, out]
    rounded = scales.clamp(min=_LEAST_SCALE).half()
    rounded = torch.where(rounded.float() < scales, torch.nextafter(rounded, torch.tensor(torch.inf).half()), rounded)
    return rounded if scheme == "int4-weight" else rounded[0]


def integers(weight: Tensor, scales: Tensor, scheme: IntegerPrecision) -> Tensor:
    """Return a weight [in, out] in units of its scales, as int8 within the scheme's levels."""
    levels = LEVELS[scheme]
    return (weight / _expanded(scales)).round_().clamp_(-levels, levels).to(torch.int8)  # in place: an embedding table is large


def quantised_weight(weight: Tensor, scheme: IntegerPrecision) -> Tensor:
    """Return the float32 values that a weight [in, out] has after quantisation."""
    scales = weight_scales(weight, scheme)
    return integers(weight, scales, scheme) * _expanded(scales)


def quantised_activations(x: Tensor, scale: float) -> Tensor:
    """Return the float32 values that activations have after quantisation with one scale."""
    return (x / scale).round().clamp(-128, 127) * scale


def _sampled_outputs(weight: Tensor) -> Tensor:
    return weight[:, :: -(-weight.shape[1] // _SAMPLED_OUTPUTS)].contiguous()


def _with_best_range(
    weight: Tensor, seen: LinearRange, scheme: IntegerPrecision, migration: NDArray[np.float32] | None
) -> LayerScales:
    """Return the best activation range for one migration. Weight-only schemes have no range to choose."""
    moved = torch.from_numpy(migration) if migration is not None else torch.ones(len(weight))
    inputs = torch.from_numpy(seen.input_sample)
    expected = inputs @ weight
    x, kept = inputs / moved, quantised_weight(weight * moved[:, None], scheme)
    largest = float((torch.from_numpy(seen.input_abs_max) / moved).max())
    best = LayerScales(migration, 0.0, float("inf"), float("inf"))
    for clip in _CLIPS if scheme == "int8" else (1.0,):
        scale = float(np.float16(max(clip * largest / LEVELS["int8"], _LEAST_SCALE)))
        wrong = (quantised_activations(x, scale) if scheme == "int8" else x) @ kept - expected
        error = float(wrong.norm() / expected.norm().clamp(min=_LEAST_NORM))
        if error < best.error:
            row_error = float((wrong.norm(dim=1) / expected.norm(dim=1).clamp(min=_LEAST_NORM)).max())
            best = LayerScales(migration, scale, error, row_error)
    return best


def _migration(weight: Tensor, seen: LinearRange, share: float, fold: Fold) -> NDArray[np.float32]:
    """Return max|x|^share / max|w|^(1 - share) for each input channel, tied, with a geometric mean of one."""
    x = np.maximum(fold.tied(seen.input_abs_max), 1e-5)
    w = np.maximum(fold.tied(weight.abs().amax(1).numpy()), 1e-5)
    scales = x**share / w ** (1 - share)
    normalised: NDArray[np.float32] = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
    return normalised


def _expanded(scales: Tensor) -> Tensor:
    """Return scales in float32 that broadcast over a weight [in, out]."""
    return scales.float() if scales.dim() == 1 else scales.float().repeat_interleave(INT4_BLOCK, 0)
