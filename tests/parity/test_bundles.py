"""Bundles against the reference on mixed inputs, and against each other."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from plume_export import Embedder
from plume_export.bundle import Bundle
from plume_export.inputs import Item
from plume_export.parity import ParityReport, compare_inputs
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.reference import Reference, ReferenceProcessor
from plume_export.runtime.onnx_reference import OnnxReference
from plume_export.stages import Stages

from ..mixed_inputs import mixed_items


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return mixed_items()


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Path, items: list[Item]) -> dict[str, Stages]:
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    reference = Reference(checkpoint.directory, checkpoint.tensors, checkpoint.model, dtype=torch.float32)
    processor = ReferenceProcessor(checkpoint.directory, checkpoint.model)
    return {str(item.id): reference.stages(processor(item)) for item in items}


def report_of(bundle: Bundle, expected: Mapping[str, Stages], actual: Mapping[str, Stages]) -> ParityReport:
    return compare_inputs(expected, actual, precision=bundle.manifest.precision, top_k=2)


def run(embedder: Embedder, items: list[Item]) -> dict[str, Stages]:
    return {str(item.id): embedder.stages(item) for item in items}


def embedding_cosines(expected: Mapping[str, Stages], actual: Mapping[str, Stages]) -> list[float]:
    return [float(expected[name].embedding @ stages.embedding) for name, stages in actual.items()]


@pytest.mark.parametrize("fixture", ["tiny_fp32", "tiny_cpu"])
@pytest.mark.slow
def test_fp32_equals_the_reference(
    fixture: str, request: pytest.FixtureRequest, items: list[Item], expected: dict[str, Stages]
) -> None:
    bundle: Bundle = request.getfixturevalue(fixture)
    with Embedder(bundle) as embedder:
        actual = run(embedder, items)
    report = report_of(bundle, expected, actual)
    assert report.first_bad_stage is None
    assert report.router_agreement == 1.0
    assert min(embedding_cosines(expected, actual)) >= 0.999999
    assert max(np.abs(expected[name].embedding - actual[name].embedding).max() for name in expected) <= 1e-5


@pytest.mark.parametrize("fixture", ["tiny_fp32", "tiny_cpu"])
def test_a_batch_equals_one_at_a_time(fixture: str, request: pytest.FixtureRequest, items: list[Item]) -> None:
    with Embedder(request.getfixturevalue(fixture)) as embedder:
        mixed = items[2:18:2]
        assert len(mixed) == 8
        together = embedder.embed(mixed, batch_size=8)
        alone = embedder.embed(mixed, batch_size=1)
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize(("precision", "cosine"), [("fp16", 0.999), ("bf16", 0.99)])
@pytest.mark.slow
def test_16_bit_rounded_after_every_operator(
    precision: str, cosine: float, request: pytest.FixtureRequest, items: list[Item], expected: dict[str, Stages]
) -> None:
    bundle: Bundle = request.getfixturevalue(f"tiny_{precision}")
    slow = ("text-5", "large", "triple", "video", "odd-video", "long-with-image")
    some = [item for item in items if item.id not in slow]
    with Embedder(bundle, backend=OnnxReference(bundle)) as embedder:
        actual = run(embedder, some)
    assert min(embedding_cosines(expected, actual)) >= cosine


@pytest.mark.slow
def test_fp16_weights_are_right(tiny_fp16: Bundle, items: list[Item], expected: dict[str, Stages]) -> None:
    with Embedder(tiny_fp16) as embedder:
        assert min(embedding_cosines(expected, run(embedder, items))) >= 0.9999


def test_inputs_differ_clearly(expected: dict[str, Stages]) -> None:
    """Otherwise a cosine near 1 would say nothing."""
    embeddings = np.stack([stages.embedding for stages in expected.values()])
    cosines = embeddings @ embeddings.T
    assert np.median(cosines[np.triu_indices(len(cosines), 1)]) < 0.8


@pytest.mark.slow
def test_no_steps_is_the_suffix_behind_the_prompt(tiny_checkpoint: Path, tiny_fp32: Bundle, items: list[Item]) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    reference = Reference(checkpoint.directory, checkpoint.tensors, checkpoint.model, dtype=torch.float32)
    processor = ReferenceProcessor(checkpoint.directory, checkpoint.model)
    for steps in (0, 1, 5):
        with Embedder(tiny_fp32, steps=steps) as embedder:
            for item in items[6:8]:
                expected = reference.stages(processor(item), latent_steps=steps).embedding
                assert np.abs(embedder.embed([item])[0] - expected).max() <= 1e-5
