"""Observe a running model: the magnitudes at its linear layers, and the first value that is not finite."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import PlumeExportError
from ..graphs.latent_step import ExpertStack
from ..graphs.layers import Linear
from .activation_ranges import PHASES, SAMPLE_ROWS, LinearRange, Phase


@dataclass(frozen=True)
class _Pass:
    """What runs now. The first axis of every tensor is that of `inputs`. Without a phase nothing is recorded."""

    phase: Phase | None
    inputs: Sequence[str]
    is_real: Tensor | None  # [batch, tokens]: False on padding; None if there is none


class Observer:
    """Records every linear layer of the modules that it watches, by phase.

    A layer has the name of its weight without ".weight". The stacked experts are two layers, `fc1` and `fc2`. The model's
    forward pass raises PlumeExportError at the first layer whose output is not finite.
    """

    def __init__(self) -> None:
        self.linears: dict[Phase, dict[str, LinearRange]] = {phase: {} for phase in PHASES}
        self._pass: _Pass | None = None

    def watch(self, module: nn.Module) -> None:
        """Watch every layer of a module that has no child layers."""
        for name, layer in module.named_modules():
            if next(layer.children(), None) is None:
                layer.register_forward_hook(partial(self._observe, name))

    @contextmanager
    def running(self, phase: Phase | None, inputs: Sequence[str], is_real: Tensor | None = None) -> Iterator[None]:
        """Set what runs in this context: the names of inputs in batch order. The frames of a video repeat a name."""
        self._pass = _Pass(phase, inputs, None if is_real is None or bool(is_real.all()) else is_real)
        try:
            yield
        finally:
            self._pass = None

    def _observe(self, name: str, layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        now = self._pass
        assert now is not None, name
        received, given = _real_rows(arguments[0], now.is_real), _real_rows(output, now.is_real)
        output_abs_max = float(torch.stack(given.aminmax()).abs().max())
        if not np.isfinite(output_abs_max):
            raise _not_finite(name, layer, arguments[0], output, now)
        if now.phase is None:
            return
        if isinstance(layer, Linear):
            self._record(now.phase, name, received, output_abs_max)
        elif isinstance(layer, ExpertStack):
            first = received[None] @ layer.fc1_weight + layer.fc1_bias  # [experts + 1, batch, width]
            self._record(now.phase, f"{name}.fc1", received, float(first.abs().max()))
            self._record(now.phase, f"{name}.fc2", nn.functional.gelu(first), output_abs_max)

    def _record(self, phase: Phase, name: str, received: Tensor, output_abs_max: float) -> None:
        rows = received.flatten(0, -2)  # [rows, channels]
        sample = _evenly(rows.numpy(), SAMPLE_ROWS).copy()
        seen = LinearRange(rows.abs().amax(0).numpy(), len(rows), output_abs_max, sample)
        earlier = self.linears[phase].get(name)
        self.linears[phase][name] = seen if earlier is None else _merged(earlier, seen)


def _merged(earlier: LinearRange, later: LinearRange) -> LinearRange:
    """Return the combined range. Each part has a share of the sample in proportion to its rows."""
    both = earlier.merged(later)
    if len(both.input_sample) <= SAMPLE_ROWS:
        return both
    share = round(SAMPLE_ROWS * earlier.input_rows / both.input_rows)
    kept = [_evenly(earlier.input_sample, share), _evenly(later.input_sample, SAMPLE_ROWS - share)]
    return replace(both, input_sample=np.concatenate(kept))


def _evenly(rows: NDArray[np.float32], max_rows: int) -> NDArray[np.float32]:
    """Return at most `max_rows` rows, evenly spread."""
    if len(rows) <= max_rows:
        return rows
    chosen: NDArray[np.float32] = rows[((np.arange(max_rows) + 0.5) * len(rows) / max(max_rows, 1)).astype(int)]
    return chosen


def _real_rows(tensor: Tensor, is_real: Tensor | None) -> Tensor:
    """Remove the padding: [batch, tokens, channels] -> [rows, channels]. Tensors with other axes have no padding."""
    return tensor if is_real is None or tensor.shape[:2] != is_real.shape else tensor[is_real]


def _not_finite(name: str, layer: nn.Module, received: Tensor, output: Tensor, now: _Pass) -> PlumeExportError:
    """Return an error that names the layer and the first input, and tells whether the layer's own input was finite."""
    value = "NaN" if bool(output.isnan().any()) else "infinity"
    state = "finite" if bool(received.isfinite().all()) else "not finite"
    return PlumeExportError(
        f"The model is not finite: layer {name}{'' if now.phase is None else f' ({now.phase})'} computes {value} for the input "
        f"{_first_bad_input(output, layer, now)!r}. The layer's parameters are finite and its input is {state}.",
        fix="remove the input, or check the checkpoint: a valid one does not overflow in float32",
    )


def _first_bad_input(output: Tensor, layer: nn.Module, now: _Pass) -> str:
    rows = output.transpose(0, 1) if isinstance(layer, ExpertStack) else torch.atleast_2d(output)  # [rows, ...]
    if now.is_real is not None and rows.shape[:2] == now.is_real.shape:
        rows = torch.where(now.is_real[..., None], rows, torch.zeros(()))
    is_bad = ~rows.flatten(1).isfinite().all(1)
    row = int(is_bad.nonzero()[0])
    return now.inputs[row * len(now.inputs) // len(rows)]  # the vision encoder's last rows are visual tokens, not frames
