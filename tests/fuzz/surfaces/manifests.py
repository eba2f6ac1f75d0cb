"""A bundle's manifest. What opens is also inspected, and takes an input as far as the graphs."""

import json
from pathlib import Path

from click.testing import CliRunner
from hypothesis import strategies as st
from PIL import Image

from plume_export.bundle import MANIFEST
from plume_export.bundle.manifest import manifest_sha256
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.inputs import Item
from plume_export.runtime.embedder import Embedder

from ..mutation import mutated_json
from ..sample_bundle import write_sample_bundle
from ..surface import Files, Surface

_VALUES = (
    "../../../x",
    "/etc/passwd",
    "a/../../b",
    "onnxruntime",
    "tensorrt",
    "int8",
    "text",
    {"bytes": 1, "sha256": ""},
    [1, 2, 3],
)
_PICTURE = Image.new("RGB", (30, 40), "red")


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    manifest = json.loads((directory / MANIFEST).read_bytes())
    crafted = mutated_json([manifest], _VALUES, is_raw=False).map(_with_checksum)
    return st.one_of(crafted, crafted, mutated_json([manifest], _VALUES)).map(lambda content: {MANIFEST: content})


def _with_checksum(content: bytes) -> bytes:
    """What somebody writes who knows the format."""
    value = json.loads(content)
    if isinstance(value, dict):
        value["manifest_sha256"] = manifest_sha256(value)
    return json.dumps(value).encode()


def _read(directory: Path) -> None:
    with Embedder(directory, threads=1) as embedder:
        for item in (Item(text="a"), Item(text="a", images=(_PICTURE,))):
            prepared = embedder.prepare(item)
            assert prepared.position_ids.shape == (3, prepared.token_count)
    result = CliRunner().invoke(main, ["inspect", str(directory)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise PlumeExportError(result.output)


SURFACE = Surface("manifests", 10, write_sample_bundle, _cases, _read)
