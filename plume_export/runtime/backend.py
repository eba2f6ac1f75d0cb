"""The interface of a backend: sessions, and buffers in the memory where the sessions run."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spec import DType, GraphName

# A buffer belongs to the backend that created it and is only passed back to that backend.
Buffer = Any
Array = NDArray[Any]
# "media": the visual embeddings of a batch; "batch": everything else that one batch computes.
Region = Literal["media", "batch"]


class TensorShape(NamedTuple):
    """Shape and dtype of a buffer."""

    shape: tuple[int, ...]
    dtype: DType


class BoundGraph(Protocol):
    """A graph with fixed input and output buffers. Running it reads the inputs and writes the outputs."""

    def run(self) -> None: ...


class Session(Protocol):
    """One loaded graph with its own input shapes. The caller that requested it must close it."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> BoundGraph: ...

    def close(self) -> None: ...


class Replay(Protocol):
    """A repeatable computation on fixed buffers. The caller that requested it must close it."""

    def run(self) -> None: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Runs graphs on one kind of device. The caller that opened it must close it. Its sessions and buffers are then invalid.

    Calls come from one thread at a time, and work runs in the order of the calls. A call may return before its work is
    finished; `download` and `wait` wait for it. `kept_batches` is the number of batch shapes (batch size and padded prompt
    length) whose buffers the runtime caches.
    """

    kept_batches: int

    def session(self, graph: GraphName) -> Session:
        """Return a new session. The graph is loaded on first use and shared by its sessions."""

    def padded_tokens(self, tokens: int) -> int:
        """Return the padded length for prompts of up to `tokens` tokens. Rounding up limits the number of distinct lengths."""

    def constant(self, array: Array, dtype: DType) -> Buffer:
        """Return a permanent buffer with the values of a host array, rounded to `dtype`."""

    def upload(self, arrays: Mapping[str, Array]) -> dict[str, Buffer]:
        """Copy host arrays (float32, int64) in one transfer. The buffers are valid until the next upload."""

    def allocate(self, region: Region, tensors: Mapping[str, TensorShape]) -> dict[str, Buffer]:
        """Return uninitialised buffers. They may reuse the memory of an earlier call for the same region."""

    def rows(self, buffer: Buffer, start: int, stop: int) -> Buffer:
        """Return a view of `buffer[start:stop]`."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy a buffer to another buffer with the same number of values."""

    def clear(self, buffer: Buffer) -> None:
        """Set a buffer to zero."""

    def download(self, buffer: Buffer) -> NDArray[np.float32]:
        """Return a host copy in float32."""

    def replayable(self, work: Callable[[], None]) -> Replay:
        """Return a Replay of `work`, which must always use the same buffers. A backend that has CUDA graphs may record one."""

    def wait(self) -> None:
        """Wait until all work is finished."""

    def close(self) -> None: ...
