"""embed."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import msgspec

from ..embed_file import check_output_file, embed_to_file, embed_to_lines, inputs_from_arguments, inputs_from_file
from ..embed_file.embed import Skipped
from ..preprocess import NoticeTally
from ..runtime.embedder import Embedder
from .console import print_notices, progress
from .documents import EmbeddingDocument, EmbedDocument, SkippedDocument
from .media import media_options
from .messages import note, warn
from .switches import Answer, command, switches

_SETTINGS = ("mode", "steps", "threads", "allow_control_tokens", "exif_transpose", "video_frames", "video_fps")
_OUTPUT_HELP = ".npy, .jsonl or .parquet.  [default: JSON lines on stdout, as they come]"
_RESUME_HELP = "Go on with what a stopped run to the same --output has done."


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1)
@click.option("--text", help="Text to embed, alone or with each file.")
@click.option("--input", "inputs", type=click.Path(path_type=Path), help="JSON lines with id, text, image, video.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help=_OUTPUT_HELP)
@click.option("--resume", is_flag=True, help=_RESUME_HELP)
@click.option("--mode", type=click.Choice(["gen", "disc"]), default="gen", show_default=True, help="disc: no rollout.")
@click.option("--steps", type=int, help="Shorten the rollout (0: none), for ablations.")
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: 8, or the most that the bundle serves]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one operator.")
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="For a bad input.")
@click.option("--allow-control-tokens", is_flag=True, help="Control tokens typed in a text act, as in the published code.")
@media_options
def embed(
    bundle: Path,
    files: tuple[str, ...],
    text: str | None,
    inputs: Path | None,
    output: Path | None,
    resume: bool,
    **options: Any,
) -> Answer:
    """Embed texts, images and videos with a bundle."""
    if inputs is not None and (files or text is not None):
        raise click.UsageError("--input can not be combined with FILES or --text")
    if inputs is None and not files and text is None:
        raise click.UsageError("nothing to embed: give FILES, --text or --input")
    if resume and output is None:
        raise click.UsageError("--resume goes on with a file: give --output")
    if output is not None:
        check_output_file(output)
        _check_is_no_input(output, [*files, *([] if inputs is None else [inputs])])
    given = inputs_from_file(inputs) if inputs is not None else inputs_from_arguments(files, text)
    settings = {name: options[name] for name in _SETTINGS}
    batching = {name: options[name] for name in ("batch_size", "on_error")}
    tally = NoticeTally()
    with (
        Embedder(bundle, **settings) as embedder,
        progress(given.count, "inputs", is_shown=output is not None or not sys.stdout.isatty()) as advance,
    ):
        if output is None:
            collected = BytesIO()
            lines = collected if switches().as_json else sys.stdout.buffer
            skipped = embed_to_lines(embedder, given, lines, advance=advance, notify=tally.add, **batching)
        else:
            with _hint_to_resume():
                skipped = embed_to_file(
                    embedder, given, output, is_resumed=resume, advance=advance, notify=tally.add, **batching
                )
    for name, reason in skipped:
        warn(f"skipped {name}: {reason}")
    print_notices(tally)
    if output is not None:
        return Answer(_document(output, skipped), partial(click.echo, str(output)))
    rows = msgspec.json.Decoder(EmbeddingDocument).decode_lines(collected.getvalue())
    return Answer(_document(None, skipped, rows), lambda: None)


def _document(output: Path | None, skipped: Sequence[Skipped], rows: list[EmbeddingDocument] | None = None) -> EmbedDocument:
    return EmbedDocument(None if output is None else str(output), [SkippedDocument(*pair) for pair in skipped], rows)


def _check_is_no_input(output: Path, inputs: Sequence[str | Path]) -> None:
    if any(output.resolve() == Path(file).resolve() for file in inputs):
        raise click.UsageError(f"--output {output} is what is embedded; it would be lost")


@contextmanager
def _hint_to_resume() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("what is done is kept: the same command with --resume goes on")
        raise


COMMANDS = (embed,)
