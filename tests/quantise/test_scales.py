"""Scales and integers of weights and activations."""

import ml_dtypes
import numpy as np
import onnx.numpy_helper
import pytest
import torch

from plume_export.graphs.weights import packed_int4
from plume_export.quantise.activation_ranges import LinearRange
from plume_export.quantise.folds import Fold
from plume_export.quantise.scales import (
    LEVELS,
    choose_scales,
    integers,
    quantised_activations,
    quantised_weight,
    range_of,
    weight_scales,
)
from plume_export.spec import INT4_BLOCK, INTEGER_PRECISIONS, IntegerPrecision


def weight_of(inputs: int = 256, outputs: int = 48) -> torch.Tensor:
    torch.manual_seed(0)
    weight = torch.randn(inputs, outputs) * torch.logspace(-6, 2, outputs)
    weight[:, 7] = 0.0
    return weight


def seen_of(inputs: torch.Tensor) -> LinearRange:
    return LinearRange(inputs.abs().amax(0).numpy(), len(inputs), 1.0, inputs.numpy())


@pytest.mark.parametrize("scheme", INTEGER_PRECISIONS)
def test_a_weight_is_within_half_a_scale_and_nothing_saturates(scheme: IntegerPrecision) -> None:
    weight = weight_of()
    scales = weight_scales(weight, scheme)
    assert scales.dtype == torch.float16
    assert tuple(scales.shape) == ((2, 48) if scheme == "int4-weight" else (48,))
    assert integers(weight, scales, scheme).abs().max() == LEVELS[scheme]
    expanded = scales.float().repeat_interleave(INT4_BLOCK, 0) if scheme == "int4-weight" else scales.float()
    assert ((quantised_weight(weight, scheme) - weight).abs() <= 0.5001 * expanded).all()
    assert (quantised_weight(weight, scheme)[:, 7] == 0).all()


def test_activations_saturate() -> None:
    x = torch.tensor([0.0, 0.26, -0.26, 100.0, -100.0])
    assert quantised_activations(x, 0.5).tolist() == [0.0, 0.5, -0.5, 63.5, -64.0]


def test_outliers_move_where_they_can() -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(64, 128), torch.randn(128, 32)
    inputs[:, 5] *= 100
    seen = seen_of(inputs)
    fold = Fold("norm", np.arange(128))
    fixed, moved = choose_scales(weight, seen, "int8", None), choose_scales(weight, seen, "int8", fold)
    assert fixed.migration is None
    assert moved.migration is not None
    assert moved.migration.argmax() == 5
    assert moved.error < 0.3 * fixed.error
    assert range_of(weight, seen, moved.migration) == moved.activation_scale


def test_a_lone_outlier_saturates_rather_than_to_coarsen_the_rest() -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(64, 128), torch.randn(128, 32)
    inputs[0, 0] = 8.0
    weight[0] *= 0.01
    chosen = choose_scales(weight, seen_of(inputs), "int8", None)
    assert chosen.activation_scale < 0.95 * 8.0 / 127


def test_tied_scales_are_equal_where_the_channels_have_one_source() -> None:
    fold = Fold("values", np.array([0, 1, 0, 1]))
    assert fold.tied(np.array([1, 5, 3, 2], np.float32)).tolist() == [3, 5, 3, 5]


def test_int4_is_packed_as_onnx_packs_it() -> None:
    values = torch.arange(-8, 8, dtype=torch.int8).reshape(2, 8)
    expected = onnx.numpy_helper.from_array(values.numpy().astype(ml_dtypes.int4))
    assert expected.data_type == onnx.TensorProto.INT4
    assert packed_int4(values).numpy().tobytes() == expected.raw_data
