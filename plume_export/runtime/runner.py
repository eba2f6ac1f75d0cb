"""Run one batch of preprocessed prompts through the three graphs, on any backend."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_constants
from ..inputs import PreparedInput
from ..spec import DType, GraphName
from ..stages import FloatArray
from .backend import Backend, Buffer, Session, TensorShape
from .batch import HostBatch, host_batch
from .rollout import Rollout, StepObserver
from .stopwatch import Stopwatch
from .workspace import Workspace, Workspaces

_VISUAL, _ONE_CALL = "visual_embeddings", "visual_embeddings of one call"


@dataclass(frozen=True)
class Prefilled:
    """Results of prefill for a batch: its buffers by tensor name, and the visual embeddings of all its prompts."""

    workspace: Workspace
    visual_embeddings: Buffer  # [visual_tokens, hidden]
    visual_rows: NDArray[np.int64]  # [visual_tokens]: row in `visual_embeddings`, in the order of the prompts

    def buffer(self, name: str) -> Buffer:
        return self.workspace.buffers[name]


class Runner:
    """Runs batches, one at a time. Graphs are loaded on first use. `close` closes the sessions, not the backend."""

    def __init__(self, backend: Backend, bundle: Bundle, steps: int, stopwatch: Stopwatch) -> None:
        self._backend, self._stopwatch = backend, stopwatch
        manifest = bundle.manifest
        self._model, self._graphs, self._limits = manifest.model, manifest.graphs, manifest.limits
        suffix_spec = next(tensor for tensor in self._graphs["latent_step"].inputs if tensor.name == "suffix_embeddings")
        self._compute: DType = suffix_spec.dtype
        constants = read_constants(bundle.path, self._model)
        bundle.check_not_replaced()
        self._blank = backend.constant(constants.blank_visual_embeddings, self._compute)
        suffix = backend.constant(constants.suffix_embeddings, self._compute)
        rollout = Rollout(backend, self._graphs["latent_step"], suffix, steps)
        self._workspaces = Workspaces(backend, self._graphs, rollout)
        self._sessions: dict[GraphName, Session] = {}

    def prefill(self, batch: Sequence[PreparedInput]) -> Prefilled:
        """Run the vision encoder and prefill. Results of an earlier batch are overwritten."""
        tokens = self._backend.padded_tokens(max(item.token_count for item in batch))
        with self._stopwatch.stage("preprocess"):
            host = host_batch(batch, tokens, self._model.vision, self._limits)
        uploaded = self._backend.upload(host.arrays)
        visual = self._encode_media(host, uploaded)
        with self._stage("prefill"):
            workspace = self._workspaces.of(len(batch), tokens)
            self._backend.copy(uploaded["token_count"], workspace.buffers["token_count"])
            spec = self._graphs["prefill"]
            known = uploaded | workspace.buffers | {_VISUAL: visual}
            inputs, outputs = ({tensor.name: known[tensor.name] for tensor in side} for side in (spec.inputs, spec.outputs))
            self._session("prefill").bind(inputs, outputs).run()
        return Prefilled(workspace, visual, host.visual_rows)

    def roll_out(self, prefilled: Prefilled, observe: StepObserver | None = None) -> FloatArray:
        """Return the states [batch, hidden] at the suffix's last token. The prefilled states are overwritten."""
        with self._stage("rollout"):
            if self._model.rollout.router_context == "none":
                self._backend.clear(prefilled.buffer("anchor"))
            return self.download(prefilled.workspace.rollout.run(observe))

    def download(self, buffer: Buffer) -> FloatArray:
        """Return a host copy in float32."""
        return self._backend.download(buffer)

    def close(self) -> None:
        """Close all sessions."""
        self._workspaces.close()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _encode_media(self, host: HostBatch, uploaded: Mapping[str, Buffer]) -> Buffer:
        """Return the visual embeddings of a batch [visual_tokens, hidden]. Those of the blank image come from the bundle."""
        most = max(call.visual_tokens for call in host.vision_calls)
        rows = {
            _VISUAL: host.visual_tokens,
            _ONE_CALL: most,
        }  # engines need aligned outputs, but rows of the whole array are not aligned
        hidden = self._model.decoder.hidden
        buffers = self._backend.allocate("media", {n: TensorShape((count, hidden), self._compute) for n, count in rows.items()})
        row = 0
        for call in host.vision_calls:
            target = self._backend.rows(buffers[_VISUAL], row, row + call.visual_tokens)
            if call.patches is None:
                self._backend.copy(self._blank, target)
            else:
                output = self._backend.rows(buffers[_ONE_CALL], 0, call.visual_tokens)
                inputs = {"patches": uploaded[call.patches], "patch_positions": uploaded[call.patch_positions]}
                with self._stage("vision"):
                    self._session("vision_encoder").bind(inputs, {"visual_embeddings": output}).run()
                self._backend.copy(output, target)
            row += call.visual_tokens
        return buffers[_VISUAL]

    def _session(self, graph: GraphName) -> Session:
        """Return the only session of the vision encoder or of prefill, loading the graph on first use."""
        if graph not in self._sessions:
            self._sessions[graph] = self._backend.session(graph)
        return self._sessions[graph]

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Measure the time of a stage, including the wait until the device has finished it."""
        with self._stopwatch.stage(name):
            yield
            self._backend.wait()
