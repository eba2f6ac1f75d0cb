"""A wrong stage is found and the first one named."""

import dataclasses

import numpy as np

from plume_export.parity import compare_inputs
from plume_export.stages import Stages


def some_stages() -> Stages:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    probabilities = np.array([[0.5, 0.3, 0.15, 0.05]] * 8, np.float32)
    return Stages(normal(4, 16), np.arange(30).reshape(3, 10), normal(16), normal(16), normal(8, 16), probabilities, normal(16))


def report_of(expected: Stages, actual: Stages):  # type: ignore[no-untyped-def]
    return compare_inputs({"a": expected}, {"a": actual}, precision="fp32", top_k=2)


def test_equal_stages_hold() -> None:
    stages = some_stages()
    seen_by_runtime = dataclasses.replace(stages, latent_states=stages.latent_states[:7])
    report = report_of(stages, seen_by_runtime)
    assert report.first_bad_stage is None
    assert report.router_agreement == 1.0


def test_first_bad_stage_is_named() -> None:
    stages = some_stages()
    broken = dataclasses.replace(stages, prefix_state=stages.prefix_state * 1.01, embedding=-stages.embedding)
    assert report_of(stages, broken).first_bad_stage == "prefix state"


def test_one_wrong_position_is_found() -> None:
    stages = some_stages()
    positions = stages.position_ids.copy()
    positions[1, 3] += 1
    assert report_of(stages, dataclasses.replace(stages, position_ids=positions)).first_bad_stage == "position ids"


def test_non_finite_values_are_outside() -> None:
    stages = some_stages()
    broken = stages.anchor.copy()
    broken[0] = np.nan
    assert report_of(stages, dataclasses.replace(stages, anchor=broken)).first_bad_stage == "anchor"


def test_other_experts_are_found() -> None:
    stages = some_stages()
    swapped = stages.router_probabilities.copy()
    swapped[2, [1, 2]] = [0.2249, 0.2251]
    expected = stages.router_probabilities.copy()
    expected[2, [1, 2]] = [0.2251, 0.2249]
    report = report_of(
        dataclasses.replace(stages, router_probabilities=expected), dataclasses.replace(stages, router_probabilities=swapped)
    )
    assert report.router_agreement == 7 / 8


def test_another_number_of_tokens_is_outside() -> None:
    stages = some_stages()
    report = report_of(stages, dataclasses.replace(stages, visual_embeddings=stages.visual_embeddings[:3]))
    assert report.first_bad_stage == "visual embeddings"
