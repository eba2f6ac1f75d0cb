"""Measure activation ranges: run the float32 model once over the calibration inputs."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from ..checkpoint import Checkpoint, checkpoint_sha256, tokenizer_json_from_checkpoint
from ..errors import InputError, PlumeExportError
from ..inputs import Item, PreparedInput, Preprocessor, Source, sources_from_file
from ..progress import Report, detail_of
from ..samples import calibration_inputs_file
from .activation_ranges import FORMAT_VERSION, MODALITIES, About, Modality, Ranges, read_ranges
from .observe import Observer
from .streamed_model import NamedInput, StreamedModel


def calibrate(checkpoint: Checkpoint, inputs_file: Path, report: Report = lambda _: None) -> Ranges:
    """Return the ranges of every linear layer over the inputs of a JSON lines file, in the format of `embed --input`.

    Memory stays bounded by a layer, a batch's activations and the inputs' pixels. Raises InputError for an input that cannot
    be read. Raises PlumeExportError if there are no inputs, and if the model computes NaN or infinity.
    """
    sources = sources_from_file(inputs_file)
    if not sources:
        raise PlumeExportError(
            f"The calibration inputs {inputs_file} are empty; expected a few dozen inputs, one per line.",
            fix="add inputs to the file, or omit --inputs to use the included set",
        )
    detail_of(report)(f"reading {len(sources)} inputs")
    items = [source.read() for source in sources]
    preprocessor = Preprocessor(
        tokenizer_json_from_checkpoint(checkpoint.directory, checkpoint.model.decoder.vocab), checkpoint.model
    )
    inputs = [_prepared(source, item, preprocessor) for source, item in zip(sources, items, strict=True)]
    observer = Observer()
    StreamedModel(checkpoint, observer, report).embed(inputs, preprocessor.suffix_ids)
    detail_of(report)("hashing the checkpoint")
    about = About(
        format_version=FORMAT_VERSION,
        checkpoint=checkpoint.name,
        checkpoint_sha256=checkpoint_sha256(checkpoint.tensors),
        inputs=len(inputs),
        inputs_sha256=inputs_sha256([item.prepared for item in inputs]),
        modalities=_modalities_of(items),
    )
    return Ranges(about, observer.linears)


def coverage_warning(about: About) -> str | None:
    """Return a text about what is not covered if all inputs have the same modality, and otherwise None."""
    if len(about.modalities) > 1:
        return None
    (only,) = about.modalities
    missing = " and ".join(f"{modality}s" for modality in MODALITIES if modality != only)
    vision = "; the vision encoder was not run at all" if only == "text" else ""
    return f"all {about.inputs} calibration inputs are {only} only: {missing} are not covered{vision}"


def _prepared(source: Source, item: Item, preprocessor: Preprocessor) -> NamedInput:
    try:
        return NamedInput(source.id, preprocessor.prepare(item))
    except InputError as error:
        error.add_place(f"input {source.id!r}")
        raise


def _modalities_of(items: Sequence[Item]) -> tuple[Modality, ...]:
    is_there: dict[Modality, bool] = {
        "text": any(item.text.strip() for item in items),
        "image": any(item.images for item in items),
        "video": any(item.video is not None for item in items),
    }
    return tuple(modality for modality in MODALITIES if is_there[modality])


def inputs_sha256(inputs: Sequence[PreparedInput]) -> str:
    """Hash the inputs of the model: token ids and pixels."""
    digest = sha256()
    for item in inputs:
        digest.update(item.input_ids.tobytes())
        for medium in item.media:
            digest.update(medium.patches.normalised().tobytes())
    return digest.hexdigest()


def ranges_of(checkpoint: Checkpoint, file: Path | None, report: Report = lambda _: None) -> Ranges:
    """Read the ranges from a file. Without a file, report it and calibrate with the included inputs.

    Raises like `read_ranges` and `calibrate`.
    """
    if file is not None:
        return read_ranges(file, checkpoint_sha256(checkpoint.tensors))
    report("calibrating with the included inputs (no --ranges)")
    return calibrate(checkpoint, calibration_inputs_file(), report)
