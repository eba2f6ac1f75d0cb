"""The command `embed`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import msgspec

from ..embed_file import RunSummary, check_output_file, embed_to_file, embed_to_lines, stopped_run
from ..errors import PlumeExportError
from ..inputs import Inputs, NoticeTally, inputs_from_arguments, inputs_from_file, inputs_from_stream
from ..runtime.embedder import Embedder
from ..runtime.output_rows import OUTPUT_DTYPES, check_output_dtype
from .console import print_notices, progress
from .documents import EmbeddingDocument, EmbedDocument, SkippedDocument
from .messages import note, warn
from .shared_options import media_options, run_options, verify_option
from .streams import printing
from .switches import Answer, command, switches

_SETTINGS = ("mode", "steps", "threads", "allow_control_tokens", "exif_transpose", "video_frames", "video_fps", "verify_hashes")
_STDIN = Path("-")
_INPUT_HELP = (
    'JSON lines with id, text, image, video; or "-" for stdin, with paths relative to the current directory. '
    "If there are no lines, the output is empty and a warning is shown."
)
_OUTPUT_HELP = ".npy, .jsonl or .parquet.  [default: JSON lines on stdout, as embeddings are computed]"
_RESUME_HELP = "Continue an interrupted run with the same --output."
_RESTART_HELP = "Discard an interrupted run with the same --output and start again."
_DTYPE_HELP = "int8: round(127 x). binary: the bits of x > 0, packed as by numpy.packbits."


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1)
@click.option("--text", help="Text to embed, alone or together with each file.")
@click.option("--input", "inputs", type=click.Path(path_type=Path), help=_INPUT_HELP)
@click.option("--output", "-o", type=click.Path(path_type=Path), help=_OUTPUT_HELP)
@click.option("--output-dtype", type=click.Choice(OUTPUT_DTYPES), default="float32", show_default=True, help=_DTYPE_HELP)
@click.option("--resume", is_flag=True, help=_RESUME_HELP)
@click.option("--restart", is_flag=True, help=_RESTART_HELP)
@run_options
@click.option(
    "--allow-control-tokens",
    is_flag=True,
    help="Interpret control tokens in input text, as the original code does.  [default: treat them as plain text]",
)
@media_options
@verify_option
def embed(
    bundle: Path,
    files: tuple[str, ...],
    text: str | None,
    inputs: Path | None,
    output: Path | None,
    resume: bool,
    restart: bool,
    **options: Any,
) -> Answer:
    """Embed texts, images and videos with a bundle. A folder in FILES stands for all images and videos below it."""
    _check_choice(inputs, files, text)
    _check_resumption(output, resume=resume, restart=restart)
    if output is not None:
        check_output_file(output, [*map(Path, files), *([] if inputs is None else [inputs])])
        is_skipping = options["on_error"] == "skip" and output.suffix == ".npy"
        check_output_dtype(options["output_dtype"], is_skipping=is_skipping)
        _look_for_stopped_run(output, resume=resume, restart=restart)
    given = _inputs(inputs, files, text)
    settings = {name: options[name] for name in _SETTINGS}
    writing = {name: options[name] for name in ("batch_size", "on_error", "output_dtype")}
    tally, collected = NoticeTally(), BytesIO()
    with (
        Embedder(bundle, **settings) as embedder,
        progress(given.count, "inputs", is_shown=output is not None or not _is_terminal()) as advance,
    ):
        watch: dict[str, Any] = {"advance": advance, "notify": tally.add}
        if output is None:
            lines = collected if switches().as_json else _stdout()
            with printing():
                summary = embed_to_lines(embedder, given, lines, **watch, **writing)
        else:
            with _hint_to_resume(output):
                summary = embed_to_file(embedder, given, output, is_resumed=resume, is_restarted=restart, **watch, **writing)
    _print_summary(summary, tally, "standard input" if inputs == _STDIN else inputs)
    summary.check()
    if output is not None:
        return Answer(_document(output, summary), partial(click.echo, str(output)))
    rows = msgspec.json.Decoder(EmbeddingDocument).decode_lines(collected.getvalue())
    return Answer(_document(None, summary, rows), lambda: None)


def _check_choice(inputs: Path | None, files: Sequence[str], text: str | None) -> None:
    if inputs is not None and (files or text is not None):
        raise click.UsageError("--input cannot be combined with FILES or --text")
    if inputs is None and not files and text is None:
        raise click.UsageError("nothing to embed: give FILES, --text or --input")


def _check_resumption(output: Path | None, *, resume: bool, restart: bool) -> None:
    if output is None and (resume or restart):
        raise click.UsageError("--resume and --restart need a file to continue or replace: give --output")
    if resume and restart:
        raise click.UsageError("--resume and --restart exclude each other")


def _print_summary(summary: RunSummary, tally: NoticeTally, inputs: Path | str | None) -> None:
    for skipped in summary.skipped:
        warn(f"skipped {skipped.id}: {skipped.reason}")
    print_notices(tally)
    if summary.embedded == 0 and not summary.skipped:
        warn(f"{inputs} contains no inputs; the output is empty")
    for line in summary.lines():
        note(line)


def _inputs(inputs: Path | None, files: Sequence[str], text: str | None) -> Inputs:
    if inputs == _STDIN:
        return inputs_from_stream(None if sys.stdin is None else sys.stdin.buffer)
    given = inputs_from_arguments(files, text) if inputs is None else inputs_from_file(inputs)
    if given.left_out:
        first, reason = next(iter(given.left_out.items()))
        more = f" and {len(given.left_out) - 1} more" if len(given.left_out) > 1 else ""
        note(f"skipped in the folders: {first}{more} ({reason})")
    return given


def _look_for_stopped_run(output: Path, *, resume: bool, restart: bool) -> None:
    """Raise the error of `embed_to_file` for an interrupted run, but early: before the bundle is opened."""
    stopped = stopped_run(output)
    if stopped is None and resume:
        note(f"no interrupted run found for {output}; starting from the beginning")
    if stopped is not None and not (resume or restart):
        raise stopped.refusal(output)


def _document(output: Path | None, summary: RunSummary, rows: list[EmbeddingDocument] | None = None) -> EmbedDocument:
    skipped = [SkippedDocument(*one) for one in summary.skipped]
    path = None if output is None else str(output)
    return EmbedDocument(path, skipped, rows, summary.embedded, summary.repeated_ids, summary.blank_lines)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _stdout() -> Any:
    if sys.stdout is None:
        raise PlumeExportError("Standard output is closed.", fix="write to a file with --output")
    return sys.stdout.buffer


@contextmanager
def _hint_to_resume(output: Path) -> Iterator[None]:
    """On SIGINT, SIGTERM or SIGHUP, print how to continue. After SIGHUP there may be no terminal to print to."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        with suppress(OSError, PlumeExportError):  # another run may be writing the file by now
            stopped = stopped_run(output)
            if stopped is None:
                note("interrupted before any input was finished")
            elif stopped.inputs is None:
                note(
                    "interrupted: the journal of the finished inputs is corrupt; repeat the command with --restart to "
                    "start again"
                )
            else:
                note(f"interrupted: {stopped.inputs} finished inputs are saved; repeat the command with --resume to continue")
        raise


COMMANDS = (embed,)
