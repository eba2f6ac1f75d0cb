"""int8 by different quantisers, from one checkpoint and the same inputs: python calibration/compare_quantisers.py WORK

Every bundle is made in a process of its own, from opening the checkpoint to the written bundle; what is in WORK already is not
made again. The cosines are with float32 over the held-out inputs. Prints a table in Markdown. README.md says what to install.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import click
import onnx_ir as ir
from graph_inputs import Feed
from modelopt_int8 import FeedReader, ModelOptSettings, modelopt, modelopt_name
from third_party import QuantiseFile, ThirdPartyQuantiser

from plume_export.bundle import Bundle, open_bundle
from plume_export.checkpoint import Checkpoint
from plume_export.evaluation.agreement import compare_rankings
from plume_export.evaluation.dataset import RetrievalTask, read_dataset
from plume_export.evaluation.metrics import measure_quality
from plume_export.evaluation.ranking import TaskRanking, rank_tasks
from plume_export.pipeline import ExportOptions, ModelOptions, export_checkpoint, open_checkpoint
from plume_export.quantise.folds import linear_layers
from plume_export.quantise.held_out import HeldOut
from plume_export.quantise.options import QuantiseOptions
from plume_export.runtime.embedder import Embedder
from plume_export.samples import PLUME_TINY, held_out_inputs_file
from plume_export.spec import ModelSpec

FLOAT32 = "float32"


def _float32(checkpoint: Checkpoint, output: Path) -> None:
    export_checkpoint(checkpoint, output, ExportOptions("fp32"), click.echo)


def _own(checkpoint: Checkpoint, output: Path) -> None:
    """Without an accuracy threshold, which the other quantisers do not have; it excludes no layer of plume-tiny anyway."""
    options = ExportOptions("int8", quantise=QuantiseOptions(min_cosine=0.0))
    export_checkpoint(checkpoint, output, options, click.echo)


def _by(name: str, quantise_file: Callable[[ModelSpec], QuantiseFile]) -> Callable[[Checkpoint, Path], None]:
    def make(checkpoint: Checkpoint, output: Path) -> None:
        ThirdPartyQuantiser(name, quantise_file(checkpoint.model), click.echo).export(checkpoint, output)

    return make


def _modelopt(method: Literal["entropy", "max"], *, same_layers: bool) -> Callable[[Checkpoint, Path], None]:
    def quantise_file(model: ModelSpec) -> QuantiseFile:
        if not same_layers:
            return modelopt(ModelOptSettings(method))

        def patterns(graph_file: Path) -> list[str]:
            return [f"{re.escape(name)}$" for name in own_products(graph_file, model)]

        return modelopt(ModelOptSettings(method, patterns, takes_vectors=True))

    return lambda checkpoint, output: _by(modelopt_name(), quantise_file)(checkpoint, output)


def _static(method: str, *, same_layers: bool) -> Callable[[Checkpoint, Path], None]:
    """ONNX Runtime's quantize_static: Q/DQ, weights per channel, everything symmetric int8."""

    def quantise_file(model: ModelSpec) -> QuantiseFile:
        def quantise(source: Path, target: Path, feeds: list[Feed]) -> None:
            from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

            extra: dict[str, object] = {"ActivationSymmetric": True, "WeightSymmetric": True}
            if same_layers:
                extra["OpTypesToExcludeOutputQuantization"] = ["MatMul"]  # ours quantises what goes in
            quantize_static(
                source,
                target,
                FeedReader(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[method],
                op_types_to_quantize=["MatMul"] if same_layers else ["MatMul", "Gemm", "Gather"],
                nodes_to_quantize=own_products(source, model) if same_layers else None,
                extra_options=extra,
            )

        return quantise

    return _by("quantize_static", quantise_file)


CONTENDERS: dict[str, Callable[[Checkpoint, Path], None]] = {
    FLOAT32: _float32,
    "plume-export": _own,
    "modelopt, entropy": _modelopt("entropy", same_layers=False),
    "modelopt, max": _modelopt("max", same_layers=False),
    "modelopt, entropy, our layers": _modelopt("entropy", same_layers=True),
    "modelopt, max, our layers": _modelopt("max", same_layers=True),
    "quantize_static, MinMax": _static("MinMax", same_layers=False),
    "quantize_static, MinMax, our layers": _static("MinMax", same_layers=True),
}


def own_products(graph_file: Path, model: ModelSpec) -> list[str]:
    """Return the names of the products that plume-export quantises in a float graph."""
    weights = {f"{layer}.weight" for layer in linear_layers(model)}
    products = (node for node in ir.load(graph_file).graph if node.op_type == "MatMul")
    return [str(node.name) for node in products if node.inputs[1] is not None and node.inputs[1].name in weights]


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--checkpoint", default=PLUME_TINY, show_default=True)
@click.option("--dataset", type=click.Path(path_type=Path), help="As for `evaluate`; without it the cosines alone.")
@click.option("--only", type=click.Choice(list(CONTENDERS)), help="Make this bundle, in this process, and stop.")
def main(work: Path, checkpoint: str, dataset: Path | None, only: str | None) -> None:
    """Make every bundle and measure it."""
    opened = open_checkpoint(checkpoint, ModelOptions())
    if only is not None:
        _make(opened, work, only)
        return
    for name in CONTENDERS:
        if not _costs_file(work, name).exists():
            command = [sys.executable, __file__, str(work), "--checkpoint", checkpoint, "--only", name]
            subprocess.run(command, check=True, stdout=sys.stderr)
    _measure(work, HeldOut(opened, held_out_inputs_file(), "all"), read_dataset(dataset) if dataset is not None else [])


def _make(checkpoint: Checkpoint, work: Path, name: str) -> None:
    started = time.monotonic()
    CONTENDERS[name](checkpoint, _bundle_path(work, name))
    costs = {
        "cpu_seconds": time.process_time(),
        "seconds": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    _costs_file(work, name).write_text(json.dumps(costs))


def _measure(work: Path, held_out: HeldOut, tasks: Sequence[RetrievalTask]) -> None:
    retrieval = [*(task.name for task in tasks), "same"] if tasks else []
    titles = ["", "cosine, mean and worst", *retrieval, "CPU s", "peak MB", "MB"]
    _print_row(titles)
    _print_row(["---"] * len(titles))
    reference = _rankings(open_bundle(_bundle_path(work, FLOAT32)), tasks)
    for name in CONTENDERS:
        bundle = open_bundle(_bundle_path(work, name))
        measured = held_out.measure(bundle)
        cells = [name, f"{measured.mean:.4f}, {measured.worst:.4f}"]
        if tasks:
            cells += _retrieval_cells(reference if name == FLOAT32 else _rankings(bundle, tasks), reference)
        costs = json.loads(_costs_file(work, name).read_text())
        size = sum(entry.bytes for entry in bundle.manifest.files.values())
        _print_row([*cells, f"{costs['cpu_seconds']:.0f}", f"{costs['peak_mb']:.0f}", f"{size / 1e6:.1f}"])


def _rankings(bundle: Bundle, tasks: Sequence[RetrievalTask]) -> list[TaskRanking]:
    with Embedder(bundle) as embedder:
        return rank_tasks(embedder, tasks, batch_size=None, on_error="fail") if tasks else []


def _retrieval_cells(rankings: Sequence[TaskRanking], reference: Sequence[TaskRanking]) -> list[str]:
    """Recall@1 by task, and the share of all queries that have float32's first answer."""
    recalls = [f"{measure_quality(ranking).metrics['recall@1'].mean:.3f}" for ranking in rankings]
    comparisons = [compare_rankings(before, after) for before, after in zip(reference, rankings, strict=True)]
    queries, changed = sum(task.queries for task in comparisons), sum(len(task.changed) for task in comparisons)
    return [*recalls, f"{1 - changed / queries:.3f}"]


def _bundle_path(work: Path, name: str) -> Path:
    return work / re.sub(r"\W+", "-", name)


def _costs_file(work: Path, name: str) -> Path:
    return work / f"{_bundle_path(work, name).name}.json"


def _print_row(cells: Sequence[str]) -> None:
    click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
