"""What a backend gives the rollout: sessions, and buffers that stay where the sessions run."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spec import DType, GraphName

# A buffer belongs to the backend that made it and is only handed back to it.
Buffer = Any
Array = NDArray[Any]


class BoundGraph(Protocol):
    """A graph whose inputs and outputs are fixed buffers: running it reads the ones and writes the others."""

    def run(self) -> None: ...


class Session(Protocol):
    """One loaded graph."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> BoundGraph: ...


class Backend(Protocol):
    """A way to run graphs. Whoever opened it closes it; its sessions and buffers end with it."""

    def session(self, graph: GraphName) -> Session:
        """Return the session of a graph, loading it on first use."""

    def zeros(self, shape: Sequence[int], dtype: DType) -> Buffer:
        """Allocate a zeroed buffer."""

    def upload(self, array: Array, dtype: DType) -> Buffer:
        """Return a buffer with the values of a host array, rounded to `dtype`."""

    def download(self, buffer: Buffer) -> NDArray[np.float32]:
        """Return a host copy in float32."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy a buffer onto another of the same shape."""

    def copy_to_slot(self, source: Buffer, target: Buffer, slot: int) -> None:
        """Copy a buffer onto `target[slot]`."""

    def set_step(self, target: Buffer, step: int) -> None:
        """Write the scalar that drives a latent step."""

    def concatenate(self, buffers: Sequence[Buffer]) -> Buffer:
        """Join buffers along their first axis."""

    def close(self) -> None: ...
