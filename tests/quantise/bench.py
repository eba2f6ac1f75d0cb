"""Plans for the model that ships, tried out: graphs that were traced once, written as a plan has them and measured."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx_ir as ir
import torch

from plume_export.bundle import CONSTANTS, TOKENIZER, Bundle, MeasuredCosine
from plume_export.checkpoint import Checkpoint
from plume_export.graphs.weights import CheckpointParameters, ReadParameter
from plume_export.portable_bundle import DraftBundle
from plume_export.quantise.activation_ranges import Ranges
from plume_export.quantise.folds import linear_layers
from plume_export.quantise.held_out import HeldOut
from plume_export.quantise.quantisation_plan import PHASES_OF_GRAPH, QuantisationPlan, plan_quantisation
from plume_export.spec import GRAPH_NAMES, IntegerPrecision


@dataclass(frozen=True)
class Bench:
    """A bundle is written into `directory`, over the last one. `exported` lends its graphs and what is beside them."""

    exported: Bundle
    directory: Path
    held_out: HeldOut

    def write(self, checkpoint: Checkpoint, plan: QuantisationPlan) -> Bundle:
        """Write a bundle of a checkpoint with the dimensions of the exported one."""
        for name in (CONSTANTS, TOKENIZER):
            shutil.copyfile(self.exported.file(name), self.directory / name)
        traced = {name: without_weights(ir.load(self.exported.graph_file(name))) for name in GRAPH_NAMES}
        # An integer precision, so that it runs as it is written: ONNX Runtime's optimisations are off.
        manifest = msgspec.structs.replace(self.exported.manifest, precision="int8")
        return DraftBundle(self.directory, manifest, checkpoint, traced).write_graphs(plan)

    def measure(self, checkpoint: Checkpoint, plan: QuantisationPlan) -> MeasuredCosine:
        return self.held_out.measure(self.write(checkpoint, plan))


def without_weights(graph: ir.Model) -> ir.Model:
    """Return a saved graph as it was traced."""
    for value in graph.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None
    return graph


def reader(checkpoint: Checkpoint) -> ReadParameter:
    return CheckpointParameters(checkpoint.tensors, checkpoint.model)


def plan_of(checkpoint: Checkpoint, ranges: Ranges, scheme: IntegerPrecision) -> QuantisationPlan:
    return plan_quantisation(checkpoint.model, reader(checkpoint), ranges, dict.fromkeys(GRAPH_NAMES, scheme))


def naive_plan(checkpoint: Checkpoint, ranges: Ranges) -> QuantisationPlan:
    """Return int8 as it is done without thought: the largest magnitude is the range, and no outlier moves."""
    plan = QuantisationPlan({graph: {} for graph in GRAPH_NAMES}, {graph: {} for graph in GRAPH_NAMES}, {}, {}, {})
    for graph in GRAPH_NAMES:
        for layer in linear_layers(checkpoint.model):
            if layer.startswith("visual.") == (graph == "vision_encoder"):
                seen = ranges.of(layer, PHASES_OF_GRAPH[graph])
                assert seen is not None
                plan.schemes[graph][layer] = "int8"
                plan.activation_scales[graph][layer] = float(seen.input_abs_max.max()) / 127
    return plan


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())
