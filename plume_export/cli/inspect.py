"""The command `inspect`."""

from functools import partial
from pathlib import Path

import click
import msgspec

from ..builders.tensorrt.engine_layers import EngineLayer, dtypes_of, layers_of_engine
from ..bundle import Bundle, CheckpointOrigin, Manifest, ProductWeights, open_bundle
from ..spec import GraphName, TensorSpec
from .console import print_engines, print_quantisation, print_table
from .switches import Answer, command

_PROCESSORS: dict[ProductWeights, str] = {"int8": "for ARM, or x86 with VNNI", "uint8": "for x86 without VNNI"}


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--layers", "with_layers", is_flag=True, help="List the layers of each engine with the dtypes of their outputs.")
def inspect(bundle: Path, with_layers: bool) -> Answer:
    """Show a bundle's properties and verify the hash of every file. --json prints the manifest; with --layers it prints the
    layers instead.
    """
    opened = open_bundle(bundle, verify_hashes="always")
    layers = {graph: layers_of_engine(opened, graph) for graph in opened.manifest.graphs} if with_layers else {}
    return Answer(layers if with_layers else opened.manifest, partial(_print_inspection, opened, layers))


def _print_inspection(bundle: Bundle, layers: dict[GraphName, tuple[EngineLayer, ...]]) -> None:
    _print_bundle(bundle)
    for graph, listed in layers.items():
        _print_layers(graph, listed)


def _print_bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    click.echo(f"{bundle.path}  {manifest.backend} {manifest.precision}, modalities {manifest.modalities}")
    size = sum(entry.bytes for entry in manifest.files.values())
    click.echo(f"bundle {bundle.sha256[:12]}, {size:,} bytes; all file hashes match")
    _print_checkpoint(manifest.checkpoint)
    click.echo("made with " + ", ".join(f"{package} {version}" for package, version in manifest.versions.items()))
    for name, part in msgspec.to_builtins(manifest.model).items():
        click.echo(f"{name}: " + ", ".join(f"{key} {value!r}" for key, value in part.items()))
    if manifest.quantisation is not None:
        print_quantisation(manifest.quantisation, manifest.backend)
    if manifest.product_weights is not None:
        click.echo(f"matmuls take their integer weights as {manifest.product_weights}, {_PROCESSORS[manifest.product_weights]}")
    if manifest.cached_start is not None:
        start = manifest.cached_start
        tokens = f"first {start.any_prompt_tokens} tokens of any prompt and of the first {start.text_tokens} of a text prompt"
        click.echo(f"prefill contains the cached keys and values of the {tokens}")
    for graph in manifest.graphs:
        _print_tensors(manifest, graph)
    if manifest.engines is not None:
        print_engines(manifest.engines)
    for name, entry in manifest.files.items():
        click.echo(f"{entry.bytes:>14,}  {entry.sha256[:12]}  {name}")


def _print_checkpoint(origin: CheckpointOrigin) -> None:
    hashes = {"tensors": origin.tensors_sha256, "config.json": origin.config_sha256}
    reported = "".join(f"; sha256 of {part} {sha256}" for part, sha256 in hashes.items() if sha256 is not None)
    click.echo(f"checkpoint {origin}{reported}")


def _print_tensors(manifest: Manifest, graph: GraphName) -> None:
    """Print a graph's inputs and outputs. For an engine, also print min, opt and max shapes and the number of weight inputs."""
    entry = None if manifest.engines is None else manifest.engines.graphs[graph]
    click.echo(f"{graph}:" if entry is None else f"{graph}: (shapes: min, opt, max)")
    for tensor in manifest.graphs[graph].inputs:
        shapes = () if entry is None else entry.profile.get(tensor.name, ())
        click.echo(f"  in  {_text_of(tensor)}" + "".join(f"  {'x'.join(map(str, shape))}" for shape in shapes))
    if entry is not None and entry.shared_weights:
        click.echo(f"  in  {len(entry.shared_weights)} tensors of weights.safetensors")
    for tensor in manifest.graphs[graph].outputs:
        click.echo(f"  out {_text_of(tensor)}")


def _text_of(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(str(axis) for axis in tensor.axes)}]"


def _print_layers(graph: GraphName, layers: tuple[EngineLayer, ...]) -> None:
    from rich.table import Table

    table = Table(title=f"{graph}: {len(layers)} layers", title_justify="left")
    for column in ("layer", "kind", "writes"):
        table.add_column(column, overflow="fold")
    for layer in layers:
        table.add_row(layer.name, layer.kind, dtypes_of(layer))
    print_table(table)


COMMANDS = (inspect,)
