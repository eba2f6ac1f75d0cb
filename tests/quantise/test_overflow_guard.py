"""The range guard of float16: from ranges, and on a model that is made to overflow, in arithmetic that rounds every result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plume_export import Embedder
from plume_export.bundle import Bundle, open_bundle
from plume_export.checkpoint import Checkpoint
from plume_export.errors import PlumeExportError
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.portable_bundle import draft_bundle
from plume_export.quantise.activation_ranges import LinearRange, Ranges
from plume_export.quantise.calibrate import calibrate
from plume_export.quantise.overflow_guard import FLOAT16_MAX, MARGIN, guard_text, guarded_layers
from plume_export.runtime.onnx_reference import OnnxReference
from plume_export.samples import held_out_inputs_file, plume_tiny_directory
from plume_export.stages import FloatArray
from tests.quantise.outlier_variant import write_outlier_variant

TEXTS = ["two large cyan stars", "a red circle on the left"]
LIMIT = MARGIN * FLOAT16_MAX


def ranges_with(shipped: Ranges, name: str, *, largest_input: float = 1.0, largest_output: float = 1.0) -> Ranges:
    sample = np.zeros((1, 2), np.float32)
    seen = LinearRange(np.array([0.1, largest_input], np.float32), 1, largest_output, sample)
    return Ranges(shipped.about, {"vision": {}, "prefill": {name: seen}, "step": {}, "readout": {}})


@pytest.mark.slow
def test_layers_near_the_largest_number_are_kept(shipped_ranges: Ranges) -> None:
    name = "decoder.layers.0.down_proj"
    assert guarded_layers(ranges_with(shipped_ranges, name, largest_input=0.99 * LIMIT)) == {}
    assert list(guarded_layers(ranges_with(shipped_ranges, name, largest_input=1.01 * LIMIT))) == [name]
    kept = guarded_layers(ranges_with(shipped_ranges, name, largest_output=70_000))
    assert kept == {name: 70_000}
    assert f"{name} (70,000)" in guard_text(kept, shipped_ranges)
    experts = ranges_with(shipped_ranges, "transition.experts.fc2", largest_input=70_000)
    assert list(guarded_layers(experts)) == ["transition.experts"]


def test_queries_keys_and_values_can_not_be_kept(shipped_ranges: Ranges) -> None:
    ranges = ranges_with(shipped_ranges, "decoder.layers.0.qkv_proj", largest_output=50_000)
    with pytest.raises(PlumeExportError, match=r"qkv_proj reaches 50,000(.|\n)*precision bf16"):
        guarded_layers(ranges)


def test_the_sample_model_needs_none(shipped_ranges: Ranges) -> None:
    assert guarded_layers(shipped_ranges) == {}
    assert "all layers fit float16" in guard_text({}, shipped_ranges)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """plume-tiny with every 16th channel 2^17 times as large: the same function, with magnitudes over 65504."""
    directory = write_outlier_variant(
        plume_tiny_directory(), tmp_path_factory.mktemp("variant") / "checkpoint", factor=2.0**17, stride=16
    )
    return open_checkpoint(str(directory), ModelOptions())


def rounded_embeddings(bundle: Bundle) -> FloatArray:
    with Embedder(bundle, backend=OnnxReference(bundle)) as embedder:
        return embedder.embed(TEXTS)


def exported(checkpoint: Checkpoint, output: Path, **options: Any) -> Bundle:
    with draft_bundle(checkpoint, output, **options) as draft:
        draft.write_graphs()
    return open_bundle(output)


@pytest.mark.slow
def test_a_model_that_overflows(variant: Checkpoint, plume_tiny_fp32: FloatArray, tmp_path: Path) -> None:
    ranges = calibrate(variant, held_out_inputs_file())
    kept = guarded_layers(ranges)
    assert {"decoder.layers.0.gate_up_proj", "decoder.layers.0.down_proj", "visual.blocks.0.fc1"} <= set(kept)
    assert max(kept.values()) > FLOAT16_MAX
    guarded = exported(variant, tmp_path / "guarded", precision="fp16", float32_layers=kept)
    assert guarded.manifest.float32_layers == kept
    cosines = (rounded_embeddings(guarded) * plume_tiny_fp32).sum(1)
    assert cosines.min() >= 0.999
    unguarded = exported(variant, tmp_path / "unguarded", precision="fp16")
    with pytest.raises(PlumeExportError, match="not finite"):
        rounded_embeddings(unguarded)


@pytest.fixture(scope="module")
def plume_tiny_fp32(tmp_path_factory: pytest.TempPathFactory, plume_tiny: Checkpoint) -> FloatArray:
    with Embedder(exported(plume_tiny, tmp_path_factory.mktemp("fp32") / "bundle", precision="fp32")) as embedder:
        return embedder.embed(TEXTS)
