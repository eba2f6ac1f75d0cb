"""Stage-by-stage comparison over several inputs. It names the first stage outside its tolerance."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..spec import Precision
from ..stages import Stages
from .tolerance import router_agreement_floor, tolerances

# In the order of the computation, so the first bad stage is where to look.
_STAGE_FIELDS = {
    "position ids": "position_ids",
    "visual embeddings": "visual_embeddings",
    "anchor": "anchor",
    "prefix state": "prefix_state",
    "router probabilities": "router_probabilities",
    "latent states": "latent_states",
    "embedding": "embedding",
}


class StageParity(msgspec.Struct, frozen=True):
    """The largest errors of one stage over all inputs, and whether each is within tolerance."""

    stage: str
    max_abs: float
    relative_error: float
    cosine: float
    is_within: bool
    worst_input: str


class ParityReport(msgspec.Struct, frozen=True):
    """Parity over all inputs. `router_agreement` is the share of latent steps that chose the reference's experts."""

    precision: Precision
    inputs: int
    stages: list[StageParity]
    router_agreement: float
    router_agreement_floor: float

    @property
    def first_bad_stage(self) -> str | None:
        """The first stage outside its tolerance, in the order of the computation; None if all stages are within tolerance."""
        for stage in self.stages:
            if not stage.is_within:
                return stage.stage
        return "router choices" if self.router_agreement < self.router_agreement_floor else None


def compare_inputs(
    expected: Mapping[str, Stages], actual: Mapping[str, Stages], *, precision: Precision, top_k: int
) -> ParityReport:
    """Compare two sets of stages by input id. `expected` is the float32 reference."""
    stages = [
        max((_compare_stage(stage, name, expected[name], actual[name], precision) for name in expected), key=_badness)
        for stage in _STAGE_FIELDS
    ]
    agreements = np.concatenate([_router_agreement(expected[name], actual[name], top_k) for name in expected])
    return ParityReport(
        precision=precision,
        inputs=len(expected),
        stages=stages,
        router_agreement=float(agreements.mean()) if agreements.size else 1.0,
        router_agreement_floor=router_agreement_floor(precision),
    )


def _badness(stage: StageParity) -> tuple[bool, float]:
    return not stage.is_within, stage.relative_error


def _compare_stage(stage: str, name: str, expected: Stages, actual: Stages, precision: Precision) -> StageParity:
    reference = getattr(expected, _STAGE_FIELDS[stage])
    measured = getattr(actual, _STAGE_FIELDS[stage])
    if stage == "latent states":
        reference = reference[: len(measured)]  # the runtime does not return the last latent state
    if reference.shape != measured.shape:
        return StageParity(stage, float("inf"), float("inf"), -1.0, False, name)
    reference, measured = reference.astype(np.float64), measured.astype(np.float64)
    difference = np.abs(measured - reference)
    max_abs = float(difference.max(initial=0.0))
    norm = float(np.linalg.norm(reference))
    relative = float(np.linalg.norm(difference)) / norm if norm > 0 else max_abs
    cosine = _smallest_cosine(reference, measured)
    if stage == "position ids":
        is_within = max_abs == 0.0
    else:
        limit = tolerances(precision)
        is_within = bool(np.isfinite(measured).all()) and relative <= limit.relative and cosine >= limit.cosine
    return StageParity(stage, max_abs, relative, cosine, is_within, name)


def _smallest_cosine(reference: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Return the smallest cosine over the rows. The last axis is a vector."""
    products = (reference * measured).sum(-1)
    norms = np.linalg.norm(reference, axis=-1) * np.linalg.norm(measured, axis=-1)
    return float(np.min(np.divide(products, norms, out=np.ones_like(products), where=norms > 0), initial=1.0))


def _router_agreement(expected: Stages, actual: Stages, top_k: int) -> NDArray[np.bool_]:
    """Return, per latent step, whether the same set of experts was chosen."""

    def chosen(stages: Stages) -> NDArray[np.int64]:
        order = np.argsort(-stages.router_probabilities, axis=-1, kind="stable")[:, :top_k]
        return np.sort(order, axis=-1)

    agrees: NDArray[np.bool_] = (chosen(expected) == chosen(actual)).all(-1)
    return agrees
