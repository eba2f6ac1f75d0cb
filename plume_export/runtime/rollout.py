"""The latent rollout: K steps over a split cache. The last step is fused with the fixed suffix.

The suffix reads only the keys and values of the last latent token, not its state. That token and the suffix therefore run as
one pass: K - 1 passes of one token and one pass of 1 + suffix tokens.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ..spec import GraphSpec
from .backend import Backend, Buffer, Session

# Buffers of one batch by tensor name: everything that graph `latent_step` reads or writes, except the suffix.
BatchBuffers = Mapping[str, Buffer]
# Called after every pass with the number of the step.
StepObserver = Callable[[int], None]


class Rollout:
    """Runs graph `latent_step`. Call `bind` once per set of buffers, then run the result any number of times."""

    def __init__(self, backend: Backend, spec: GraphSpec, suffix_embeddings: Buffer, steps: int) -> None:
        self._backend, self._spec, self._suffix = backend, spec, suffix_embeddings
        self._no_suffix = backend.rows(suffix_embeddings, 0, 0)
        numbers = backend.constant(np.arange(steps), "int64")
        self._step_numbers = [backend.rows(numbers, step, step + 1) for step in range(steps)]

    def bind(self, buffers: BatchBuffers) -> "BoundRollout":
        """Bind the graph to buffers that the caller keeps.

        Every bound rollout has two sessions of its own, one for the plain steps and one for the last step, because a recorded
        CUDA graph depends on the state of its sessions.
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
    """A rollout over fixed buffers. It allocates nothing, and no data leaves the device between the steps."""

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

        With an observer the steps run one by one. Otherwise the backend may replay them as one CUDA graph.
        """
        if observe is None:
            self._replay.run()
        else:
            self._run_steps(observe)
        return self._buffers["next_state"]

    def close(self) -> None:
        """Free the CUDA graph, if there is one, then the sessions."""
        self._replay.close()
        del self._replay  # it refers to this rollout, and the reference cycle would keep the buffers alive
        for session in self._sessions:
            session.close()

    def _run_steps(self, observe: StepObserver = lambda _: None) -> None:
        self._clear_rollout_cache()
        last = len(self._step_numbers) - 1
        for step in range(last):
            self._backend.copy(self._step_numbers[step], self._buffers["step"])
            self._run_plain_step()
            observe(step)
            self._feed_back(step)
        self._backend.copy(self._step_numbers[last], self._buffers["step"])
        self._run_last_step()
        observe(last)

    def _clear_rollout_cache(self) -> None:
        """Write zeros. A NaN of an earlier batch would spread through a softmax, even if masked."""
        for name in ("rollout_keys", "rollout_values"):
            self._backend.clear(self._buffers[name])

    def _feed_back(self, step: int) -> None:
        """Make the results of a step the inputs of the next."""
        copy, buffers = self._backend.copy, self._buffers
        keys, values = self._slots[step]
        copy(buffers["next_state"], buffers["state"])
        copy(buffers["step_keys"], keys)
        copy(buffers["step_values"], values)
