"""A bundle with everything that opening one reads. Its graphs only look as if: each adds a weight to its input."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper

from plume_export.bundle import CONSTANTS, TOKENIZER, WEIGHTS, CheckpointOrigin, Manifest, write_manifest
from plume_export.inputs import Preprocessor, PromptTokenizer
from plume_export.spec import GRAPH_NAMES, graph_specs
from tests.golden_model import GOLDEN_MODEL

GOLDEN_CHECKPOINT = Path(__file__).parents[1] / "golden" / "checkpoint"
HIDDEN = GOLDEN_MODEL.decoder.hidden
_LENGTH_BYTES = 8


def write_sample_bundle(directory: Path) -> None:
    tokenizer = (GOLDEN_CHECKPOINT / "tokenizer.json").read_bytes()
    (directory / TOKENIZER).write_bytes(tokenizer)
    generator = np.random.default_rng(0)
    safetensors.numpy.save_file({"weight": generator.random((8, HIDDEN), np.float32)}, directory / WEIGHTS)
    for name in GRAPH_NAMES:
        (directory / f"{name}.onnx").write_bytes(sample_graph(directory / WEIGHTS).SerializeToString())
    suffix_tokens = len(PromptTokenizer(tokenizer, GOLDEN_MODEL.rollout).suffix_ids)
    np.savez(
        directory / CONSTANTS,
        blank_visual_embeddings=generator.random((4, HIDDEN), np.float32),
        suffix_embeddings=generator.random((suffix_tokens, HIDDEN), np.float32),
    )
    write_manifest(directory, sample_manifest())


def sample_manifest() -> Manifest:
    return Manifest(
        backend="onnx",
        precision="fp32",
        modalities="all",
        model=GOLDEN_MODEL,
        graphs=graph_specs(GOLDEN_MODEL, "fp32"),
        checkpoint=CheckpointOrigin(name="golden"),
        versions={"plume-export": "0"},
    )


def sample_graph(weights: Path) -> onnx.ModelProto:
    """A graph whose weight lies in a safetensors file beside it."""
    header_bytes = int.from_bytes(weights.read_bytes()[:_LENGTH_BYTES], "little")
    shape = (8, HIDDEN)
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": weights.name, "offset": _LENGTH_BYTES + header_bytes, "length": 4 * 8 * HIDDEN}.items():
        tensor.external_data.add(key=key, value=str(value))
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    nodes = [helper.make_node("Add", ["x", "weight"], ["y"])]
    graph = helper.make_graph(nodes, "sample", sides[:1], sides[1:], initializer=[tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@cache
def sample_preprocessor(*, allows_control_tokens: bool = False) -> Preprocessor:
    tokenizer = (GOLDEN_CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8")
    return Preprocessor(tokenizer, GOLDEN_MODEL, allow_control_tokens=allows_control_tokens)
