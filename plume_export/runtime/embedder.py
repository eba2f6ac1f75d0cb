"""Text, images and videos in, one unit vector each out."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..bundle import CONSTANTS, TOKENIZER, Bundle, open_bundle
from ..errors import InputError, PlumeExportError
from ..preprocess import PreparedInput, Preprocessor, item_from
from ..spec import COMPUTE_DTYPE, GraphName
from ..stages import FloatArray, Stages
from .backend import Backend, Buffer, Session, TensorShape
from .batch import HostBatch, host_batch
from .open_backend import open_backend
from .rollout import Rollout, StepObserver
from .stopwatch import Stopwatch
from .workspace import Workspace, Workspaces

Mode = Literal["gen", "disc"]
# What `item_from` takes: a text, a PIL image, an Item, or a mapping with text, image, video.
ItemLike = Any
_BATCH_SIZE = 8


class Embedder:
    """Embeds items with a bundle. A context manager; `close` frees the sessions.

    `mode="gen"` runs the latent rollout; `mode="disc"` returns the single-pass discriminative embedding. `steps` shortens
    the rollout for ablations (0 appends the suffix to the prompt). `threads` limits the CPU threads of one operator.
    `backend` runs the graphs instead of the one that the bundle was compiled for; the embedder closes it.

    Raises BundleError for a bundle that is damaged or that this machine can not run.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        mode: Mode = "gen",
        steps: int | None = None,
        threads: int | None = None,
        allow_control_tokens: bool = False,
        verify_hashes: bool = True,
        backend: Backend | None = None,
    ) -> None:
        if not isinstance(bundle, Bundle):
            bundle = open_bundle(bundle, verify_hashes=verify_hashes)
        self.bundle = bundle
        self.stopwatch = Stopwatch()
        self._manifest = bundle.manifest
        self._model = self._manifest.model
        self._mode = mode
        self._steps = _checked_steps(steps, self._model.rollout.latent_steps)
        tokenizer_json = bundle.file(TOKENIZER).read_text(encoding="utf-8")
        self._limits = self._manifest.limits
        self.preprocessor = Preprocessor(
            tokenizer_json, self._model, allow_control_tokens=allow_control_tokens, limits=self._limits
        )
        self._backend = open_backend(bundle, threads=threads) if backend is None else backend
        self._compute = COMPUTE_DTYPE[self._manifest.precision]
        with np.load(bundle.file(CONSTANTS)) as constants:
            self._blank = self._backend.constant(constants["blank_visual_embeddings"], self._compute)
            suffix = self._backend.constant(constants["suffix_embeddings"], self._compute)
        graphs = self._manifest.graphs
        rollout = Rollout(self._backend, graphs["latent_step"], suffix, self._steps)
        self._workspaces = Workspaces(self._backend, graphs, rollout)
        self._sessions: dict[GraphName, Session] = {}

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._model.decoder.hidden

    def embed(self, items: Iterable[ItemLike], *, batch_size: int | None = None) -> FloatArray:
        """Return unit vectors, float32 [items, hidden]. Raises InputError for an item that can not be embedded.

        `batch_size` is 8 if it is not given, or the most that the bundle was compiled for.
        """
        rows = list(self.embed_batches((self.prepare(item) for item in items), batch_size=batch_size))
        return np.concatenate(rows) if rows else np.empty((0, self.dimension), np.float32)

    def encode(self, sentences: ItemLike | Sequence[ItemLike], *, batch_size: int | None = None) -> FloatArray:
        """Like SentenceTransformer's encode: one item gives a vector [hidden], a list gives [items, hidden]."""
        if isinstance(sentences, list | tuple):
            return self.embed(sentences, batch_size=batch_size)
        vector: FloatArray = self.embed([sentences], batch_size=1)[0]
        return vector

    def prepare(self, item: ItemLike) -> PreparedInput:
        """Tokenise and patchify one item. Raises InputError."""
        with self.stopwatch.stage("preprocess"):
            item = item_from(item)
            if self._manifest.modalities == "text" and (item.images or item.video is not None):
                raise InputError(
                    f"The bundle {self.bundle.path} was built for text only; the input has an image or a video.",
                    fix="plume-export build without --modalities text",
                )
            return self.preprocessor.prepare(item)

    def embed_batches(self, prepared: Iterable[PreparedInput], *, batch_size: int | None = None) -> Iterator[FloatArray]:
        """Yield unit vectors [batch, hidden] for consecutive batches of mixed lengths."""
        batch_size = self._checked_batch_size(batch_size)
        batch: list[PreparedInput] = []
        for item in prepared:
            batch.append(item)
            if len(batch) == batch_size:
                yield self._embed_batch(batch)
                batch = []
        if batch:
            yield self._embed_batch(batch)

    def stages(self, item: ItemLike) -> Stages:
        """Return every stage that the runtime can see for one item, for parity."""
        prepared = self.prepare(item)
        latent_states: list[FloatArray] = []
        probabilities: list[FloatArray] = []

        def observe(step: int) -> None:
            probabilities.append(download(workspace.buffers["router_probabilities"])[0])
            if step < self._steps - 1:
                latent_states.append(download(workspace.buffers["next_state"])[0])

        download = self._backend.download
        workspace, visual = self._prefill([prepared])
        visual_embeddings = download(visual)
        prefix_state, anchor = download(workspace.buffers["state"])[0], download(workspace.buffers["anchor"])[0]
        if self._steps > 0:
            embedding = self._roll_out(workspace, observe)
        else:
            embedding = download(self._prefill([self.preprocessor.with_suffix(prepared)])[0].buffers["state"])
        experts = self._model.transition.experts
        return Stages(
            visual_embeddings=visual_embeddings,
            position_ids=prepared.position_ids,
            anchor=anchor,
            prefix_state=prefix_state,
            latent_states=np.array(latent_states, np.float32).reshape(-1, self.dimension),
            router_probabilities=np.array(probabilities, np.float32).reshape(-1, experts),
            embedding=_unit_rows(embedding)[0],
        )

    def close(self) -> None:
        self._backend.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed_batch(self, batch: list[PreparedInput]) -> FloatArray:
        embeddings = _unit_rows(self._final_states(batch))
        if not np.isfinite(embeddings).all():
            raise PlumeExportError(
                f"The bundle {self.bundle.path} computed an embedding that is not finite (its precision is "
                f"{self._manifest.precision}).",
                fix="build it with --precision bf16 or fp32; `plume-export parity` names the first stage that goes wrong",
            )
        return embeddings

    def _final_states(self, batch: list[PreparedInput]) -> NDArray[np.float32]:
        """Return the states [batch, hidden] that the embeddings are the direction of."""
        if self._steps == 0 and self._mode == "gen":
            batch = [self.preprocessor.with_suffix(item) for item in batch]
        workspace, _ = self._prefill(batch)
        if self._mode == "disc":
            return self._backend.download(workspace.buffers["anchor"])
        if self._steps == 0:
            return self._backend.download(workspace.buffers["state"])
        return self._roll_out(workspace)

    def _roll_out(self, workspace: Workspace, observe: StepObserver | None = None) -> FloatArray:
        with self._stage("rollout"):
            if self._model.rollout.router_context == "none":
                self._backend.clear(workspace.buffers["anchor"])
            return self._backend.download(workspace.rollout.run(observe))

    def _prefill(self, batch: list[PreparedInput]) -> tuple[Workspace, Buffer]:
        """Run vision and prefill; return the batch's buffers and the visual embeddings of the whole batch."""
        tokens = self._backend.padded_tokens(max(item.token_count for item in batch))
        max_frames = None if self._limits is None else self._limits.batch[2]
        host = host_batch(batch, tokens, self._model.vision, max_frames)
        uploaded = self._backend.upload(host.arrays)
        visual = self._encode_media(host, uploaded)
        with self._stage("prefill"):
            workspace = self._workspaces.of(len(batch), tokens)
            self._backend.copy(uploaded["token_count"], workspace.buffers["token_count"])
            spec = self._manifest.graphs["prefill"]
            known = uploaded | workspace.buffers | {"visual_embeddings": visual}
            inputs, outputs = ({tensor.name: known[tensor.name] for tensor in side} for side in (spec.inputs, spec.outputs))
            self._session("prefill").bind(inputs, outputs).run()
        return workspace, visual

    def _encode_media(self, host: HostBatch, uploaded: Mapping[str, Buffer]) -> Buffer:
        """Return the visual embeddings of a batch [visual_tokens, hidden]; the blank image's are part of the bundle."""
        most = max(call.visual_tokens for call in host.vision_calls)
        shapes = {
            "visual_embeddings": TensorShape((host.visual_tokens, self.dimension), self._compute),
            "of one call": TensorShape((most, self.dimension), self._compute),  # engines want aligned outputs
        }
        buffers = self._backend.allocate("media", shapes)
        row = 0
        for call in host.vision_calls:
            target = self._backend.rows(buffers["visual_embeddings"], row, row + call.visual_tokens)
            if call.patches is None:
                self._backend.copy(self._blank, target)
            else:
                output = self._backend.rows(buffers["of one call"], 0, call.visual_tokens)
                inputs = {"patches": uploaded[call.patches], "patch_positions": uploaded[call.patch_positions]}
                with self._stage("vision"):
                    self._session("vision_encoder").bind(inputs, {"visual_embeddings": output}).run()
                self._backend.copy(output, target)
            row += call.visual_tokens
        return buffers["visual_embeddings"]

    def _checked_batch_size(self, batch_size: int | None) -> int:
        most = None if self._limits is None else self._limits.batch[2]
        if batch_size is None:
            return _BATCH_SIZE if most is None else min(_BATCH_SIZE, most)
        if batch_size < 1 or (most is not None and batch_size > most):
            raise PlumeExportError(
                f"batch_size is {batch_size}; the bundle {self.bundle.path} takes 1 to {most or 'any number'}.",
                fix="lower --batch-size, or compile with a --target whose batch reaches it",
            )
        return batch_size

    def _session(self, graph: GraphName) -> Session:
        """Vision encoder and prefill have one session each, loaded when first needed."""
        if graph not in self._sessions:
            self._sessions[graph] = self._backend.session(graph)
        return self._sessions[graph]

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Measure a stage until the device has done it."""
        with self.stopwatch.stage(name):
            yield
            self._backend.wait()


def _checked_steps(steps: int | None, latent_steps: int) -> int:
    if steps is None:
        return latent_steps
    if not 0 <= steps <= latent_steps:
        raise PlumeExportError(
            f"steps is {steps}; this bundle's rollout takes 0 to {latent_steps}.",
            fix="choose a number in that range, or export with a larger --latent-steps",
        )
    return steps


def _unit_rows(states: NDArray[np.float32]) -> FloatArray:
    """L2-normalise in float32."""
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    unit: FloatArray = states / np.maximum(norms, np.float32(1e-12))
    return unit
