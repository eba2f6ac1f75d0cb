"""The buffers for one batch shape (batch size and padded prompt length), and the latent rollout bound to them."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property

from ..batch_memory import batch_tensors, tensor_shape
from ..spec import GraphName, GraphSpec
from .backend import Backend, Buffer, TensorShape
from .rollout import BoundRollout, Rollout


class Workspace:
    """Buffers by tensor name: the outputs of prefill, and the inputs and outputs of the rollout."""

    def __init__(self, buffers: dict[str, Buffer], rollout: Rollout) -> None:
        self.buffers = buffers
        self._rollout = rollout

    @cached_property
    def rollout(self) -> BoundRollout:
        """The rollout, bound on first use. The mode disc needs only the anchor and never loads graph `latent_step`."""
        return self._rollout.bind(self.buffers)

    def close(self) -> None:
        if "rollout" in self.__dict__:
            self.rollout.close()


class Workspaces:
    """Creates workspaces and caches the most recently used ones, up to the number that the backend allows."""

    def __init__(self, backend: Backend, graphs: Mapping[GraphName, GraphSpec], rollout: Rollout) -> None:
        self._backend, self._rollout = backend, rollout
        self._tensors = batch_tensors(graphs)
        self._kept: OrderedDict[tuple[int, int], Workspace] = OrderedDict()

    def close(self) -> None:
        """Close all cached workspaces."""
        while self._kept:
            self._kept.popitem()[1].close()

    def of(self, batch: int, tokens: int) -> Workspace:
        """Return the workspace for batches of `batch` prompts of `tokens` tokens."""
        key = (batch, tokens)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        while len(self._kept) >= self._backend.kept_batches:
            self._kept.popitem(last=False)[1].close()  # before creating a new one, so that its memory is free
        sizes = {"batch": batch, "tokens": tokens}
        shapes = {name: TensorShape(tensor_shape(tensor, sizes), tensor.dtype) for name, tensor in self._tensors.items()}
        self._kept[key] = Workspace(self._backend.allocate("batch", shapes), self._rollout)
        return self._kept[key]
