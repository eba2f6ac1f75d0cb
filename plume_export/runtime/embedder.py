"""Embed text, images and videos as unit vectors."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from threading import RLock
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray

from ..bundle import TOKENIZER, Bundle, Verify, open_bundle
from ..errors import InputError, OptionError, PlumeExportError
from ..inputs import ItemLike, MediaOptions, NoticeTally, PreparedInput, Preprocessor, item_from
from ..machine.cores import check_threads
from ..progress import Advance, progress_bar
from ..stages import FloatArray, Stages
from .backend import Backend
from .embedder_options import Mode, OnError, check_conversion, check_on_error, check_rollout, checked_steps, is_one_item
from .observed_stages import observed_stages
from .open_backend import open_backend
from .output_rows import OutputDtype, check_output_dtype, rows_from_embeddings, unit_rows
from .runner import Runner
from .stopwatch import Stopwatch
from .windows import embed_windows, rows_by_length

_BATCH_SIZE = 8
# Maximum number of items named in a warning.
_NAMED_ITEMS = 10


class Embedder:
    """Embeds items with a bundle.

    A context manager: `close` frees the sessions and their memory. Threads may share an embedder and take turns by batch.

    Args:
        bundle: The bundle's directory, or an open bundle.
        mode: "gen" runs the latent rollout. "disc" returns the discriminative embedding of a single pass, without a rollout.
        steps: Number of latent steps, for ablations; 0 appends the suffix to the prompt. None: the number of the bundle.
        threads: CPU threads per operator, at most the number of logical CPUs. None: one per core that is available.
        allow_control_tokens: Whether control tokens that are typed in a text act as such, as in the original code.
        exif_transpose: Whether to rotate images by their EXIF orientation. The original code does not.
        video_frames: Number of frames to sample from a video file, even. None: chosen by `video_fps`.
        video_fps: Frames per second to sample from a video file. None: 2, as in the original code.
        verify_hashes: False checks file names and sizes only. "always" hashes the files even if the bundle was verified before.
        backend: Runs the graphs instead of the backend that the bundle was compiled for. The embedder closes it.

    Raises:
        BundleError: The bundle is corrupt, or this machine cannot run it.
        PlumeExportError: Any other argument is invalid.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        mode: Mode = "gen",
        steps: int | None = None,
        threads: int | None = None,
        allow_control_tokens: bool = False,
        exif_transpose: bool = False,
        video_frames: int | None = None,
        video_fps: float | None = None,
        verify_hashes: Verify = True,
        backend: Backend | None = None,
    ) -> None:
        with ExitStack() as opened:
            if backend is not None:
                opened.callback(backend.close)
            check_threads(threads)
            check_rollout(mode, steps)
            self.media_options = MediaOptions(exif_transpose, video_frames, video_fps)
            if not isinstance(bundle, Bundle):
                bundle = open_bundle(bundle, verify_hashes=verify_hashes)
            self.bundle = bundle
            self.stopwatch = Stopwatch()
            self.mode, self.allow_control_tokens = mode, allow_control_tokens
            self.steps = checked_steps(steps, bundle.manifest.model.rollout.latent_steps)
            self.preprocessor = Preprocessor(
                bundle.file(TOKENIZER).read_text(encoding="utf-8"),
                bundle.manifest.model,
                allow_control_tokens=allow_control_tokens,
                limits=bundle.manifest.limits,
                media=self.media_options,
            )
            if backend is None:
                backend = open_backend(bundle, threads=threads)
                opened.callback(backend.close)
            self._runner = Runner(backend, bundle, self.steps, self.stopwatch)
            opened.callback(self._runner.close)
            self._opened = opened.pop_all()
        self._lock = RLock()
        self._is_closed = False

    @property
    def dimension(self) -> int:
        """Number of elements of an embedding."""
        return self.bundle.manifest.model.decoder.hidden

    @overload
    def embed(
        self,
        items: Iterable[ItemLike],
        *,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        output_dtype: Literal["float32"] = "float32",
    ) -> FloatArray: ...

    @overload
    def embed(
        self,
        items: Iterable[ItemLike],
        *,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        output_dtype: OutputDtype,
    ) -> NDArray[Any]: ...

    def embed(
        self,
        items: Iterable[ItemLike],
        *,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        output_dtype: OutputDtype = "float32",
    ) -> NDArray[Any]:
        """Embed items. With many, a thread prepares items while others are embedded.

        Args:
            items: Texts, images or Items.
            batch_size: Items per batch. None: 8, or the bundle's maximum if that is smaller.
            on_error: "raise" stops at the first item that cannot be embedded. "skip" gives such an item a row of NaN and
                names all of them in one UserWarning; int8 and binary have no NaN, so they cannot be combined with it.
            output_dtype: "float32"; "float16"; "int8", which is round(127 x); or "binary": the bits of x > 0 in uint8, with
                the first element in the highest bit, as numpy.packbits does.

        Returns:
            Unit vectors [items, hidden] in the order of the items; binary ones are [items, hidden / 8].

        Raises:
            InputError: `items` is not a list, or an item cannot be embedded. `index` of the error is the item's position.
            PlumeExportError: An option is invalid, or the embedder is closed.
        """
        if is_one_item(items):
            raise InputError(
                f"embed takes a list of items, but got one {type(items).__name__}.", fix="embed([item]), or encode(item)"
            )
        check_on_error(on_error)
        is_skipping = on_error == "skip"
        check_output_dtype(output_dtype, is_skipping=is_skipping)
        embeddings = self._embed(items, _add_position, batch_size=batch_size, is_skipping=is_skipping)
        return rows_from_embeddings(embeddings, output_dtype)

    @overload
    def encode(
        self,
        sentences: ItemLike | Sequence[ItemLike],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
        output_dtype: Literal["float32"] = "float32",
    ) -> FloatArray: ...

    @overload
    def encode(
        self,
        sentences: ItemLike | Sequence[ItemLike],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
        output_dtype: OutputDtype,
    ) -> NDArray[Any]: ...

    def encode(
        self,
        sentences: ItemLike | Sequence[ItemLike],
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
        output_dtype: OutputDtype = "float32",
    ) -> NDArray[Any]:
        """Embed with the signature of SentenceTransformer's encode.

        Args:
            sentences: One item, or a list or array of items.
            batch_size: Items per batch, as for `embed`.
            show_progress_bar: Whether to show a progress bar on stderr.
            convert_to_numpy: Must be True, because embeddings are always in numpy.
            convert_to_tensor: Must be False, for the same reason.
            normalize_embeddings: Must be True, because embeddings are always unit vectors.
            output_dtype: As for `embed`.

        Returns:
            A vector [hidden] for one item; [items, hidden] for a list or array.

        Raises:
            InputError: An item cannot be embedded.
            PlumeExportError: An option is invalid, or the embedder is closed.
        """
        check_conversion(convert_to_numpy, convert_to_tensor, normalize_embeddings)
        check_output_dtype(output_dtype, is_skipping=False)
        if isinstance(sentences, np.ndarray) and sentences.dtype.kind in "OSTU":
            sentences = sentences.tolist()
        if not isinstance(sentences, list | tuple):
            one = self._embed([cast(ItemLike, sentences)], lambda *_: None, batch_size=1)
            vector: NDArray[Any] = rows_from_embeddings(one, output_dtype)[0]
            return vector
        with progress_bar(len(sentences), "items", is_shown=bool(show_progress_bar)) as advance:
            embeddings = self._embed(sentences, _add_position, batch_size=batch_size, advance=advance)
        return rows_from_embeddings(embeddings, output_dtype)

    def prepare(self, item: ItemLike) -> PreparedInput:
        """Preprocess one item into a prompt. Raises InputError."""
        with self.stopwatch.stage("preprocess"):
            item = item_from(item)
            if self.bundle.manifest.modalities == "text" and (item.images or item.video is not None):
                raise InputError(
                    f"The bundle {self.bundle.path} was built for text only, but the input has an image or a video.",
                    fix="plume-export build without --modalities text",
                )
            return self.preprocessor.prepare(item)

    def embed_prepared(
        self, prepared: Sequence[PreparedInput], *, batch_size: int | None = None, advance: Advance = lambda _: None
    ) -> FloatArray:
        """Return unit vectors [inputs, hidden]. Prompts of similar lengths share a batch to reduce padding.

        Raises InputError with the `index` of the first input whose embedding is not finite.
        """
        embeddings = self.embed_batches(prepared, self.checked_batch_size(batch_size), advance)
        is_finite = np.isfinite(embeddings).all(axis=1)
        if not is_finite.all():
            raise self.non_finite_error(int(is_finite.argmin()))
        return embeddings

    def embed_batches(self, prepared: Sequence[PreparedInput], batch_size: int, advance: Advance) -> FloatArray:
        """Return unit vectors like `embed_prepared`, with a row of NaN for an input whose embedding is not finite.

        `batch_size` comes from `checked_batch_size`. The other rows of a batch are not affected.
        """
        embeddings = np.empty((len(prepared), self.dimension), np.float32)
        for rows in rows_by_length([item.token_count for item in prepared], batch_size):
            embeddings[rows] = self._embed_batch([prepared[row] for row in rows])
            advance(len(rows))
        embeddings[~np.isfinite(embeddings).all(axis=1)] = np.nan
        return embeddings

    def non_finite_error(self, index: int) -> InputError:
        """Return the error for an input whose embedding is not finite. The fix depends on the bundle's precision."""
        precision = self.bundle.manifest.precision
        # A CPU always computes in float32 and does not support bfloat16.
        wider = "fp32" if precision == "bf16" or self.bundle.manifest.backend == "onnxruntime" else "bf16 or fp32"
        fix = "omit the input, or try another checkpoint" if precision == "fp32" else f"build with --precision {wider}"
        error = InputError(
            f"The embedding is not finite. The bundle {self.bundle.path} (precision {precision}) computed it.",
            fix=f"{fix}; `plume-export parity` names the first stage that fails",
        )
        error.index = index
        return error

    def checked_batch_size(self, batch_size: int | None) -> int:
        """Return the batch size, or the default for None. Raises PlumeExportError if the bundle does not accept it."""
        limits = self.bundle.manifest.limits
        most = None if limits is None else limits.batch.max
        if batch_size is None:
            return _BATCH_SIZE if most is None else min(_BATCH_SIZE, most)
        if batch_size < 1:
            raise OptionError(f"batch_size is {batch_size}; expected 1 or more.", fix="choose a --batch-size, such as 8")
        if most is not None and batch_size > most:
            raise PlumeExportError(
                f"batch_size is {batch_size}; the bundle {self.bundle.path} accepts 1 to {most}.",
                fix="choose a --batch-size in that range, or compile for a --target with a larger batch",
            )
        return batch_size

    def stages(self, item: ItemLike) -> Stages:
        """Return the output of every stage that the runtime can observe for one item. `parity` compares them."""
        prepared = self.prepare(item)
        with self._running() as runner:
            model, with_suffix = self.bundle.manifest.model, self.preprocessor.with_suffix
            return observed_stages(runner, prepared, with_suffix, model=model, steps=self.steps)

    def close(self) -> None:
        """Free sessions, buffers and the backend. Closing again does nothing."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._opened.close()

    def __enter__(self) -> "Embedder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _running(self) -> Iterator[Runner]:
        """Yield the runner to one thread at a time, because buffers and sessions are shared.

        Raises PlumeExportError after `close`.
        """
        with self._lock:
            if self._is_closed:
                raise PlumeExportError(f"The embedder of {self.bundle.path} is closed.", fix="open a new one")
            yield self._runner

    def _embed(
        self,
        items: Iterable[ItemLike],
        identify: Callable[[InputError, ItemLike], None],
        *,
        batch_size: int | None,
        is_skipping: bool = False,
        advance: Advance = lambda _: None,
    ) -> FloatArray:
        """Return the embeddings. Warnings point at the line that called `embed` or `encode`."""
        parts, errors, tally = [np.empty((0, self.dimension), np.float32)], list[InputError](), NoticeTally()
        windows = embed_windows(
            self,
            items,
            read=lambda item: item,
            identify=identify,
            batch_size=self.checked_batch_size(batch_size),
            is_skipping=is_skipping,
            advance=advance,
            notify=tally.add,
        )
        with closing(windows):
            for window in windows:
                parts.append(window.embeddings)
                errors += (error for _, error in sorted(window.errors.items()))
        tally.warn(stacklevel=3)
        if errors:
            warnings.warn(_skipped_text(errors), UserWarning, stacklevel=3)
        return np.concatenate(parts)

    def _embed_batch(self, batch: list[PreparedInput]) -> FloatArray:
        with self._running() as runner:
            return unit_rows(self._final_states(batch, runner))

    def _final_states(self, batch: list[PreparedInput], runner: Runner) -> FloatArray:
        """Return the states [batch, hidden], which are normalised to give the embeddings."""
        if self.steps == 0 and self.mode == "gen":
            batch = [self.preprocessor.with_suffix(item) for item in batch]
        prefilled = runner.prefill(batch)
        if self.mode == "disc":
            return runner.download(prefilled.buffer("anchor"))
        if self.steps == 0:
            return runner.download(prefilled.buffer("state"))
        return runner.roll_out(prefilled)


def _add_position(error: InputError, _item: ItemLike) -> None:
    error.add_place(f"item {error.index}")


def _skipped_text(errors: Sequence[InputError]) -> str:
    named = [f"item {error.index}: {error.message}" for error in errors[:_NAMED_ITEMS]]
    more = len(errors) - len(named)
    return (
        f"{len(errors)} item{'s' * (len(errors) != 1)} could not be embedded; the rows are NaN. "
        + " ".join(named)
        + (f" And {more} more." if more else "")
    )
