"""The latent rollout: K steps over a split cache, the last one fused with the forced suffix.

Only the keys and values of the last latent token reach the readout, not its state, so that token and the suffix run as one
pass: K - 1 passes of one token and one pass of 1 + suffix tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..spec import GraphSpec, TensorSpec
from .backend import Backend, BoundGraph, Buffer


@dataclass(frozen=True)
class Prefix:
    """What prefill leaves for the rollout, all on the device."""

    state: Buffer  # [batch, hidden]
    anchor: Buffer  # [batch, hidden]
    cache: Mapping[str, Buffer]  # keys and values of every layer, [batch, kv_heads, tokens, head_dim]
    token_count: Buffer  # [batch]
    batch: int


@dataclass(frozen=True)
class RolloutBuffers:
    """The rollout's own buffers for one batch size. The caches are zeroed: a masked NaN would still poison a softmax."""

    step: Buffer
    rollout_keys: Buffer
    rollout_values: Buffer
    next_state: Buffer
    step_keys: Buffer
    step_values: Buffer
    router_probabilities: Buffer


# Called after every pass with the step's number and the rollout's buffers.
StepObserver = Callable[[int, RolloutBuffers], None]


class Rollout:
    """Runs graph `latent_step`. Buffers are allocated and bound once per batch, never per step."""

    def __init__(self, backend: Backend, spec: GraphSpec, suffix_embeddings: Buffer) -> None:
        self._backend, self._spec = backend, spec
        self._suffix = suffix_embeddings
        tensors = {tensor.name: tensor for tensor in spec.inputs}
        hidden = tensors["suffix_embeddings"].axes[1]
        assert isinstance(hidden, int)
        self._no_suffix = backend.zeros((0, hidden), tensors["suffix_embeddings"].dtype)

    def run(self, prefix: Prefix, steps: int, observe: StepObserver | None = None) -> Buffer:
        """Return the state [batch, hidden] at the suffix's last token. `steps` is at least 1."""
        buffers = self._allocate(prefix.batch)
        plain_step = self._bind(prefix, buffers, self._no_suffix)
        last_step = self._bind(prefix, buffers, self._suffix)
        for step in range(steps):
            self._backend.set_step(buffers.step, step)
            is_last = step == steps - 1
            (last_step if is_last else plain_step).run()
            if observe is not None:
                observe(step, buffers)
            if not is_last:
                self._backend.copy(buffers.next_state, prefix.state)
                self._backend.copy_to_slot(buffers.step_keys, buffers.rollout_keys, step)
                self._backend.copy_to_slot(buffers.step_values, buffers.rollout_values, step)
        return buffers.next_state

    def _allocate(self, batch: int) -> RolloutBuffers:
        tensors = {tensor.name: tensor for tensor in (*self._spec.inputs, *self._spec.outputs)}
        names = RolloutBuffers.__dataclass_fields__
        return RolloutBuffers(**{name: self._zeros(tensors[name], batch) for name in names})

    def _zeros(self, tensor: TensorSpec, batch: int) -> Buffer:
        shape = [axis if isinstance(axis, int) else {"batch": batch}[axis] for axis in tensor.axes]
        return self._backend.zeros(shape, tensor.dtype)

    def _bind(self, prefix: Prefix, buffers: RolloutBuffers, suffix: Buffer) -> BoundGraph:
        inputs = {"suffix_embeddings": suffix, **prefix.cache}
        for tensor in self._spec.inputs:
            if tensor.name not in inputs:
                inputs[tensor.name] = getattr(prefix if hasattr(prefix, tensor.name) else buffers, tensor.name)
        outputs = {tensor.name: getattr(buffers, tensor.name) for tensor in self._spec.outputs}
        return self._backend.session("latent_step").bind(inputs, outputs)
