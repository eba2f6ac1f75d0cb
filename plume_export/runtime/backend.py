"""What a backend gives the rollout: sessions, and buffers that stay where the sessions run."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spec import DType, GraphName

# A buffer belongs to the backend that made it and is only handed back to it.
Buffer = Any
Array = NDArray[Any]
# "media": the visual embeddings of a batch; "batch": everything else that one batch computes.
Region = Literal["media", "batch"]


class TensorShape(NamedTuple):
    """Shape and dtype of a buffer."""

    shape: tuple[int, ...]
    dtype: DType


class BoundGraph(Protocol):
    """A graph whose inputs and outputs are fixed buffers: running it reads the ones and writes the others."""

    def run(self) -> None: ...


class Session(Protocol):
    """One loaded graph with its own shapes. Whoever asked for it closes it."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> BoundGraph: ...

    def close(self) -> None: ...


class Replay(Protocol):
    """Work that is done again and again. Whoever asked for it closes it."""

    def run(self) -> None: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A way to run graphs. Whoever opened it closes it; its sessions and buffers end with it.

    Work is done in the order of the calls, which come from one thread at a time. It may still be under way when a call returns;
    `download` and `wait` wait for it.
    `kept_batches` is for how many kinds of batch (size and prompt length) buffers are worth keeping.
    """

    kept_batches: int

    def session(self, graph: GraphName) -> Session:
        """Return a session of its own; the graph is loaded on first use and shared by its sessions."""

    def padded_tokens(self, tokens: int) -> int:
        """Return the length that prompts of up to `tokens` tokens are padded to, so that few lengths occur."""

    def constant(self, array: Array, dtype: DType) -> Buffer:
        """Return a buffer that lasts, with the values of a host array rounded to `dtype`."""

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, Buffer]:
        """Copy host arrays (float32, int64) in one transfer. They last until the next upload."""

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, Buffer]:
        """Return buffers. Those of an earlier call for the same region may share their memory, and may hold its values."""

    def rows(self, buffer: Buffer, start: int, stop: int) -> Buffer:
        """Return a view of `buffer[start:stop]`."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy a buffer onto another of as many values."""

    def clear(self, buffer: Buffer) -> None:
        """Set a buffer to zero."""

    def download(self, buffer: Buffer) -> NDArray[np.float32]:
        """Return a host copy in float32."""

    def replayable(self, work: Callable[[], None]) -> Replay:
        """Return what does `work`, always on the same buffers, recorded once where the backend can."""

    def wait(self) -> None:
        """Return when all work is done."""

    def close(self) -> None: ...
