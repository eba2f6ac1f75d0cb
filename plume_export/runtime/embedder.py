"""Text, images and videos in, one unit vector each out."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..bundle import CONSTANTS, TOKENIZER, Bundle, open_bundle
from ..errors import BundleError, InputError, PlumeExportError
from ..preprocess import Media, PreparedInput, Preprocessor, item_from, patch_positions
from ..spec import COMPUTE_DTYPE
from ..stages import FloatArray, Stages
from .backend import Backend, Buffer
from .onnxruntime_cpu import OnnxRuntimeCpu
from .rollout import Prefix, Rollout, RolloutBuffers, StepObserver
from .stopwatch import Stopwatch

Mode = Literal["gen", "disc"]
# What `item_from` takes: a text, a PIL image, an Item, or a mapping with text, image, video.
ItemLike = Any


class Embedder:
    """Embeds items with a bundle. A context manager; `close` frees the sessions.

    `mode="gen"` runs the latent rollout; `mode="disc"` returns the single-pass discriminative embedding. `steps` shortens
    the rollout for ablations (0 appends the suffix to the prompt). `threads` limits the CPU threads of one operator.
    `backend` runs the graphs instead of ONNX Runtime's CPU provider; the embedder closes it.

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
        if backend is None and bundle.manifest.engines is not None:
            raise BundleError(
                f"{bundle.path} holds {bundle.manifest.backend} engines, and this version has no runtime for them.",
                fix="compile the portable bundle for --target cpu to run it here",
            )
        self.bundle = bundle
        self.stopwatch = Stopwatch()
        self._manifest = bundle.manifest
        self._model = self._manifest.model
        self._mode = mode
        self._steps = _checked_steps(steps, self._model.rollout.latent_steps)
        tokenizer_json = bundle.file(TOKENIZER).read_text(encoding="utf-8")
        self.preprocessor = Preprocessor(tokenizer_json, self._model, allow_control_tokens=allow_control_tokens)
        self._backend = OnnxRuntimeCpu(bundle, threads=threads) if backend is None else backend
        self._compute = COMPUTE_DTYPE[self._manifest.precision]
        with np.load(bundle.file(CONSTANTS)) as constants:
            self._blank = self._backend.upload(constants["blank_visual_embeddings"], self._compute)
            suffix = self._backend.upload(constants["suffix_embeddings"], self._compute)
        self._rollout = Rollout(self._backend, self._manifest.graphs["latent_step"], suffix)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self._model.decoder.hidden

    def embed(self, items: Iterable[ItemLike], *, batch_size: int = 8) -> FloatArray:
        """Return unit vectors, float32 [items, hidden]. Raises InputError for an item that can not be embedded."""
        rows = list(self.embed_batches((self.prepare(item) for item in items), batch_size=batch_size))
        return np.concatenate(rows) if rows else np.empty((0, self.dimension), np.float32)

    def encode(self, sentences: ItemLike | Sequence[ItemLike], *, batch_size: int = 8) -> FloatArray:
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

    def embed_batches(self, prepared: Iterable[PreparedInput], *, batch_size: int) -> Iterator[FloatArray]:
        """Yield unit vectors [batch, hidden] for consecutive batches of mixed lengths."""
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

        def observe(step: int, buffers: RolloutBuffers) -> None:
            probabilities.append(self._backend.download(buffers.router_probabilities)[0])
            if step < self._steps - 1:
                latent_states.append(self._backend.download(buffers.next_state)[0])

        prefix, visual = self._prefill([prepared])
        download = self._backend.download
        prefix_state, anchor = download(prefix.state)[0], download(prefix.anchor)[0]
        if self._steps > 0:
            embedding = self._roll_out(prefix, observe)
        else:
            embedding = download(self._prefill([self._with_suffix(prepared)])[0].state)
        experts = self._model.transition.experts
        return Stages(
            visual_embeddings=download(visual),
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
        if self._mode == "disc":
            prefix, _ = self._prefill(batch)
            return self._backend.download(prefix.anchor)
        if self._steps == 0:
            prefix, _ = self._prefill([self._with_suffix(item) for item in batch])
            return self._backend.download(prefix.state)
        prefix, _ = self._prefill(batch)
        return self._roll_out(prefix)

    def _roll_out(self, prefix: Prefix, observe: StepObserver | None = None) -> FloatArray:
        with self.stopwatch.stage("rollout"):
            if self._model.rollout.router_context == "none":
                hidden = (prefix.batch, self.dimension)
                self._backend.copy(self._backend.zeros(hidden, "float32"), prefix.anchor)
            return self._backend.download(self._rollout.run(prefix, self._steps, observe))

    def _with_suffix(self, item: PreparedInput) -> PreparedInput:
        """Append the forced suffix to a prompt, for a rollout of no steps; positions continue by KV length."""
        suffix_ids = self.preprocessor.suffix_ids
        positions = np.arange(item.token_count, item.token_count + len(suffix_ids))
        return dataclasses.replace(
            item,
            input_ids=np.concatenate([item.input_ids, suffix_ids]),
            position_ids=np.concatenate([item.position_ids, np.tile(positions, (3, 1))], axis=1),
            visual_index=np.concatenate([item.visual_index, np.full(len(suffix_ids), -1)]),
        )

    def _prefill(self, batch: list[PreparedInput]) -> tuple[Prefix, Buffer]:
        """Run vision and prefill; return what the rollout needs and the visual embeddings of the whole batch."""
        visual = self._backend.concatenate([self._encode_media(media) for item in batch for media in item.media])
        with self.stopwatch.stage("prefill"):
            inputs = self._prefill_inputs(batch, visual)
            sizes = {"batch": len(batch), "tokens": inputs["input_ids"].shape[1]}
            outputs = {
                tensor.name: self._backend.zeros([a if isinstance(a, int) else sizes[a] for a in tensor.axes], tensor.dtype)
                for tensor in self._manifest.graphs["prefill"].outputs
            }
            self._backend.session("prefill").bind(inputs, outputs).run()
        state, anchor = outputs.pop("state"), outputs.pop("anchor")
        return Prefix(state, anchor, outputs, inputs["token_count"], len(batch)), visual

    def _prefill_inputs(self, batch: list[PreparedInput], visual: Buffer) -> dict[str, Buffer]:
        """Pad the prompts on the right; rows of `visual_index` are offset to the batch's visual embeddings."""
        shape = (len(batch), max(item.token_count for item in batch))
        input_ids, visual_index = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        position_ids = np.zeros((3, *shape), np.int64)
        visual_offset = 0
        for row, item in enumerate(batch):
            tokens = item.token_count
            input_ids[row, :tokens] = item.input_ids
            visual_index[row, :tokens] = np.where(item.visual_index >= 0, item.visual_index + visual_offset, -1)
            position_ids[:, row, :tokens] = item.position_ids
            visual_offset += item.visual_token_count
        arrays = {
            "input_ids": input_ids,
            "visual_index": visual_index,
            "position_ids": position_ids,
            "token_count": np.array([item.token_count for item in batch]),
            "anchor_index": np.array([item.anchor_index for item in batch]),
        }
        return {"visual_embeddings": visual} | {name: self._backend.upload(array, "int64") for name, array in arrays.items()}

    def _encode_media(self, media: Media) -> Buffer:
        """Return the visual embeddings of one image or video; the blank image's are part of the bundle."""
        if media.is_blank:
            return self._blank
        with self.stopwatch.stage("vision"):
            vision = self._model.vision
            tokens = media.patches.shape[0] * media.patches.shape[1] // vision.merged_patches
            inputs = {
                "patches": self._backend.upload(media.patches, "float32"),
                "patch_positions": self._backend.upload(patch_positions(media.grid, vision.merge_size), "int64"),
            }
            visual = self._backend.zeros((tokens, self.dimension), self._compute)
            self._backend.session("vision_encoder").bind(inputs, {"visual_embeddings": visual}).run()
            return visual


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
