"""Output of the commands: results as text on stdout, progress bars on stderr."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..builders.tensorrt.audit import audit_engine
from ..builders.tensorrt.engine import Progress as BuildStep
from ..builders.tensorrt.tensorrt_bundle import BuildProgress
from ..bundle import Backend, EngineManifest, Quantisation
from ..inputs import NoticeTally
from ..memory_plan import CONTEXT_BYTES, Plan, nearest_text
from ..parity.table import table_from_report, verdict
from ..printable import printable
from ..progress import Advance, progress_bar
from ..recipe import Recipe
from ..search.search import SearchResult
from ..selftest import SelftestReport
from .messages import has_bars, warn

if TYPE_CHECKING:
    from rich.table import Table


def progress(total: int | None, unit: str, *, is_shown: bool = True) -> AbstractContextManager[Advance]:
    """Show a progress bar if stderr is a terminal; yield the function that advances it.

    The bar shows the rate and the time left. If `total` is None, the number of units is unknown.
    """
    return progress_bar(total, unit, is_shown=is_shown and has_bars())


@contextmanager
def build_progress() -> Iterator[BuildProgress]:
    """Show the progress of the engine builder if stderr is a terminal. Prints nothing if no engine is built."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not has_bars())
    tasks: dict[tuple[str, str], TaskID] = {}

    def show(graph: str, step: BuildStep) -> None:
        bar.start()
        key = (graph, step.phase)
        if key not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[key] = bar.add_task(f"{graph}: {step.phase}", total=step.steps)
        bar.update(tasks[key], completed=step.done, total=step.steps)

    try:
        yield show
    finally:
        if tasks:
            bar.stop()


def html_file(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Return the path of the page. Reject other suffixes: the file is overwritten, and could be one of the user's images."""
    if value is not None and value.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{value} does not end in .html")
    return value


def print_quantisation(quantisation: Quantisation, backend: Backend) -> None:
    """Print which graphs are quantised, which layers stayed in 16 bit, and how far the embeddings changed."""
    graphs = ", ".join(f"{graph} {precision}" for graph, precision in quantisation.graphs.items())
    click.echo(f"quantised: {graphs}; calibrated on {quantisation.calibration_inputs} inputs")
    if quantisation.quantizer != "own":
        click.echo(f"quantised by {quantisation.quantizer}; everything else is float32")
    if quantisation.weight_only:
        click.echo(f"activations in 16 bit: {len(quantisation.weight_only)} layers, {', '.join(quantisation.weight_only)}")
    if quantisation.kept:
        more = sum(quantisation.kept.values())
        click.echo(f"excluded (16 bit): {len(quantisation.kept)} layers, {more:,} bytes larger")
        for layer, more_bytes in quantisation.kept.items():
            click.echo(f"  {layer}: {more_bytes:,}")
    if backend == "onnxruntime":
        click.echo(
            "cosine with fp32: unknown, because the portable bundle's figures do not apply to compiled graphs; measure it "
            "with evaluate --compare"
        )
        return
    threshold = "no threshold" if quantisation.min_cosine is None else f"threshold {quantisation.min_cosine}"
    found = quantisation.measured
    result = (
        "not measured"
        if found is None
        else f"{found.mean:.5f} mean, {found.worst:.5f} minimum of {found.inputs} held-out inputs"
    )
    click.echo(f"cosine with fp32: {result} ({threshold})")


def print_engines(engines: EngineManifest) -> None:
    """Print the sizes of each engine, as its builder reported them."""
    from rich.table import Table

    table = Table(title=f"engines for {engines.target} ({engines.device}), {engines.flavour_version}", title_justify="left")
    for column in ("engine", "file MB", "weights MB", "activations MB", "build time s", "peak MB of the build"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name, entry in engines.graphs.items():
        sizes = (entry.bytes, entry.weights_bytes, entry.activation_bytes, entry.build_peak_memory_bytes)
        file, weights, activations, peak = ("?" if size is None else f"{size / 1e6:,.1f}" for size in sizes)
        table.add_row(name, file, weights, activations, f"{entry.build_seconds:.1f}", peak)
    print_table(table)
    _print_audits(engines)


def _print_audits(engines: EngineManifest) -> None:
    """Print each engine's audit: ratios of file, weights and graph, and the findings (see builders/tensorrt/audit.py)."""
    from rich.table import Table

    table = Table()
    names = ("engine", "layers", "code, kB per layer", "file / weights", "weights / graph's weights", "MB copied per run")
    for column in names:
        table.add_column(column, justify="left" if column == "engine" else "right")
    findings = []
    for name, entry in engines.graphs.items():
        audit = audit_engine(entry)
        layers = "?" if entry.layers is None else str(entry.layers)
        code = "?" if audit.code_bytes_of_layer is None else f"{audit.code_bytes_of_layer / 1e3:.1f}"
        ratios = (audit.engine_over_weights, audit.weights_over_initializers)
        file, weights = ("?" if ratio is None else f"{ratio:.3f}" for ratio in ratios)
        copied = "?" if audit.copied_weight_bytes is None else f"{audit.copied_weight_bytes / 1e6:,.1f}"
        table.add_row(name, layers, code, file, weights, copied)
        findings += [f"note: the engine of {name} {finding.text}" for finding in audit.findings]
    print_table(table)
    if engines.duplicate_bytes is not None:
        click.echo(f"weights in more than one engine: {engines.duplicate_bytes / 1e6:,.1f} MB")
    for finding in findings:
        click.echo(finding)


def print_plan(plan: Plan, nearest: Plan | None) -> None:
    """Print the parts of a plan, whether it fits in the device's memory, and the nearest plan that fits."""
    from rich.table import Table

    batch, tokens, image = (shape.max for shape in (plan.shapes.batch, plan.shapes.prompt_tokens, plan.shapes.image_tokens))
    title = f"{plan.target}, {plan.precision}, weights {plan.weights}: batch {batch}, prompt {tokens}, image {image} tokens"
    table = Table(title=title, title_justify="left")
    table.add_column("device memory")
    table.add_column("MB", justify="right")
    rows = {f"engine {name}": size for name, size in plan.engines.items()}
    rows |= {"weights, shared": plan.shared_weights} if plan.shared_weights else {}
    rows |= {f"activations (the largest: {max(plan.activations, key=plan.activations.__getitem__)})": plan.largest_activations}
    rows |= {"prefix cache": plan.prefix_cache, "buffers": plan.buffers, "CUDA context (estimate)": CONTEXT_BYTES}
    for name, size in rows.items():
        table.add_row(name, f"{size / 1e6:,.0f}")
    table.add_row("total", f"{plan.total / 1e6:,.0f}")
    if plan.device_bytes is not None:
        table.add_row("available on the device", f"{plan.device_bytes / 1e6:,.0f}")
    print_table(table)
    if plan.fits is False:
        click.echo(f"does not fit: {(plan.total - (plan.device_bytes or 0)) / 1e6:,.0f} MB too much")
        click.echo(nearest_text(nearest))
    elif plan.fits and plan.device_bytes is not None:
        click.echo(f"fits: {(plan.device_bytes - plan.total) / 1e6:,.0f} MB to spare")


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Print the built-in targets."""
    from rich.table import Table

    table = Table(caption="maximum: batch, tokens per prompt, tokens per image", caption_justify="left")
    for column in ("target", "backend", "precision", "largest"):
        table.add_column(column)
    for name, recipe in recipes.items():
        fields = () if recipe.shapes is None else ("batch", "prompt_tokens", "image_tokens")
        largest = ", ".join(str(getattr(recipe.shapes, field).max) for field in fields) or "any"
        table.add_row(f"{name}\n{recipe.description}", recipe.backend, recipe.precision, largest)
    print_table(table)


def print_table(table: "Table") -> None:
    """Print a rich table as plain text that fits the terminal and can be pasted anywhere."""
    from .fitted_table import terminal_width, text_from_table

    click.echo(text_from_table(table, terminal_width()), nl=False)


def print_hits(result: SearchResult) -> None:
    """Print the ranked files of a search."""
    from rich.table import Table

    title = f"{result.pictures} images in {printable(str(result.folder))}, {result.embedded} new"
    table = Table(title=title, title_justify="left", caption="score: cosine with the query, -1 to 1", caption_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("file", overflow="fold")
    for rank, hit in enumerate(result.hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", result.shown_name(hit.file))
    print_table(table)


def print_notices(tally: NoticeTally) -> None:
    """Print a run's notices about its inputs to stderr."""
    for line in tally.lines():
        warn(line)


def print_selftest(report: SelftestReport) -> None:
    """Print a self-test as text that can be pasted into a bug report."""
    print_table(table_from_report(report.parity, f"self-test of bundle {report.bundle}: {report.backend}"))
    click.echo(verdict(report.parity))
    click.echo(f"machine: {report.machine}, Python {report.python}")
    stages = ", ".join(f"{stage} {value:.1f} ms" for stage, value in report.milliseconds_per_input.items())
    click.echo(f"latency per input: {stages}")
    click.echo(f"peak memory: {report.peak_memory_mb:.0f} MB")
