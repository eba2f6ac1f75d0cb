"""What is recorded as a graph's inputs is what the reference computes before that graph, step by step."""

import numpy as np
import pytest
from graph_inputs import Feed, graph_inputs

from plume_export import Embedder
from plume_export.bundle import SELFTEST_INPUTS, SELFTEST_STAGES, Bundle
from plume_export.inputs import sources_from_file
from plume_export.spec import GraphName

STEPS = 8
Recorded = dict[GraphName, list[Feed]]


@pytest.fixture(scope="module")
def recorded(tiny_fp32: Bundle) -> dict[str, Recorded]:
    """By the ids of the self-test's inputs, each recorded alone."""
    with Embedder(tiny_fp32) as embedder:
        items = {source.id: embedder.prepare(source.read()) for source in sources_from_file(tiny_fp32.file(SELFTEST_INPUTS))}
    return {name: graph_inputs(tiny_fp32, [item]) for name, item in items.items()}


def test_prefill_and_rollout_against_the_reference(tiny_fp32: Bundle, recorded: dict[str, Recorded]) -> None:
    stages = np.load(tiny_fp32.file(SELFTEST_STAGES))
    assert len(recorded) == 3
    for name, feeds in recorded.items():
        (prefill,) = feeds["prefill"]
        assert np.array_equal(prefill["position_ids"][:, 0], stages[f"{name}/position_ids"])
        assert np.allclose(prefill["visual_embeddings"], stages[f"{name}/visual_embeddings"], atol=1e-4)
        states = [stages[f"{name}/prefix_state"], *stages[f"{name}/latent_states"]]
        assert len(feeds["latent_step"]) == STEPS
        for step, feed in enumerate(feeds["latent_step"]):
            assert feed["step"] == step
            assert np.allclose(feed["state"][0], states[step], atol=1e-4)
            assert np.allclose(feed["anchor"][0], stages[f"{name}/anchor"], atol=1e-4)


def test_what_changes_in_place_is_copied(recorded: dict[str, Recorded]) -> None:
    for feeds in recorded.values():
        for step, feed in enumerate(feeds["latent_step"]):
            is_filled = np.abs(feed["rollout_keys"]).reshape(STEPS, -1).max(1) > 0
            assert is_filled.tolist() == [slot < step for slot in range(STEPS)]
            assert (len(feed["suffix_embeddings"]) > 0) == (step == STEPS - 1)


def test_only_media_run_the_vision_encoder(tiny_fp32: Bundle, recorded: dict[str, Recorded]) -> None:
    for source in sources_from_file(tiny_fp32.file(SELFTEST_INPUTS)):
        assert len(recorded[source.id].get("vision_encoder", [])) == len(source.read().images)


def test_inputs_follow_each_other(tiny_fp32: Bundle, recorded: dict[str, Recorded]) -> None:
    """One at a time, whatever their lengths."""
    with Embedder(tiny_fp32) as embedder:
        items = [embedder.prepare(source.read()) for source in sources_from_file(tiny_fp32.file(SELFTEST_INPUTS))]
    together = graph_inputs(tiny_fp32, items)
    assert len(together["latent_step"]) == STEPS * len(items)
    for feed, alone in zip(together["prefill"], recorded.values(), strict=True):
        assert np.array_equal(feed["input_ids"], alone["prefill"][0]["input_ids"])
