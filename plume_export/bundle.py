"""A bundle: one directory with everything that the runtime needs. Read, verified and written here.

manifest.json           what is inside, with the hash of every file
*.onnx                  the graphs, weights outside; *.engine, weights inside, where compiled by TensorRT
weights.safetensors     the weights, once; compiled for a CPU, the decoder's also in the order of its kernels
constants.npz           embeddings of the blank image and of the forced suffix
tokenizer.json
selftest/               a few inputs and what the reference computed for them
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from .errors import BundleError, PlumeExportError
from .recipe import Recipe, ShapeRanges
from .spec import GraphName, GraphSpec, IntegerPrecision, ModelSpec, Precision

SCHEMA_VERSION = 5
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
_HASH_CHUNK_BYTES = 1 << 20
_WRITE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.EIO,
}  # fmt: skip


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file of a bundle."""

    bytes: int
    sha256: str


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
    products take.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["plume-export bundle"] = "plume-export bundle"
    backend: Backend
    precision: Precision
    modalities: Modalities
    model: ModelSpec
    graphs: dict[GraphName, GraphSpec]
    checkpoint: str
    versions: dict[str, str]
    quantisation: Quantisation | None = None
    engines: EngineManifest | None = None
    limits: ShapeRanges | None = None
    cached_start: CachedStart | None = None
    product_weights: ProductWeights | None = None
    float32_layers: dict[str, float] = {}
    files: dict[str, FileEntry] = {}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def graph_file(self, name: GraphName) -> Path:
        """The graph's ONNX file or engine."""
        return self.path / (f"{name}.onnx" if self.manifest.engines is None else f"{name}.engine")

    @property
    def sha256(self) -> str:
        """The hash of the manifest, which holds the hash of every file."""
        return sha256_of_file(self.path / MANIFEST)


def open_bundle(path: str | os.PathLike[str], *, verify_hashes: bool = True) -> Bundle:
    """Read and verify a bundle.

    Raises BundleError for a missing directory or file, a changed file, a newer schema or something that is no bundle.
    `verify_hashes=False` checks names and sizes only, which saves reading the weights.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry, verify_hash=verify_hashes)
    return Bundle(path, manifest)


@contextmanager
def new_bundle(output: Path) -> Iterator[Path]:
    """Yield an empty directory beside `output`; on success it takes the place of `output`, on an error it vanishes.

    An existing bundle at `output` is replaced only at the end; anything else that stands there is refused at once.
    """
    check_output(output)
    with scratch_directory(output) as partial:
        yield partial
        partial.chmod(0o755)
        _replace(partial, output)


@contextmanager
def scratch_directory(output: Path) -> Iterator[Path]:
    """Yield an empty directory beside `output` that vanishes at the end; errors of writing become PlumeExportErrors."""
    with _as_write_error(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def check_output(output: Path) -> None:
    """Raise unless `output` is free, an empty directory or a bundle that may be replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise PlumeExportError(f"{output} exists and is not a bundle, so it is not replaced.", fix="choose another --output")


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Hash every file of the directory and write the manifest, last of all; return it complete."""
    names = sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())
    files = {name: FileEntry((directory / name).stat().st_size, sha256_of_file(directory / name)) for name in names}
    complete = msgspec.structs.replace(manifest, files=files)
    text = msgspec.json.format(msgspec.json.encode(complete), indent=2)
    (directory / MANIFEST).write_bytes(text + b"\n")
    return complete


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into another bundle. Never a hard link: onnx refuses external data that has a second name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def move_file(source: Path, target: Path) -> None:
    """Take a file out of a bundle that is not kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def sha256_of_file(file: Path) -> str:
    """Return the hexadecimal hash of a file, read in pieces. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_manifest(path: Path) -> Manifest:
    if not path.is_dir():
        found = "it is a file" if path.exists() else "there is nothing"
        raise BundleError(
            f"There is no bundle at {path}: {found}.", fix="check the path, or plume-export build --output " + str(path)
        )
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError:
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}.", fix="pass the directory that plume-export build wrote"
        ) from None
    try:
        head = msgspec.json.decode(text)
        if not isinstance(head, dict) or head.get("kind") != "plume-export bundle":
            raise BundleError(f"{path / MANIFEST} is not a bundle's manifest.", fix="pass a plume-export bundle")
        if head.get("schema_version", 0) > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {head['schema_version']}; this plume-export reads up to {SCHEMA_VERSION}.",
                fix="pip install --upgrade plume-export, or build the bundle again with this version",
            )
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path / MANIFEST} is damaged: {error}.", fix="build the bundle again") from None


def _check_file(path: Path, name: str, entry: FileEntry, *, verify_hash: bool) -> None:
    fix = "copy the bundle again, or build it again"
    file = path / name
    if not file.is_file():
        raise BundleError(f"The bundle {path} lacks the file {name}.", fix=fix)
    size = file.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{file} was altered: it has {size} bytes, the manifest says {entry.bytes}.", fix=fix)
    if verify_hash and sha256_of_file(file) != entry.sha256:
        raise BundleError(f"{file} was altered: its sha256 is not the one in the manifest.", fix=fix)


def _replace(partial: Path, output: Path) -> None:
    """Rename; a bundle that stands at `output` is moved aside first, so that one of the two is always whole."""
    aside = partial.with_name(partial.name + ".old")
    if output.exists():
        output.rename(aside)
    try:
        partial.rename(output)
    except OSError:
        with suppress(OSError):
            aside.rename(output)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _as_write_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        reason = error.strerror or str(error)
        raise PlumeExportError(
            f"{output} can not be written: {reason}.", fix="free space or choose another --output; nothing was left behind"
        ) from error
