"""Tolerances of each stage relative to the float32 reference, by precision."""

import msgspec

from ..spec import Precision


class Tolerance(msgspec.Struct, frozen=True):
    """Maximum relative error (norm of the difference over norm of the reference) and minimum cosine of a stage."""

    relative: float
    cosine: float


# float32 differs only by the order of summation. 16-bit stages accumulate relative rounding errors of 2^-11 (fp16) or 2^-8
# (bf16) over the layers. Quantised precisions: about twice the largest error of plume-tiny over the built-in and the held-out
# inputs. That error is at a visual token of an image unlike the training images (int8: relative 0.12, cosine 0.907;
# int8-weight: 0.033 and 0.9994; int4-weight: 0.31 and 0.953). The accuracy threshold of the embedding itself is checked when a
# bundle is built.
_TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(relative=1e-4, cosine=0.99999),
    "fp16": Tolerance(relative=3e-2, cosine=0.999),
    "bf16": Tolerance(relative=1.5e-1, cosine=0.99),
    "int8": Tolerance(relative=2.5e-1, cosine=0.8),
    "int8-weight": Tolerance(relative=7e-2, cosine=0.998),
    "int4-weight": Tolerance(relative=6e-1, cosine=0.9),
}
# Minimum share of equal router choices: two experts may swap places if their probabilities are nearly equal.
_ROUTER_AGREEMENT: dict[Precision, float] = {
    "fp32": 1.0,
    "fp16": 0.9,
    "bf16": 0.75,
    "int8": 0.75,
    "int8-weight": 0.9,
    "int4-weight": 0.75,
}


def tolerances(precision: Precision) -> Tolerance:
    return _TOLERANCES[precision]


def router_agreement_floor(precision: Precision) -> float:
    """Return the minimum share of latent steps that must choose the reference's experts."""
    return _ROUTER_AGREEMENT[precision]
