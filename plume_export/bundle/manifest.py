"""The manifest of a bundle: its properties, and the size and hash of every file."""

import json
from hashlib import sha256
from typing import Any, Literal

import msgspec

from ..errors import BundleError
from ..recipe import Recipe, ShapeRanges
from ..spec import GRAPH_NAMES, GraphName, GraphSpec, IntegerPrecision, ModelSpec, Precision, graph_specs, model_problem

SCHEMA_VERSION = 6
KIND: Literal["plume-export bundle"] = "plume-export bundle"
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
CONSTANTS = "constants.npz"
TOKENIZER = "tokenizer.json"
SELFTEST_INPUTS = "selftest/inputs.jsonl"
SELFTEST_STAGES = "selftest/stages.npz"

Backend = Literal["onnx", "onnxruntime", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"]
Modalities = Literal["all", "text"]
# Dtype of the integer weights in matmuls. "uint8" is for CPUs on which uint8-by-int8 matmuls saturate at 16 bits.
ProductWeights = Literal["int8", "uint8"]


def graphs_of(modalities: Modalities) -> tuple[GraphName, ...]:
    """Return the graphs of a bundle. A bundle for text only has no vision encoder."""
    return tuple(name for name in GRAPH_NAMES if modalities == "all" or name != "vision_encoder")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file of a bundle."""

    bytes: int
    sha256: str


class CheckpointOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The checkpoint that a bundle was made from. `name` is the directory or hub id that the user gave.

    `repository` and `revision` (a commit) are those of the hub, or None for a local directory. `tensors_sha256` is the hash of
    the names, dtypes, shapes and bytes of all tensors; their distribution over files does not matter (checkpoint/origin.py). It
    is None in a bundle of schema 5 or older, which recorded only the name.
    """

    name: str
    repository: str | None = None
    revision: str | None = None
    tensors_sha256: str | None = None
    config_sha256: str | None = None

    def __str__(self) -> str:
        """Return the name, with repository and commit if the checkpoint came from the hub."""
        if self.repository is None:
            return self.name
        repository = "" if self.repository == self.name else f"which is {self.repository} "
        return f"{self.name}, {repository}at commit {self.revision}"


class EngineEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One engine, with the sizes that its builder reported (None: not reported).

    `activation_bytes` is the device memory needed in addition to the weights, at the maximum shapes of the profile.
    `shared_weights` lists the tensors of the weight file that are engine inputs; `weights_bytes` does not include them.
    `initializer_bytes` is the size of the weights in the engine's ONNX graph. `copied_weight_bytes` is the size of the weights
    that the engine reformats in every run.
    """

    bytes: int
    weights_bytes: int | None
    activation_bytes: int | None
    profile: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    shared_weights: tuple[str, ...]
    build_seconds: float
    build_peak_memory_bytes: int | None
    layers: int | None = None
    initializer_bytes: int | None = None
    copied_weight_bytes: int | None = None


class EngineManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The environment and target of a bundle of engines. `device` is a GPU's name and compute capability, or "portable".

    `duplicate_bytes` are the weights in more than one engine, counted once for each copy after the first.
    """

    flavour_version: str
    device: str
    target: str
    recipe: Recipe
    source_sha256: str
    graphs: dict[GraphName, EngineEntry]
    duplicate_bytes: int | None = None


class MeasuredCosine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cosines between a bundle's embeddings and the float32 embeddings, over held-out inputs that calibration did not use."""

    inputs: int
    mean: float
    worst: float
    worst_input: str


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How linear layers were quantised, and how far the embeddings changed.

    `graphs` lists the quantised graphs; the others are floating point. `kept` lists layers that were excluded and stayed in 16
    bit, with the extra bytes of each. `weight_only` lists layers of int8 graphs whose activations stayed in 16 bit.
    `min_cosine` is the accuracy threshold, or None if there was none. `measured` is None if no cosine was measured.
    `quantizer` is "own", or the name and version of a third-party tool; the graphs of such a bundle run as they are and cannot
    be compiled.
    """

    graphs: dict[GraphName, IntegerPrecision]
    kept: dict[str, int]
    weight_only: tuple[str, ...] = ()
    calibration_inputs: int
    calibration_sha256: str
    min_cosine: float | None
    measured: MeasuredCosine | None
    quantizer: str = "own"


class CachedStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prefill graph stores keys and values of this many first tokens: of any prompt, and of a text prompt."""

    any_prompt_tokens: int
    text_tokens: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The properties of a bundle. `backend` is "onnx" for a portable export, or the backend that the bundle was compiled for.

    `precision` is the lowest precision among the graphs. `float32_layers` lists linear layers that would overflow float16 and
    are computed in float32, with their largest magnitude. `limits` are the shapes of a compiled bundle; None means that only
    memory limits them. If `cached_start` is None, prefill computes every token. `product_weights` is the dtype of integer
    weights in matmuls on a CPU.
    `manifest_sha256` is the hash of everything else; it is None in a bundle of schema 5 or older.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["plume-export bundle"] = KIND
    backend: Backend
    precision: Precision
    modalities: Modalities
    model: ModelSpec
    graphs: dict[GraphName, GraphSpec]
    checkpoint: CheckpointOrigin
    versions: dict[str, str]
    quantisation: Quantisation | None = None
    engines: EngineManifest | None = None
    limits: ShapeRanges | None = None
    cached_start: CachedStart | None = None
    product_weights: ProductWeights | None = None
    float32_layers: dict[str, float] = {}
    files: dict[str, FileEntry] = {}
    manifest_sha256: str | None = None


def manifest_from_json(value: dict[str, Any]) -> Manifest:
    """Return the manifest of a decoded JSON object, of this schema or an older one.

    Up to schema 5, the manifest had only the checkpoint's name and no checksum. Raises msgspec.ValidationError, and ValueError
    if the checksum is missing or wrong.
    """
    recorded, version = value.get("manifest_sha256"), value.get("schema_version")
    older = {**value, "schema_version": SCHEMA_VERSION}
    if version != SCHEMA_VERSION and isinstance(value.get("checkpoint"), str):
        older["checkpoint"] = {"name": value["checkpoint"]}
    manifest = msgspec.convert(older, Manifest)
    if recorded is None and version == SCHEMA_VERSION:
        raise ValueError("manifest_sha256 is missing")
    if recorded is not None and recorded != manifest_sha256(value):
        raise ValueError("it was altered: manifest_sha256 does not match the other values")
    return manifest


def manifest_sha256(value: dict[str, Any]) -> str:
    """Return the hash of a decoded manifest without its `manifest_sha256`. Spacing and the order of keys do not matter."""
    rest = {key: field for key, field in value.items() if key != "manifest_sha256"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_consistency(manifest: Manifest, name: str) -> None:
    """Raise BundleError unless the model's dimensions are consistent, and graphs, engines and limits match the model."""
    problem = model_problem(manifest.model) or _graphs_problem(manifest) or _backend_problem(manifest)
    if problem is not None:
        raise BundleError(f"{name} is corrupt: {problem}.", fix="build the bundle again")


def _graphs_problem(manifest: Manifest) -> str | None:
    """Return the first problem of the graphs' inputs and outputs, or None.

    The model determines names and axes. The precision of each graph determines dtypes.
    """
    for graph in GRAPH_NAMES:
        if graph not in manifest.graphs and (graph != "vision_encoder" or manifest.modalities == "all"):
            return f"the graph {graph} is missing"
    expected = graph_specs(manifest.model, manifest.precision)
    for graph, spec in manifest.graphs.items():
        if _names_and_axes(spec) != _names_and_axes(expected[graph]):
            return f"the tensors of the graph {graph} do not match the model"
    return None


def _backend_problem(manifest: Manifest) -> str | None:
    """Return what the backend needs and does not have; None if it has everything."""
    backend, engines = manifest.backend, manifest.engines
    if backend == "onnxruntime-cuda" and manifest.limits is None:
        return f"the backend {backend} needs limits"
    if backend not in ("tensorrt", "tensorrt-rtx"):
        return None if engines is None else f"the backend {backend} has no engines"
    if engines is None:
        return f"the backend {backend} needs engines"
    if engines.recipe.shapes is None:
        return "the engines' recipe has no shapes"
    return next((f"the engine {graph} is missing" for graph in manifest.graphs if graph not in engines.graphs), None)


def _names_and_axes(spec: GraphSpec) -> list[list[tuple[str, tuple[int | str, ...]]]]:
    return [[(tensor.name, tensor.axes) for tensor in side] for side in (spec.inputs, spec.outputs)]
