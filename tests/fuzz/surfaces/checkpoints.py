"""A checkpoint's safetensors header, its index of shards and its JSON files; every tensor is read."""

import json
import shutil
import struct
from pathlib import Path

import msgspec
import numpy as np
import safetensors.numpy
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.spec import DecoderSpec, ModelSpec, TransitionSpec, VisionSpec
from plume_export.weight_names import expected_tensors
from tests.golden_model import GOLDEN_MODEL

from ..mutation import INTEGERS, mutated, mutated_json
from ..sample_bundle import GOLDEN_CHECKPOINT
from ..surface import Files, Surface

_FIRST, _SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
_LENGTH = struct.Struct("<Q")
# So small that its files are written anew for every case.
SMALLEST_MODEL = msgspec.structs.replace(
    GOLDEN_MODEL,
    vision=VisionSpec(depth=1, width=16, heads=2, mlp_width=32, patch_size=14, temporal_patch_size=2, merge_size=2, channels=3),
    decoder=DecoderSpec(1, 16, 2, 1, 8, 16, GOLDEN_MODEL.decoder.vocab, 1e-6, 1e6, (2, 1, 1), 4096),
    transition=TransitionSpec(experts=2, expert_width=8, step_table_rows=8, top_k=2),
)
_JSON_FILES = ("config.json", "preprocessor_config.json", "trainer_state.json")
_HEADER_VALUES = (
    *(
        [0, 4],
        [4, 0],
        [-4, 0],
        [0, 2**63],
        [2**64 - 4, 2**64],
        [0, 0],
        "F32",
        "F64",
        "BF16",
        "F8_E4M3",
        "I64",
        "BOOL",
        "X",
        [2**32, 2**32],
    ),
    *([1], [], [0], [-1], [2**63]),
)


def _write(directory: Path) -> None:
    write_sharded_checkpoint(directory, SMALLEST_MODEL)


def write_sharded_checkpoint(directory: Path, model: ModelSpec) -> None:
    """Write a checkpoint of random weights in two shards."""
    from plume_export.checkpoint.config_files import write_config_files

    shapes = expected_tensors(model)
    generator = np.random.default_rng(0)
    names = sorted(shapes)
    shards = {_FIRST: names[::2], _SECOND: names[1::2]}
    for file, held in shards.items():
        tensors = {name: generator.standard_normal(shapes[name]).astype(np.float16) for name in held}
        safetensors.numpy.save_file(tensors, directory / file)
    weight_map = {name: file for file, held in shards.items() for name in held}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    ids = dict.fromkeys(("<|endoftext|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"), 1)
    ids |= dict.fromkeys(("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"), 2)
    write_config_files(directory, model, ids, dtype="float16", is_nested=True)
    shutil.copyfile(GOLDEN_CHECKPOINT / "tokenizer.json", directory / "tokenizer.json")
    log = {"log_history": [{"curriculum_latent_tokens": 4}, {"loss": 1.0}, {"curriculum_latent_tokens": 8}]}
    (directory / "trainer_state.json").write_text(json.dumps(log))


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    first = (directory / _FIRST).read_bytes()
    index = json.loads((directory / INDEX).read_bytes())
    documents = {name: json.loads((directory / name).read_bytes()) for name in _JSON_FILES}
    shard_names = (_FIRST, "../x.safetensors", "/etc/passwd", "", ".", "a\0b", "config.json")

    @st.composite
    def draw(draw: DrawFn) -> Files:
        kind = draw(st.integers(0, 7))
        if kind < 3:
            return {_FIRST: draw(_edited_header(first))}
        if kind == 3:
            return {_FIRST: draw(mutated([first], [b"data_offsets", b"dtype", b"shape"]))}
        if kind == 4:
            return {INDEX: draw(mutated_json([index], shard_names))}
        if kind == 5:
            return {INDEX: None, _FIRST: draw(_edited_header(first))}
        name = draw(st.sampled_from(_JSON_FILES))
        return {name: draw(mutated_json([documents[name]], ["mrope", "qwen2_vl", [1, 2, 3], "nan"]))}

    return draw()


@st.composite
def _edited_header(draw: DrawFn, seed: bytes) -> bytes:
    """The file with a changed header whose length is right, or with the right header and another length."""
    (length,) = _LENGTH.unpack_from(seed)
    header, data = seed[_LENGTH.size : _LENGTH.size + length], seed[_LENGTH.size + length :]
    if draw(st.integers(0, 5)) == 0:
        return _LENGTH.pack(draw(st.sampled_from(INTEGERS)) % 2**64) + header + data
    header = draw(mutated_json([json.loads(header)], _HEADER_VALUES))
    header += b" " * (-len(header) % 8)
    return _LENGTH.pack(len(header)) + header + data


def _read(directory: Path) -> None:
    checkpoint = open_checkpoint(str(directory), ModelOptions(), offline=True)
    for name, shape in expected_tensors(checkpoint.model).items():
        assert tuple(checkpoint.tensors.read(name).shape) == shape
    model = checkpoint.model
    assert (
        min(model.decoder.layers, model.decoder.hidden, model.vision.depth, model.vision.heads, model.decoder.query_heads) > 0
    )
    assert model.decoder.query_heads % model.decoder.kv_heads == 0


SURFACE = Surface("checkpoints", 6, _write, _cases, _read)
