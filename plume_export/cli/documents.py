"""The JSON documents of commands whose result is something that they made."""

from pathlib import Path

import msgspec

from ..bundle import Backend, Bundle, EngineManifest, Modalities, Quantisation
from ..selftest import SelftestReport
from ..spec import Precision


class MadeDocument(msgspec.Struct, frozen=True):
    """A file or directory that was written."""

    path: str


class BundleDocument(msgspec.Struct, frozen=True):
    """A bundle that was written. `selftest` is null where none was run, `no_selftest` says why."""

    path: str
    sha256: str
    bytes: int
    backend: Backend
    precision: Precision
    modalities: Modalities
    quantisation: Quantisation | None
    engines: EngineManifest | None
    selftest: SelftestReport | None = None
    no_selftest: str | None = None


class SkippedDocument(msgspec.Struct, frozen=True):
    """An input that was left out. `line` is the number of its line, if it has one."""

    input: str
    reason: str
    line: int | None = None


class EmbeddingDocument(msgspec.Struct, frozen=True):
    """One embedding, in the output dtype."""

    id: str
    embedding: list[int | float]


class EmbedDocument(msgspec.Struct, frozen=True):
    """What `embed` did. `path` is null if nothing was written, `embeddings` are here only where no output file was named."""

    path: str | None
    skipped: list[SkippedDocument]
    embeddings: list[EmbeddingDocument] | None
    embedded: int = 0
    repeated_ids: list[str] = []


def document_from_bundle(
    bundle: Bundle, selftest: SelftestReport | None = None, no_selftest: str | None = None
) -> BundleDocument:
    """Return what a command says of a bundle that it made."""
    manifest = bundle.manifest
    return BundleDocument(
        str(bundle.path),
        bundle.sha256,
        sum(entry.bytes for entry in manifest.files.values()),
        manifest.backend,
        manifest.precision,
        manifest.modalities,
        manifest.quantisation,
        manifest.engines,
        selftest,
        no_selftest,
    )


def document_from_path(path: Path) -> MadeDocument:
    """Return what a command says of a file or directory that it made."""
    return MadeDocument(str(path))
