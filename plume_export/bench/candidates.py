"""The candidates of a benchmark: the measured bundle first, then the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..bundle import Bundle, open_bundle
from ..errors import BundleError, OptionError, PlumeExportError
from ..parity.same_checkpoint import check_same_checkpoint
from ..pipeline import ModelOptions, open_checkpoint
from .bench_options import PYTORCH, PYTORCH_FORMS, BenchOptions
from .hardware_limits import is_on_gpu
from .worker_messages import BundleCandidate, Candidate, PytorchCandidate


@dataclass(frozen=True)
class Setup:
    """The opened bundles by candidate name, and all candidates, with the measured bundle first."""

    bundles: dict[str, Bundle]
    candidates: list[Candidate]

    @property
    def measured(self) -> BundleCandidate:
        first = self.candidates[0]
        assert isinstance(first, BundleCandidate)
        return first

    @property
    def bundle(self) -> Bundle:
        return self.bundles[self.measured.name]


def setup_from_options(options: BenchOptions, threads: int) -> Setup:
    """Open and check all candidates. PyTorch comes before other bundles, because the second candidate is the baseline.

    Raises PlumeExportError if a candidate is missing, is from another checkpoint, or does not support one of the batch sizes.
    """
    _check_pytorch_options(options)
    bundle = open_bundle(options.bundle, verify_hashes=options.verify_hashes)
    _check_against(options)
    bundles = {_name(options.bundle): bundle}
    for path in options.against:
        if path not in PYTORCH_FORMS:
            bundles[_free_name(_name(Path(path)), bundles)] = other = open_bundle(path, verify_hashes=options.verify_hashes)
            _check_same_model(bundle, other)
    for one in bundles.values():
        _check_batch_sizes(one, options.batch_sizes)
    measured, *others = [
        BundleCandidate(name, str(one.path), None if is_on_gpu(one.manifest) else threads, options.verify_hashes)
        for name, one in bundles.items()
    ]
    pytorch = list(_pytorch(options, bundle, threads)) if _names_pytorch(options) else []
    return Setup(bundles, [measured, *pytorch, *others])


def _check_against(options: BenchOptions) -> None:
    for name in options.against:
        if name not in PYTORCH_FORMS and not Path(name).is_dir():
            raise PlumeExportError(
                f"{name!r} is neither a bundle nor a PyTorch setup to compare with.",
                fix=f"pass one of {', '.join(PYTORCH_FORMS)}, or a bundle's directory, to --against",
            )


def _check_pytorch_options(options: BenchOptions) -> None:
    is_pytorch = _names_pytorch(options)
    if is_pytorch and options.checkpoint is None:
        raise OptionError(
            "PyTorch needs the checkpoint that the bundle was made from.",
            fix="pass --checkpoint with a directory or hub id",
        )
    if not is_pytorch and (options.checkpoint is not None or options.compiled):
        raise OptionError(
            "A checkpoint or torch.compile was requested, but PyTorch is not among the candidates.",
            fix="add --against pytorch",
        )


def _names_pytorch(options: BenchOptions) -> bool:
    return not set(PYTORCH_FORMS).isdisjoint(options.against)


def _pytorch(options: BenchOptions, bundle: Bundle, threads: int) -> Iterator[PytorchCandidate]:
    """Yield the PyTorch candidates.

    By default these are float32 and bfloat16 for a CPU bundle, and bfloat16 on the GPU for a GPU bundle. Setups listed in
    `against` replace the default. With --compile, each is also measured with torch.compile.
    """
    assert options.checkpoint is not None
    checkpoint = open_checkpoint(options.checkpoint, ModelOptions(), revision=options.revision, offline=options.offline)
    check_same_checkpoint(checkpoint, bundle.manifest)
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    usual = ("bf16",) if is_on_gpu(bundle.manifest) else precisions
    wanted = {*options.against, *(f"{PYTORCH}-{precision}" for precision in usual if PYTORCH in options.against)}
    device: Literal["cpu", "cuda"] = "cuda" if is_on_gpu(bundle.manifest) else "cpu"
    for is_compiled in (False, True) if options.compiled else (False,):
        for precision in precisions:
            if f"{PYTORCH}-{precision}" not in wanted:
                continue
            yield PytorchCandidate(
                name=f"{PYTORCH}-{precision}{'-compiled' if is_compiled else ''}",
                directory=str(checkpoint.directory),
                model=bundle.manifest.model,
                precision=precision,
                device=device,
                threads=threads,
                is_compiled=is_compiled,
            )


def _check_same_model(bundle: Bundle, other: Bundle) -> None:
    """Raise PlumeExportError if two bundles are of different models, whose speeds cannot be compared."""
    for part in ("vision", "decoder", "transition", "rollout"):
        own, others = getattr(bundle.manifest.model, part), getattr(other.manifest.model, part)
        if own != others:
            raise BundleError(
                f"{other.path} was made from another model than {bundle.path}: its {part} is {others}, but the "
                f"bundle's is {own}.",
                fix="compare bundles of the same checkpoint",
            )


def _check_batch_sizes(bundle: Bundle, batch_sizes: tuple[int, ...]) -> None:
    limits = bundle.manifest.limits
    if limits is not None and max(batch_sizes) > limits.batch.max:
        raise PlumeExportError(
            f"The largest batch is {max(batch_sizes)}; the bundle {bundle.path} accepts at most {limits.batch.max}.",
            fix=f"use --batch with sizes up to {limits.batch.max}, or compile for a --target with a larger batch",
        )


def _name(path: Path) -> str:
    return path.resolve().name


def _free_name(name: str, taken: dict[str, Bundle]) -> str:
    """Return an unused name. A bundle may be compared with itself, or with a bundle of the same name in another directory."""
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(free for free in names if free not in taken)
