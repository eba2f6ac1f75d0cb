"""Who is measured: bundles, and the PyTorch reference in its forms."""

from typing import Literal, TypeAlias

import msgspec

from ...spec import ModelSpec


class BundleContestant(msgspec.Struct, frozen=True, tag="bundle"):
    """A bundle in an Embedder. `threads` None: it runs on a GPU."""

    name: str
    path: str
    threads: int | None
    verify_hashes: bool = True


class PytorchContestant(msgspec.Struct, frozen=True, tag="pytorch"):
    """The PyTorch reference: weights of a checkpoint's directory, rollout and pixel limits of the bundle's `model`."""

    name: str
    directory: str
    model: ModelSpec
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    threads: int
    is_compiled: bool


Contestant: TypeAlias = BundleContestant | PytorchContestant
