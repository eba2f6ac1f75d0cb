"""The self-test in a bundle: a few inputs, their reference outputs, and a comparison on this machine."""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from .bundle import SELFTEST_INPUTS, SELFTEST_STAGES, Bundle, Modalities, open_bundle
from .errors import BundleError
from .inputs import Item, item_from_json, sources_from_file
from .machine.cores import check_threads, logical_cpu_count
from .machine.resident_memory import resident_memory
from .npz_file import read_npz
from .parity import ParityReport, compare_inputs
from .runtime.embedder import Embedder
from .stages import Stages

if TYPE_CHECKING:
    from .reference import Reference, ReferenceProcessor

# Number of inputs to capture: enough for a text, an image and both, but small.
CAPTURED_INPUTS = 3
_TIMED_RUNS = 3


class SelftestReport(msgspec.Struct, frozen=True):
    """Parity, latency and memory of a bundle on this machine."""

    bundle: str
    backend: str
    machine: str
    python: str
    parity: ParityReport
    milliseconds_per_input: dict[str, float]
    peak_memory_mb: float


def capture_selftest(
    directory: Path, inputs: Path, processor: "ReferenceProcessor", reference: "Reference", modalities: Modalities
) -> None:
    """Copy the first inputs into a bundle that is being written, with the reference's outputs of every stage."""
    stages: dict[str, Any] = {}
    target = directory / SELFTEST_INPUTS
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8") as file:
        for name, line in _captured_lines(inputs, modalities):
            item = item_from_json(json.dumps(line), inputs.parent)
            for field, value in vars(reference.stages(processor(item))).items():
                stages[f"{name}/{field}"] = value
            file.write(json.dumps(_with_copied_media(line, inputs.parent, target.parent)) + "\n")
    np.savez_compressed(directory / SELFTEST_STAGES, **stages)


def run_selftest(
    bundle: str | os.PathLike[str] | Bundle, *, threads: int | None = None, verify_hashes: bool = True
) -> SelftestReport:
    """Run the captured inputs on this machine and compare with the reference. Raises BundleError if there is no self-test."""
    check_threads(threads)
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, verify_hashes=verify_hashes)
    items, expected = _read_captured(bundle)
    manifest = bundle.manifest
    with Embedder(bundle, threads=threads) as embedder:
        actual = {item.id or "": embedder.stages(item) for item in items}
        embedder.stopwatch.reset()
        for _ in range(_TIMED_RUNS):
            embedder.embed(items, batch_size=1)
        seconds = dict(embedder.stopwatch.seconds)
    runs = _TIMED_RUNS * len(items)
    return SelftestReport(
        bundle=bundle.sha256[:12],
        backend=f"{manifest.backend} {manifest.precision}",
        machine=f"{platform.system()} {platform.machine()}, {logical_cpu_count()} cores",
        python=platform.python_version(),
        parity=compare_inputs(expected, actual, precision=manifest.precision, top_k=manifest.model.transition.top_k),
        milliseconds_per_input={stage: 1000 * total / runs for stage, total in seconds.items()},
        peak_memory_mb=resident_memory().peak / (1 << 20),
    )


def _captured_lines(inputs: Path, modalities: Modalities) -> Iterator[tuple[str, dict[str, object]]]:
    captured = 0
    for number, text in enumerate(inputs.read_text(encoding="utf-8").splitlines()):
        line = json.loads(text)
        if modalities == "text" and (line.get("image") or line.get("video")):
            continue
        line.setdefault("id", str(number))
        yield line["id"], line
        captured += 1
        if captured == CAPTURED_INPUTS:
            return


def _with_copied_media(line: dict[str, object], source: Path, target: Path) -> dict[str, object]:
    """Copy the media files of a line into the bundle. Return the line with paths relative to the bundle."""

    def copied(name: str) -> str:
        shutil.copyfile(source / name, target / Path(name).name)
        return Path(name).name

    result = dict(line)
    for key in ("image", "video"):
        media = line.get(key)
        if isinstance(media, str):
            result[key] = copied(media)
        elif isinstance(media, list):
            result[key] = [copied(name) for name in media]
    return result


def _read_captured(bundle: Bundle) -> tuple[list[Item], dict[str, Stages]]:
    file = bundle.file(SELFTEST_INPUTS)
    if not {SELFTEST_INPUTS, SELFTEST_STAGES} <= bundle.manifest.files.keys():
        raise BundleError(f"{bundle.path} was built without a self-test.", fix="plume-export build without --no-selftest")
    items = [source.read() for source in sources_from_file(file)]
    _check_media(bundle, items)
    fields = Stages.__dataclass_fields__
    try:
        arrays = read_npz(bundle.file(SELFTEST_STAGES))
        stages = {item.id or "": Stages(**{field: arrays[f"{item.id}/{field}"] for field in fields}) for item in items}
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{bundle.file(SELFTEST_STAGES)} cannot be used: {error}.", fix="build the bundle again") from error
    return items, stages


def _check_media(bundle: Bundle, items: Sequence[Item]) -> None:
    """Raise BundleError if a self-test uses images or videos that the manifest does not list."""
    listed = {bundle.file(name) for name in bundle.manifest.files}
    for item in items:
        for media in (*item.images, *(item.video if isinstance(item.video, tuple) else (item.video,))):
            if isinstance(media, str | os.PathLike) and Path(media) not in listed:
                raise BundleError(
                    f"The self-test of {bundle.path} uses the file {os.fspath(media)!r}, which the manifest does not list.",
                    fix="do not use this bundle; build it again, or copy it from where it was built",
                )
