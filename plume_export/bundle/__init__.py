"""A bundle: one directory with everything that the runtime needs. This package reads, verifies and writes bundles.

manifest.json           the contents, with the hash of every file
*.onnx                  the graphs, without weights; *.engine, with weights, in bundles compiled by TensorRT
weights.safetensors     all weights, stored once; in a CPU bundle, the decoder's also in the layout of its kernels
constants.npz           embeddings of the blank image and of the fixed suffix
tokenizer.json
selftest/               a few inputs and the reference outputs for them
"""

from .bundle import Bundle, Verify, open_bundle, open_written, sha256_of_file
from .constants import Constants, read_constants
from .contained import is_plain_name
from .manifest import (
    CONSTANTS,
    MANIFEST,
    SCHEMA_VERSION,
    SELFTEST_INPUTS,
    SELFTEST_STAGES,
    TOKENIZER,
    WEIGHTS,
    Backend,
    CachedStart,
    CheckpointOrigin,
    EngineEntry,
    EngineManifest,
    FileEntry,
    Manifest,
    MeasuredCosine,
    Modalities,
    ProductWeights,
    Quantisation,
    graphs_of,
)
from .output import (
    check_new_directory,
    check_output,
    check_writable,
    new_bundle,
    new_directory,
    staged_bundle,
)
from .write import copy_file, move_file, write_manifest

__all__ = [
    "CONSTANTS",
    "MANIFEST",
    "SCHEMA_VERSION",
    "SELFTEST_INPUTS",
    "SELFTEST_STAGES",
    "TOKENIZER",
    "WEIGHTS",
    "Backend",
    "Bundle",
    "CachedStart",
    "CheckpointOrigin",
    "Constants",
    "EngineEntry",
    "EngineManifest",
    "FileEntry",
    "Manifest",
    "MeasuredCosine",
    "Modalities",
    "ProductWeights",
    "Quantisation",
    "Verify",
    "check_new_directory",
    "check_output",
    "check_writable",
    "copy_file",
    "graphs_of",
    "is_plain_name",
    "move_file",
    "new_bundle",
    "new_directory",
    "open_bundle",
    "open_written",
    "read_constants",
    "sha256_of_file",
    "staged_bundle",
    "write_manifest",
]
