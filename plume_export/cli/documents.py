"""JSON documents of the commands that write a file or a bundle."""

from pathlib import Path

import msgspec

from ..bundle import Backend, Bundle, EngineManifest, Modalities, Quantisation
from ..machine.checks import State
from ..machine.verdict import Verdict
from ..selftest import SelftestReport
from ..spec import Precision


class MadeDocument(msgspec.Struct, frozen=True):
    """A file or directory that was written."""

    path: str


class BundleDocument(msgspec.Struct, frozen=True):
    """A bundle that was written. If no self-test ran, `selftest` is null and `no_selftest` gives the reason."""

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
    """An input that was skipped. `line` is its line number, if it came from JSON lines."""

    input: str
    reason: str
    line: int | None = None


class EmbeddingDocument(msgspec.Struct, frozen=True):
    """One embedding, in the output dtype."""

    id: str
    embedding: list[int | float]


class EmbedDocument(msgspec.Struct, frozen=True):
    """The result of `embed`. `path` is null if nothing was written. `embeddings` are included only without an output file."""

    path: str | None
    skipped: list[SkippedDocument]
    embeddings: list[EmbeddingDocument] | None
    embedded: int = 0
    repeated_ids: list[str] = []
    blank_lines: int = 0


class CheckDocument(msgspec.Struct, frozen=True):
    """One check of `doctor`. `found` is null if the thing is missing or unusable."""

    name: str
    state: State
    found: str | None
    fix: str
    is_optional: bool


class DoctorDocument(msgspec.Struct, frozen=True):
    """The checks of `doctor`, and a summary of what works on this machine."""

    checks: list[CheckDocument]
    verdict: Verdict


def document_from_bundle(
    bundle: Bundle, selftest: SelftestReport | None = None, no_selftest: str | None = None
) -> BundleDocument:
    """Return the JSON document of a bundle that was written."""
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
    """Return the JSON document of a file or directory that was written."""
    return MadeDocument(str(path))
