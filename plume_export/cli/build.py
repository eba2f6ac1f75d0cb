"""The commands `build`, `export`, `compile`, `targets`, `plan` and `random-checkpoint`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from .. import api
from ..bundle import Bundle
from ..machine.target import AUTO, target_of_this_machine
from ..memory_plan import check_shareable, nearest_that_fits, plan_memory
from ..pipeline import ModelOptions, obstacle_to_running, open_checkpoint, require_export_packages
from ..quantise.options import QuantiseOptions
from ..recipe import Target, read_recipe, read_target, recipe_names
from ..samples import PLUME_TINY
from ..selftest import SelftestReport, run_selftest
from ..spec import PLUME_2B, PRECISIONS
from .console import build_progress, print_engines, print_plan, print_quantisation, print_recipes, print_selftest
from .documents import document_from_bundle, document_from_path
from .messages import note, report_step
from .shared_options import verify_option
from .switches import Answer, command


def _precision_option(default: str) -> Callable[..., Any]:
    return click.option(
        "--precision",
        metavar="PRECISION",
        help=f"One of {', '.join(PRECISIONS)}; or one per graph, such as prefill=int8,latent_step=int8-weight,...  "
        f"[default: {default}]",
    )


_CHECKPOINT_OPTION = click.option(
    "--checkpoint", help="Directory or Hugging Face hub id.  [default: plume-tiny, a sample model]"
)
_EXPORT_OPTIONS = (
    click.option(
        "--ranges", type=click.Path(path_type=Path), help="Activation ranges written by `calibrate`.  [default: calibrate now]"
    ),
    click.option(
        "--min-cosine",
        type=click.FloatRange(0, 1),
        help="For quantised precisions: minimum cosine similarity to fp32 of every held-out embedding; 0 disables the "
        "check.  [default: 0.99; none for int4-weight]",
    ),
    click.option(
        "--no-range-guard",
        is_flag=True,
        help="Skip the check for layers that overflow float16, and the calibration run that it needs.",
    ),
    click.option("--exclude", multiple=True, metavar="LAYER", help="Leave this layer in 16 bit; may be repeated."),
    click.option("--keep", multiple=True, hidden=True),
    click.option("--output", "-o", type=click.Path(path_type=Path), help="Bundle directory.  [default: bundles/NAME]"),
    click.option(
        "--modalities",
        type=click.Choice(["all", "text"]),
        default="all",
        show_default=True,
        help="text: leave out the vision encoder.",
    ),
    click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]"),
    click.option("--offline", is_flag=True, help="Use only the local Hugging Face cache; do not download."),
    click.option("--no-selftest", is_flag=True, help="Do not save the reference outputs that `selftest` compares with."),
    click.option(
        "--latent-steps",
        type=click.IntRange(min=1),
        help="Number of latent steps (K in the paper).  [default: the checkpoint's, else 8]",
    ),
    click.option("--top-k", type=click.IntRange(min=1), default=2, show_default=True, help="Experts chosen per latent step."),
    click.option(
        "--router-context",
        type=click.Choice(["disc", "none"]),
        default="disc",
        show_default=True,
        help="Context that the router gets. disc: the hidden state at <disc_emb>. none: zeros.",
    ),
    click.option("--prefix", help="Fixed text before the latent steps.  [default: as in the original code]"),
    click.option("--suffix", help="Fixed text after the latent steps.  [default: as in the original code]"),
    click.option(
        "--min-pixels",
        type=click.IntRange(min=1),
        help="Minimum pixels of an image; a smaller one is enlarged.  [default: 784]",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=784),
        help="Maximum pixels of an image; a larger one is scaled down.  [default: 2359296]",
    ),
)
_SAMPLE_NOTE = "using plume-tiny, a small sample model trained on generated drawings; pass --checkpoint for a real model"
_MODEL_OPTIONS = tuple(ModelOptions.__dataclass_fields__)


def _chosen(_context: click.Context, _parameter: click.Parameter, target: str) -> str:
    if target != AUTO:
        return target
    choice = target_of_this_machine()
    note(f"target {AUTO}: {choice.name} ({choice.reason})")
    return choice.name


# The target to plan for if this machine's target has no engines. Its engines run on any RTX GPU.
_PLANNED = "rtx"
_TARGET_OPTION = click.option(
    "--target",
    default=AUTO,
    show_default=True,
    callback=_chosen,
    help="A target from `plume-export targets`, or a recipe file. auto: the target that matches this machine.",
)


def _export_options(command: Any) -> Any:
    for option in reversed(_EXPORT_OPTIONS):
        command = option(command)
    return command


@command()
@_CHECKPOINT_OPTION
@_precision_option("the target's")
@_export_options
@_TARGET_OPTION
def build(target: str, **options: Any) -> Answer:
    """Build a runnable bundle from a checkpoint: export, compile, self-test."""
    with build_progress() as progress:
        bundle = api.build(**_arguments(options), target=target, report=report_step, progress=progress)
    obstacle = obstacle_to_running(bundle) if not options["no_selftest"] else "--no-selftest"
    if obstacle is None:
        report_step("self-test")
    selftest = run_selftest(bundle) if obstacle is None else None
    report_step("done")
    if obstacle is not None and not options["no_selftest"]:
        note(f"no self-test: {obstacle}. Run it on the device: plume-export selftest {bundle.path}")
    is_good = selftest is None or selftest.parity.first_bad_stage is None
    document = document_from_bundle(bundle, selftest, obstacle)
    return Answer(document, partial(_print_bundle, bundle, selftest), 0 if is_good else 1)


def _print_bundle(bundle: Bundle, selftest: SelftestReport | None = None) -> None:
    click.echo(str(bundle.path))
    if bundle.manifest.quantisation is not None:
        print_quantisation(bundle.manifest.quantisation, bundle.manifest.backend)
    if bundle.manifest.engines is not None:
        print_engines(bundle.manifest.engines)
    if selftest is not None:
        print_selftest(selftest)


@command()
@_CHECKPOINT_OPTION
@_precision_option("fp16")
@_export_options
def export(**options: Any) -> Answer:
    """Export a checkpoint as a portable ONNX bundle."""
    bundle = api.export(**_arguments(options), report=report_step)
    report_step("done")
    return Answer(document_from_bundle(bundle), partial(_print_bundle, bundle))


@command(name="compile")
@click.argument("bundle", type=click.Path(path_type=Path))
@_TARGET_OPTION
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Directory of the compiled bundle.")
@verify_option
def compile_(bundle: Path, target: str, output: Path, verify_hashes: bool) -> Answer:
    """Compile a portable bundle for a target. Does not need PyTorch."""
    with build_progress() as progress:
        compiled = api.compile(
            bundle, output, target=target, verify_hashes=verify_hashes, report=report_step, progress=progress
        )
    report_step("done")
    return Answer(document_from_bundle(compiled), partial(_print_bundle, compiled))


@command()
def targets() -> Answer:
    """List the targets that a bundle can be compiled for."""
    recipes = {name: read_recipe(name) for name in recipe_names()}
    return Answer(recipes, partial(print_recipes, recipes))


@command(name="random-checkpoint")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(["tiny", "2b-slice", "2b"]), default="tiny", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def random_checkpoint(output: Path, preset: Any, seed: int) -> Answer:
    """Write a checkpoint with random weights in the layout of the original checkpoint."""
    require_export_packages()
    from ..checkpoint import write_random_checkpoint

    write_random_checkpoint(output, preset, seed=seed, report=report_step)
    return Answer(document_from_path(output), partial(click.echo, str(output)))


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Convert the options that `build` and `export` share into arguments of `api.build` and `api.export`."""
    if options["checkpoint"] is None:
        note(_SAMPLE_NOTE)
    if options["keep"]:
        note("--keep is now --exclude; the old name works until the next release")
    same = {name: options[name] for name in ("output", "modalities", "revision", "offline")}
    precision = {} if options["precision"] is None else {"precision": options["precision"]}
    return {
        **same,
        **precision,
        "checkpoint": PLUME_TINY if options["checkpoint"] is None else options["checkpoint"],
        "model": ModelOptions(**{name: options[name] for name in _MODEL_OPTIONS}),
        "quantise": QuantiseOptions({}, options["ranges"], options["min_cosine"], (*options["exclude"], *options["keep"])),
        "range_guard": not options["no_range_guard"],
        "selftest": not options["no_selftest"],
    }


def _planned(_context: click.Context, _parameter: click.Parameter, target: str) -> Target:
    """Return the target to plan for: this machine's, or `rtx` if this machine's target has no engines."""
    if target != AUTO:
        return read_target(target)
    choice = target_of_this_machine()
    chosen = read_target(choice.name)
    if not chosen.recipe.backend.startswith("onnxruntime"):
        note(f"target {AUTO}: {choice.name} ({choice.reason})")
        return chosen
    reason = f"{choice.name} has no engines to plan ({choice.reason})"
    note(f"target {AUTO}: {reason}; planning for {_PLANNED}. Choose another with --target")
    return read_target(_PLANNED)


@command()
@click.option(
    "--target",
    default=AUTO,
    show_default=True,
    callback=_planned,
    help="A target from `plume-export targets`, or a recipe file. auto: the target for this machine's GPU, "
    f"or {_PLANNED} if none matches.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="Precision of the engines.  [default: the target's]")
@click.option(
    "--weights",
    type=click.Choice(["baked", "shared"]),
    help="baked: each engine contains its weights. shared: all engines use one copy.  [default: the target's]",
)
@click.option(
    "--checkpoint", help="Checkpoint (directory or hub id) whose model dimensions are used.  [default: the original 2B model]"
)
@click.option("--revision", help="Branch, tag or commit of a hub id.  [default: main]")
@click.option("--offline", is_flag=True, help="Use only the local Hugging Face cache; do not download.")
def plan(target: Target, precision: Any, weights: Any, checkpoint: str | None, revision: str | None, offline: bool) -> Answer:
    """Compute the device memory that a target's engines need."""
    check_shareable(weights, precision)
    recipe = msgspec.structs.replace(target.recipe, weights=weights or target.recipe.weights)
    model = PLUME_2B
    if checkpoint is not None:
        model = open_checkpoint(checkpoint, ModelOptions(), revision=revision, offline=offline).model
    made = plan_memory(target.name, recipe, model, precision or recipe.precision)
    nearest = nearest_that_fits(target.name, recipe, model, made.precision) if made.fits is False else None
    document = {"plan": made, "total": made.total, "fits": made.fits, "nearest": nearest}
    return Answer(document, partial(print_plan, made, nearest), 1 if made.fits is False else 0)


COMMANDS = (build, export, compile_, targets, plan, random_checkpoint)
