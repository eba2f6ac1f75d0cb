"""inspect."""

from pathlib import Path

import click
import msgspec

from ..bundle import open_bundle
from .console import print_engines


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a bundle is and verify every file's hash."""
    opened = open_bundle(bundle)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(opened.manifest), indent=2))
        return
    manifest = opened.manifest
    click.echo(f"{opened.path}  {manifest.backend} {manifest.precision}, modalities {manifest.modalities}")
    click.echo(f"checkpoint {manifest.checkpoint}; made with " + ", ".join(f"{k} {v}" for k, v in manifest.versions.items()))
    for name, part in msgspec.to_builtins(manifest.model).items():
        click.echo(f"{name}: " + ", ".join(f"{key} {value!r}" for key, value in part.items()))
    for graph, spec in manifest.graphs.items():
        click.echo(f"{graph}:")
        for direction, tensors in (("in", spec.inputs), ("out", spec.outputs)):
            for tensor in tensors:
                axes = ", ".join(str(axis) for axis in tensor.axes)
                click.echo(f"  {direction:3} {tensor.name} {tensor.dtype} [{axes}]")
    if manifest.engines is not None:
        print_engines(manifest.engines)
    for name, entry in manifest.files.items():
        click.echo(f"{entry.bytes:>14,}  {entry.sha256[:12]}  {name}")


COMMANDS = (inspect,)
