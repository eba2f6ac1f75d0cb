"""The options of an embedder and the checks of their values."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from ..errors import OptionError, PlumeExportError
from ..inputs import Item, is_image_source

Mode = Literal["gen", "disc"]
OnError = Literal["raise", "skip"]


def check_rollout(mode: Mode, steps: int | None) -> None:
    """Raise OptionError for values that no bundle accepts."""
    if mode not in get_args(Mode):
        raise OptionError(f"mode is {mode!r}.", fix=f"choose one of {', '.join(get_args(Mode))}")
    if steps is None:
        return
    if mode == "disc":
        raise OptionError(f"steps is {steps}, but the mode 'disc' runs no latent steps.", fix="omit one of the two")
    if steps < 0:
        raise OptionError(f"steps is {steps}; expected 0 or more.", fix="choose a number of latent steps; 0 skips them")


def checked_steps(steps: int | None, latent_steps: int) -> int:
    """Return `steps`, or the bundle's number of latent steps if it is None."""
    if steps is None:
        return latent_steps
    if steps > latent_steps:
        raise PlumeExportError(
            f"steps is {steps}; this bundle's rollout accepts 0 to {latent_steps}.",
            fix="choose a number in that range, or export with a larger --latent-steps",
        )
    return steps


def check_on_error(on_error: OnError) -> None:
    if on_error not in get_args(OnError):
        raise OptionError(f"on_error is {on_error!r}.", fix=f"choose one of {', '.join(get_args(OnError))}")


def check_conversion(convert_to_numpy: bool, convert_to_tensor: bool, normalize_embeddings: bool) -> None:
    """Raise OptionError for options of SentenceTransformer's encode that request anything but unit vectors in numpy."""
    if not normalize_embeddings:
        raise OptionError("normalize_embeddings is False, but embeddings are always unit vectors.", fix="omit it")
    if convert_to_tensor or not convert_to_numpy:
        raise OptionError(
            f"convert_to_numpy is {convert_to_numpy} and convert_to_tensor is {convert_to_tensor}, but embeddings "
            "are always in numpy.",
            fix="omit both, then use torch.from_numpy(vectors)",
        )


def is_one_item(items: object) -> bool:
    """Return True if `items` is a single item. Iterating over it would give characters, keys, bytes or rows of pixels."""
    if isinstance(items, np.ndarray):
        return items.dtype.kind not in "OUS" and items.ndim in (2, 3)
    return isinstance(items, str | Mapping | Item) or is_image_source(items)
