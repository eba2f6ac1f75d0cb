"""The manifest: what a bundle is, with the size and hash of every file."""

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
# "uint8" for processors whose sums of uint8 by int8 saturate.
ProductWeights = Literal["int8", "uint8"]


def graphs_of(modalities: Modalities) -> tuple[GraphName, ...]:
    """Return the graphs that a bundle has: for text alone, the vision encoder is not among them."""
    return tuple(name for name in GRAPH_NAMES if modalities == "all" or name != "vision_encoder")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file of a bundle."""

    bytes: int
    sha256: str


class CheckpointOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which checkpoint a bundle was made from. `name` is what the user gave: a directory or a hub id.

    `repository` and `revision` (a commit) are the hub's, None where it did not come from there. `tensors_sha256` is the hash
    of names, dtypes, shapes and bytes, whatever files they are in (checkpoint/fingerprint.py). None: a bundle of schema 5 or
    older, which recorded the name alone.
    """

    name: str
    repository: str | None = None
    revision: str | None = None
    tensors_sha256: str | None = None
    config_sha256: str | None = None

    def __str__(self) -> str:
        """Return the name, with repository and commit where it came from the hub."""
        if self.repository is None:
            return self.name
        repository = "" if self.repository == self.name else f"which is {self.repository} "
        return f"{self.name}, {repository}at commit {self.revision}"


class EngineEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One engine, by its builder's own figures (None: it did not tell).

    `activation_bytes` is what it needs on the device beside its weights, for the largest shapes of its profile.
    `shared_weights` are tensors of the weight file that are inputs of the engine; they do not count as its weights.
    `initializer_bytes` are the weights that its graph holds, `copied_weight_bytes` those that it lays out anew in every pass.
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
    """What a bundle of engines was made with and for. `device` is a GPU's name and compute capability, or "portable".

    `duplicate_bytes` are weights that more than one engine holds, once for every copy beyond the first.
    """

    flavour_version: str
    device: str
    target: str
    recipe: Recipe
    source_sha256: str
    graphs: dict[GraphName, EngineEntry]
    duplicate_bytes: int | None = None


class MeasuredCosine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cosines of a bundle's embeddings with the float32 ones, over inputs that calibration never saw."""

    inputs: int
    mean: float
    worst: float
    worst_input: str


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How linear layers became integers, and what the embeddings lost by it.

    `graphs` lists those with integers; the others are floats. `kept` are layers that stayed in 16 bit, with the bytes that
    each costs, `weight_only` layers of int8 graphs whose inputs stayed in 16 bit. A cosine below `min_cosine` was not
    accepted (None: nothing was promised). `measured` None: nobody measured.
    `quantizer` is "own", or the name and version of another tool, whose graphs run as they are and are not compiled.
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
    """How many leading tokens of any prompt, and of a text's, have their keys and values in the prefill graph."""

    any_prompt_tokens: int
    text_tokens: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle is. `backend` is "onnx" for the portable export, else what it was compiled for.

    `precision` is the coarsest of the graphs'. `float32_layers` are linear layers that float16 could not hold, with
    their largest magnitude. `limits` are the shapes that a compiled bundle serves; None: as far as memory
    goes. `cached_start` None: prefill computes every token. `product_weights` is the type of integer weights that a CPU's
    products take. `manifest_sha256` is the hash of everything else; None: a bundle of schema 5 or older.
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

    Up to schema 5 the checkpoint was its name alone, and the manifest had no checksum. Raises msgspec.ValidationError, and
    ValueError where the checksum is missing or is not that of the rest.
    """
    recorded, version = value.get("manifest_sha256"), value.get("schema_version")
    older = {**value, "schema_version": SCHEMA_VERSION}
    if version != SCHEMA_VERSION and isinstance(value.get("checkpoint"), str):
        older["checkpoint"] = {"name": value["checkpoint"]}
    manifest = msgspec.convert(older, Manifest)
    if recorded is None and version == SCHEMA_VERSION:
        raise ValueError("it has no manifest_sha256")
    if recorded is not None and recorded != manifest_sha256(value):
        raise ValueError("it was altered, its manifest_sha256 is not that of the rest")
    return manifest


def manifest_sha256(value: dict[str, Any]) -> str:
    """Return the hash of a decoded manifest without its own checksum: of its values, however they are spaced and ordered."""
    rest = {key: field for key, field in value.items() if key != "manifest_sha256"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
