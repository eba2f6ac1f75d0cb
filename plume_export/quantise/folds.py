"""SmoothQuant's scales (arXiv 2211.10438) on the input channels of linear layers: where their inverse can be folded, exactly.

SmoothQuant folds it into the norm before the layer. For the attention's output projection, it is folded into the value
projection; for the down-projection, into the up-projection. Nothing can be folded after a GELU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spec import ModelSpec
from ..weight_names import layers_of


@dataclass(frozen=True)
class Fold:
    """The layer that computes the inputs of a linear layer. `source[c]` is the producer's channel that input channel c reads.

    The producer is a norm, whose weight (and bias) is divided, or a linear layer, whose output channels are divided.
    """

    producer: str
    source: NDArray[np.int64]  # [input channels]

    def tied(self, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scales [input channels] in which all channels of one source have their largest scale."""
        largest = np.zeros(int(self.source.max()) + 1, np.float32)
        np.maximum.at(largest, self.source, scales)
        tied: NDArray[np.float32] = largest[self.source]
        return tied


def folds_of(model: ModelSpec) -> dict[str, Fold]:
    """Return the fold of every linear layer that has one, by the layer's name in the graphs."""
    vision, decoder = model.vision, model.decoder
    queries, values = decoder.query_heads * decoder.head_dim, decoder.kv_heads * decoder.head_dim
    value_channels = np.arange(values).reshape(decoder.kv_heads, 1, decoder.head_dim)
    groups = decoder.query_heads // decoder.kv_heads
    attended = np.repeat(value_channels, groups, axis=1).reshape(-1) + queries + values  # each value head serves a group
    folds: dict[str, Fold] = {}
    for layer in range(decoder.layers):
        stem = f"decoder.layers.{layer}."
        folds[stem + "qkv_proj"] = Fold(stem + "input_norm", np.arange(decoder.hidden))
        folds[stem + "o_proj"] = Fold(stem + "qkv_proj", attended)
        folds[stem + "gate_up_proj"] = Fold(stem + "post_attention_norm", np.arange(decoder.hidden))
        folds[stem + "down_proj"] = Fold(stem + "gate_up_proj", np.arange(decoder.mlp_width) + decoder.mlp_width)
    for layer in range(vision.depth):
        stem = f"visual.blocks.{layer}."
        folds[stem + "qkv"] = Fold(stem + "norm1", np.arange(vision.width))
        folds[stem + "proj"] = Fold(stem + "qkv", np.arange(vision.width) + 2 * vision.width)
        folds[stem + "fc1"] = Fold(stem + "norm2", np.arange(vision.width))
    folds["visual.merger.fc1"] = Fold("visual.merger.norm", np.tile(np.arange(vision.width), vision.merged_patches))
    return folds


def linear_layers(model: ModelSpec) -> list[str]:
    """Return the layers that are quantised, in the order of the computation.

    The patch embedding, the router and the experts are not quantised: together they are 2 % of the weights.
    """
    layers = [layer.name for layer in layers_of(model) if layer.kind == "linear" and layer.storage == "integer"]
    parts = ("visual.blocks.", "visual.merger.", "decoder.")
    return [name for part in parts for name in dict.fromkeys(layers) if name.startswith(part)]


def scale_by_producer(
    folds: Mapping[str, Fold], scales: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the channels of each producer that are divided, and their divisors."""
    divided: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    for name, scale in scales.items():
        channels, first = np.unique(folds[name].source, return_index=True)
        divided[folds[name].producer] = (channels, scale[first])
    return divided
