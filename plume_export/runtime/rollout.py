"""The latent rollout: K steps over a split cache, the last one fused with the forced suffix.

Only the keys and values of the last latent token reach the readout, not its state, so that token and the suffix run as one
pass: K - 1 passes of one token and one pass of 1 + suffix tokens.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ..spec import GraphSpec
from .backend import Backend, Buffer, Session

# The buffers of one batch by the tensors' names: everything that graph `latent_step` reads or writes, but the suffix.
BatchBuffers = Mapping[str, Buffer]
# Called after every pass with the step's number.
StepObserver = Callable[[int], None]


class Rollout:
    """Runs graph `latent_step`. `bind` once for the buffers of a kind of batch, then run any number of times."""

    def __init__(self, backend: Backend, spec: GraphSpec, suffix_embeddings: Buffer, steps: int) -> None:
        self._backend, self._spec, self._suffix = backend, spec, suffix_embeddings
        self._no_suffix = backend.rows(suffix_embeddings, 0, 0)
        numbers = backend.constant(np.arange(steps), "int64")
        self._step_numbers = [backend.rows(numbers, step, step + 1) for step in range(steps)]

    def bind(self, buffers: BatchBuffers) -> "BoundRollout":
        """Bind the graph to buffers that the caller keeps.

        A plain step and the last one have a session each, and every rollout its own two: a recorded run holds what its session
        was set to.
        """
        outputs = {tensor.name: buffers[tensor.name] for tensor in self._spec.outputs}
        sessions = [self._backend.session("latent_step") for _ in range(2)]
        plain_step, last_step = (
            session.bind(self._inputs(buffers, suffix), outputs)
            for session, suffix in zip(sessions, (self._no_suffix, self._suffix), strict=True)
        )
        return BoundRollout(self._backend, buffers, self._step_numbers, sessions, plain_step.run, last_step.run)

    def _inputs(self, buffers: BatchBuffers, suffix: Buffer) -> BatchBuffers:
        known = {**buffers, "suffix_embeddings": suffix}
        return {tensor.name: known[tensor.name] for tensor in self._spec.inputs}


class BoundRollout:
    """A rollout over fixed buffers: nothing is allocated, and between the steps nothing leaves the device."""

    def __init__(
        self,
        backend: Backend,
        buffers: BatchBuffers,
        step_numbers: list[Buffer],
        sessions: list[Session],
        run_plain_step: Callable[[], None],
        run_last_step: Callable[[], None],
    ) -> None:
        self._backend, self._buffers, self._step_numbers = backend, buffers, step_numbers
        self._sessions, self._run_plain_step, self._run_last_step = sessions, run_plain_step, run_last_step
        keys, values = (
            [backend.rows(buffers[name], step, step + 1) for step in range(len(step_numbers))]
            for name in ("rollout_keys", "rollout_values")
        )
        self._slots = list(zip(keys, values, strict=True))
        self._replay = backend.replayable(self._run_steps)

    def run(self, observe: StepObserver | None = None) -> Buffer:
        """Return the state [batch, hidden] at the suffix's last token. `state` is overwritten.

        With an observer the steps run one by one, without it as the backend replays them.
        """
        if observe is None:
            self._replay.run()
        else:
            self._run_steps(observe)
        return self._buffers["next_state"]

    def close(self) -> None:
        """Free what was recorded, then the sessions."""
        self._replay.close()
        del self._replay  # it refers to this rollout, which would keep the buffers until Python looks for cycles
        for session in self._sessions:
            session.close()

    def _run_steps(self, observe: StepObserver = lambda _: None) -> None:
        copy, buffers = self._backend.copy, self._buffers
        for name in ("rollout_keys", "rollout_values"):
            self._backend.clear(buffers[name])  # a masked NaN of an earlier batch would still poison a softmax
        last = len(self._step_numbers) - 1
        for step, number in enumerate(self._step_numbers):
            copy(number, buffers["step"])
            if step == last:
                self._run_last_step()
                observe(step)
                return
            self._run_plain_step()
            observe(step)
            keys, values = self._slots[step]
            copy(buffers["next_state"], buffers["state"])
            copy(buffers["step_keys"], keys)
            copy(buffers["step_values"], values)
