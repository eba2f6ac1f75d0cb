"""embed."""

import sys
from pathlib import Path
from typing import Any

import click

from ..embed_file import (
    check_output_file,
    embed_sources,
    sources_from_arguments,
    sources_from_file,
    write_embeddings,
    write_jsonl,
)
from ..runtime.embedder import Embedder
from .console import progress

_OUTPUT_HELP = ".npy, .jsonl or .parquet.  [default: JSON lines on stdout]"


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1)
@click.option("--text", help="Text to embed, alone or with each file.")
@click.option("--input", "inputs", type=click.Path(path_type=Path), help="JSON lines with id, text, image, video.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help=_OUTPUT_HELP)
@click.option("--mode", type=click.Choice(["gen", "disc"]), default="gen", show_default=True, help="disc: no rollout.")
@click.option("--steps", type=int, help="Shorten the rollout (0: none), for ablations.")
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: 8, or the most that the bundle serves]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one operator.")
@click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="For a bad input.")
@click.option("--allow-control-tokens", is_flag=True, help="Control tokens typed in a text act, as in the published code.")
def embed(
    bundle: Path, files: tuple[str, ...], text: str | None, inputs: Path | None, output: Path | None, **options: Any
) -> None:
    """Embed texts, images and videos with a bundle."""
    if inputs is not None and (files or text is not None):
        raise click.UsageError("--input can not be combined with FILES or --text")
    if inputs is None and not files and text is None:
        raise click.UsageError("nothing to embed: give FILES, --text or --input")
    if output is not None:
        check_output_file(output)
    sources = sources_from_file(inputs) if inputs is not None else sources_from_arguments(files, text)
    settings = {name: options[name] for name in ("mode", "steps", "threads", "allow_control_tokens")}
    batching = {name: options[name] for name in ("batch_size", "on_error")}
    with Embedder(bundle, **settings) as embedder, progress(len(sources), "inputs") as advance:
        result = embed_sources(embedder, sources, advance=advance, **batching)
    for name, reason in result.skipped.items():
        click.echo(f"skipped {name}: {reason}", err=True)
    if output is not None:
        write_embeddings(result, output)
        click.echo(str(output))
    else:
        write_jsonl(result, sys.stdout.buffer)


COMMANDS = (embed,)
