"""Whether what a manifest says fits together: a changed or crafted one is refused before anything is computed from it."""

from ..errors import BundleError
from ..spec import GRAPH_NAMES, GraphSpec, graph_specs, model_problem
from .manifest import Manifest


def check_consistency(manifest: Manifest, name: str) -> None:
    """Raise BundleError unless the dimensions are a model's, and the graphs are that model's."""
    problem = model_problem(manifest.model) or _graphs_problem(manifest)
    if problem is not None:
        raise BundleError(f"{name} is damaged: {problem}.", fix="build the bundle again")


def _graphs_problem(manifest: Manifest) -> str | None:
    """Names and axes follow from the model; the dtypes are those of the graph's own precision."""
    for graph in GRAPH_NAMES:
        if graph not in manifest.graphs and (graph != "vision_encoder" or manifest.modalities == "all"):
            return f"the graph {graph} is missing"
    expected = graph_specs(manifest.model, manifest.precision)
    for graph, spec in manifest.graphs.items():
        if _names_and_axes(spec) != _names_and_axes(expected[graph]):
            return f"the tensors of the graph {graph} are not those of the model"
    return None


def _names_and_axes(spec: GraphSpec) -> list[list[tuple[str, tuple[int | str, ...]]]]:
    return [[(tensor.name, tensor.axes) for tensor in side] for side in (spec.inputs, spec.outputs)]
