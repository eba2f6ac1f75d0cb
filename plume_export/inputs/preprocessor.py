"""Convert an item to the arrays of one prompt."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..recipe import ShapeRanges
from ..spec import ModelSpec
from .image import load_image, patches_from_image
from .item import Item, VideoSource
from .media_files import notices_of_text
from .media_options import MediaOptions
from .notice import FEWER_FRAMES, LONG_PROMPT_TOKENS, Notice, Notify
from .patches import Grid, Patches, patches_from_frames
from .positions import mrope_positions
from .prompt import PromptTokenizer
from .video import frame_token_count, frames_from_video, video_size

# Size of the blank image before a text-only input, as in the original evaluation.
_BLANK_SIZE = (28, 28)


@dataclass(frozen=True)
class Media:
    """One image or video. `is_blank` marks the white image before a text-only input."""

    patches: Patches
    grid: Grid
    is_blank: bool = False


@dataclass(frozen=True)
class PreparedInput:
    """One prompt, ready for the graphs."""

    input_ids: NDArray[np.int64]  # [tokens]
    position_ids: NDArray[np.int64]  # [3, tokens]
    visual_index: NDArray[np.int64]  # [tokens]: row in this input's visual embeddings, -1 for text
    anchor_index: int  # position of the last <disc_emb>
    media: tuple[Media, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def token_count(self) -> int:
        return len(self.input_ids)

    @property
    def visual_token_count(self) -> int:
        return int(self.visual_index.max(initial=-1)) + 1

    @property
    def patch_count(self) -> int:
        """Total number of patches in all images and videos. Their pixels use most of the memory."""
        return sum(medium.patches.shape[0] * medium.patches.shape[1] for medium in self.media)

    def extended(self, ids: Sequence[int] | NDArray[np.int64]) -> "PreparedInput":
        """Return this prompt with text tokens appended. Their positions on all axes are the KV length."""
        added = np.asarray(ids, np.int64)
        positions = np.broadcast_to(self.token_count + np.arange(len(added)), (3, len(added)))
        return PreparedInput(
            input_ids=np.concatenate([self.input_ids, added]),
            position_ids=np.concatenate([self.position_ids, positions], axis=1),
            visual_index=np.concatenate([self.visual_index, np.full(len(added), -1)]),
            anchor_index=self.anchor_index,
            media=self.media,
            notices=self.notices,
        )


class Preprocessor:
    """Turns items into prompts for one model.

    The maximum prompt length is the decoder's number of positions minus the latent steps and the suffix, or the maximum in the
    `limits` of a compiled bundle. With `allow_control_tokens`, control tokens in a user's text are interpreted, as in the
    original code. `media` sets how images and videos are read.

    Raises BundleError if the tokenizer is not PLUME's.
    """

    def __init__(
        self,
        tokenizer_json: str,
        model: ModelSpec,
        *,
        allow_control_tokens: bool = False,
        limits: ShapeRanges | None = None,
        media: MediaOptions | None = None,
    ) -> None:
        self._model = model
        self.media_options = media or MediaOptions()
        self._tokenizer = PromptTokenizer(tokenizer_json, model.rollout, allow_control_tokens=allow_control_tokens)
        room = model.decoder.max_positions - model.rollout.latent_steps - len(self.suffix_ids)
        self._limits = limits
        self.max_prompt_tokens = room if limits is None else min(room, limits.prompt_tokens[2])
        white = Image.new("RGB", _BLANK_SIZE, (255, 255, 255))
        self._blank = Media(*patches_from_image(white, model.vision, model.preprocess), is_blank=True)

    @property
    def suffix_ids(self) -> NDArray[np.int64]:
        """The fixed suffix, [suffix_tokens]."""
        return self._tokenizer.suffix_ids

    def prepare(self, item: Item) -> PreparedInput:
        """Return the prompt of one item: images, then the video, then the text.

        Raises InputError if media cannot be read or the prompt has more than `max_prompt_tokens` tokens.
        """
        notices: list[Notice] = []
        images, videos = self._media(item, notices.extend)
        media = (*images, *videos)
        input_ids = self._tokenizer.prompt_ids(
            item.text,
            image_token_counts=[self._token_count(medium.grid) for medium in images],
            video_token_counts=[self._token_count(medium.grid) for medium in videos],
        )
        visual_token_ids = (self._tokenizer.image_token_id, self._tokenizer.video_token_id)
        is_visual = np.isin(input_ids, visual_token_ids)
        self._check_token_count(len(input_ids), int(is_visual.sum()))
        position_ids = mrope_positions(
            input_ids,
            [medium.grid for medium in media],
            visual_token_ids=visual_token_ids,
            merge_size=self._model.vision.merge_size,
        )
        return PreparedInput(
            input_ids=input_ids,
            position_ids=position_ids,
            visual_index=np.where(is_visual, np.cumsum(is_visual) - 1, -1),
            anchor_index=int(np.flatnonzero(input_ids == self._tokenizer.anchor_token_id)[-1]),
            media=media,
            notices=(*notices, *self._notices_of_prompt(item, media, len(input_ids))),
        )

    def with_suffix(self, prepared: PreparedInput) -> PreparedInput:
        """Append the fixed suffix to a prompt, for zero latent steps. Raises InputError if the prompt becomes too long."""
        extended = prepared.extended(self.suffix_ids)
        self._check_token_count(extended.token_count, extended.visual_token_count)
        return extended

    def _notices_of_prompt(self, item: Item, media: tuple[Media, ...], token_count: int) -> list[Notice]:
        notices = notices_of_text(item.text) if all(medium.is_blank for medium in media) else []
        if token_count > LONG_PROMPT_TOKENS:
            fewer = self._fewer_token_count(item, media[-1].grid, token_count)
            notices.append(Notice("long prompt", _name(item), token_count=token_count, fewer_token_count=fewer))
        return notices

    def _fewer_token_count(self, item: Item, grid: Grid, token_count: int) -> int | None:
        """Return how many tokens the prompt would have if its video file were sampled at FEWER_FRAMES frames.

        `grid` is the video's present grid. Returns None if there is no video file, or if sampling would not reduce the tokens.
        """
        vision, preprocess = self._model.vision, self._model.preprocess
        if not isinstance(item.video, str | os.PathLike) or grid[0] * vision.temporal_patch_size <= FEWER_FRAMES:
            return None
        factor = vision.patch_size * vision.merge_size
        of_frame = frame_token_count(*video_size(item.video), FEWER_FRAMES, factor, preprocess)
        return token_count - self._token_count(grid) + of_frame * FEWER_FRAMES // vision.temporal_patch_size

    def _media(self, item: Item, notify: Notify) -> tuple[list[Media], list[Media]]:
        """Return the images and the videos. Stop with InputError as soon as their visual tokens exceed the limit."""
        if not item.images and item.video is None:
            return [self._blank], []
        images: list[Media] = []
        visual_token_count = 0
        for source in item.images:
            image = load_image(source, exif_transpose=self.media_options.exif_transpose, notify=notify)
            images.append(Media(*patches_from_image(image, self._model.vision, self._model.preprocess)))
            self._check_frame(self._token_count((1, *images[-1].grid[1:])), "An image")
            visual_token_count += self._token_count(images[-1].grid)
            self._check_token_count(visual_token_count, visual_token_count, is_partial=True)
        videos = [] if item.video is None else [self._video(item.video, visual_token_count, notify)]
        return images, videos

    def _video(self, source: VideoSource, image_token_count: int, notify: Notify) -> Media:
        vision, preprocess = self._model.vision, self._model.preprocess
        frames = frames_from_video(source, vision, preprocess, self.media_options, notify)  # [frames, height, width, 3]
        count, height, width, _ = frames.shape
        grid = (count // vision.temporal_patch_size, height // vision.patch_size, width // vision.patch_size)
        visual_token_count = image_token_count + self._token_count(grid)
        self._check_token_count(visual_token_count, visual_token_count, is_partial=True)
        self._check_frame(self._token_count((1, *grid[1:])), "A frame of the video")
        return Media(*patches_from_frames(frames, vision, preprocess))

    def _token_count(self, grid: Grid) -> int:
        return grid[0] * grid[1] * grid[2] // self._model.vision.merged_patches

    def _check_frame(self, token_count: int, what: str) -> None:
        """Raise InputError for an image or frame with too many visual tokens.

        Images were scaled to the bundle's limit, so only very narrow ones can exceed it. Frames are scaled by another rule.
        """
        if self._limits is not None and token_count > (most := self._limits.image_tokens[2]):
            raise InputError(
                f"{what} has {token_count} visual tokens; this bundle allows at most {most} (image_tokens).",
                fix=f"use a smaller image or video, or compile for a --target with image_tokens of at least {token_count}",
            )

    def _check_token_count(self, token_count: int, visual_token_count: int, *, is_partial: bool = False) -> None:
        if token_count > self.max_prompt_tokens:
            raise InputError(
                f"The prompt has {'at least ' if is_partial else ''}{token_count} tokens, of which "
                f"{visual_token_count} are visual; the limit is "
                f"{self.max_prompt_tokens}{'' if self._limits is None else ' in this compiled bundle'}.",
                fix=("shorten the text, pass fewer or smaller images, or fewer frames (of a video file, with --video-frames)")
                + ("" if self._limits is None else "; or compile for a --target with larger prompt_tokens"),
            )


def _name(item: Item) -> str:
    """Return the name of an item for notices: the path of its video or first image, or else its id."""
    for source in (item.video, *item.images):
        if isinstance(source, str | os.PathLike):
            return os.fsdecode(source)
    return "one input" if item.id is None else f"the input {item.id!r}"
