"""The table of weights: the graphs' parameters are made of all tensors of a checkpoint, and keys of any layout are known."""

import pytest
import torch
from torch import Tensor

from plume_export.checkpoint.random import preset_spec
from plume_export.graphs.latent_step import LatentStep
from plume_export.graphs.prefill import Prefill
from plume_export.graphs.vision_encoder import VisionEncoder
from plume_export.graphs.weights import CheckpointParameters
from plume_export.spec import PLUME_2B, GraphName, ModelSpec
from plume_export.weight_names import KeyLayout, canonical_name, expected_tensors, layers_of, stored_key

TINY = preset_spec("tiny", tokens=500)


class Shapes:
    """Tensors without data, which notes what was read."""

    def __init__(self, model: ModelSpec) -> None:
        self._shapes = expected_tensors(model)
        self.read_names: set[str] = set()

    def read(self, name: str) -> Tensor:
        self.read_names.add(name)
        return torch.empty(self._shapes[name], device="meta")


def modules_of(model: ModelSpec) -> dict[GraphName, torch.nn.Module]:
    with torch.device("meta"):
        return {
            "vision_encoder": VisionEncoder(model.vision, model.decoder.hidden, torch.float32),
            "prefill": Prefill(model.decoder, torch.float32),
            "latent_step": LatentStep(model, torch.float32),
        }


@pytest.mark.parametrize("model", [TINY, PLUME_2B], ids=["tiny", "2b"])
def test_parameters_of_the_graphs_are_made_of_all_tensors(model: ModelSpec) -> None:
    shapes = Shapes(model)
    read = CheckpointParameters(shapes, model)
    for graph, module in modules_of(model).items():
        shapes.read_names.clear()
        for name, parameter in module.named_parameters():
            assert read(name).shape == parameter.shape, name
        stored = [layer for layer in layers_of(model) if graph in layer.graphs]
        kinds = [(layer, kind) for layer in stored for kind in ("weight", *(["bias"] if layer.has_bias else []))]
        assert shapes.read_names == {f"{layer.stored}.{kind}" for layer, kind in kinds}


@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize("prefix", ["", "module.", "base_model.model."])
def test_keys_of_every_layout_have_canonical_names(layout: KeyLayout, prefix: str) -> None:
    for name in expected_tensors(TINY):
        assert canonical_name(prefix + stored_key(name, layout)) == name


@pytest.mark.parametrize("key", ["lm_head.weight", "model.rotary_emb.inv_freq", "optimizer.step", "visual"])
def test_other_keys_have_none(key: str) -> None:
    assert canonical_name(key) is None


def test_stored_name_of_a_layer_is_unique() -> None:
    stored = [layer.stored for layer in layers_of(PLUME_2B)]
    assert len(stored) == len(set(stored))
