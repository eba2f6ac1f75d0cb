"""The published preprocessing: qwen-vl-utils' resizing, transformers' image processor, tokenizer and chat template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..errors import CheckpointError
from ..inputs import Item, VideoSource, load_image, read_video_frames, smart_resize
from ..inputs.prompt import panics_as_errors
from ..spec import INSTRUCTION, ModelSpec

_IMAGE, _VIDEO = "<|image_pad|>", "<|video_pad|>"


@dataclass(frozen=True)
class ReferenceInputs:
    """One input as the published code feeds it to the model."""

    input_ids: Tensor  # [tokens] int64, with the forced prefix
    token_types: Tensor  # [tokens] int64: 0 text, 1 image, 2 video
    anchor_index: int  # the last <disc_emb>
    pixel_values: Tensor  # [patches, patch_values] float32, of all media in prompt order
    image_grids: Tensor | None  # [images, 3] int64
    video_grids: Tensor | None  # [videos, 3] int64
    suffix_ids: Tensor  # [suffix_tokens] int64
    visual_token_ids: Tensor  # [2] int64


class ReferenceProcessor:
    """Converts items to model inputs. A text-only item gets a white 28x28 image in front, as in the published evaluation."""

    def __init__(self, directory: Path, model: ModelSpec) -> None:
        self._model = model
        self._tokenizer = _tokenizer_of(directory)
        settings = model.preprocess
        self._image_processor = Qwen2VLImageProcessorPil(
            size={"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels},
            image_mean=list(settings.image_mean),
            image_std=list(settings.image_std),
            patch_size=model.vision.patch_size,
            temporal_patch_size=model.vision.temporal_patch_size,
            merge_size=model.vision.merge_size,
        )

    def __call__(self, item: Item) -> ReferenceInputs:
        images = [load_image(image) for image in item.images]
        if not images and item.video is None:
            images = [Image.new("RGB", (28, 28), (255, 255, 255))]
        pixels, image_grids, video_grids = [], [], []
        for image in images:
            features = self._image_processor(_resized(image, 28), return_tensors="pt")
            pixels.append(features["pixel_values"])
            image_grids.append(features["image_grid_thw"])
        if item.video is not None:
            video_pixels, grid = self._video(item.video)
            pixels.append(video_pixels)
            video_grids.append(grid)
        input_ids = self._prompt(item.text, image_grids, video_grids)
        return ReferenceInputs(
            input_ids=input_ids,
            token_types=(input_ids == self._id(_IMAGE)) + 2 * (input_ids == self._id(_VIDEO)).long(),
            anchor_index=int((input_ids == self._id("<disc_emb>")).nonzero()[-1]),
            pixel_values=torch.cat(pixels),
            image_grids=torch.cat(image_grids) if image_grids else None,
            video_grids=torch.cat(video_grids) if video_grids else None,
            suffix_ids=self._encode(self._model.rollout.suffix),
            visual_token_ids=torch.tensor([self._id(_IMAGE), self._id(_VIDEO)]),
        )

    def _prompt(self, text: str, image_grids: list[Tensor], video_grids: list[Tensor]) -> Tensor:
        content = [{"type": "image"} for _ in image_grids] + [{"type": "video"} for _ in video_grids]
        content.append({"type": "text", "text": f"{text.strip()}\n<disc_emb>\n{INSTRUCTION}"})
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        for pad, grids in ((_IMAGE, image_grids), (_VIDEO, video_grids)):
            head, *tails = prompt.split(pad)
            counts = [int(grid.prod()) // self._model.vision.merged_patches for grid in grids]
            prompt = head + "".join(pad * count + tail for count, tail in zip(counts, tails, strict=True))
        return torch.cat([self._encode(prompt), self._encode(self._model.rollout.prefix)])

    def _video(self, video: VideoSource) -> tuple[Tensor, Tensor]:
        """Convert frames to patches as the slow processor of transformers 4.51 does (temporal pairs, channel-first patches)."""
        frames = torch.stack([self._within_limits(frame) for frame in _video_frames(video)])  # [frames, 3, height, width]
        mean, std = (torch.tensor(values)[:, None, None] for values in (
            self._model.preprocess.image_mean, self._model.preprocess.image_std,
        ))  # fmt: skip
        pixels = ((frames.double() * (1 / 255)).float() - mean) / std
        vision = self._model.vision
        count, channels, height, width = pixels.shape
        t, p, m = vision.temporal_patch_size, vision.patch_size, vision.merge_size
        grid = (count // t, height // p, width // p)
        patches = pixels.reshape(grid[0], t, channels, grid[1] // m, m, p, grid[2] // m, m, p)
        patches = patches.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, vision.patch_values)
        return patches, torch.tensor([grid])

    def _within_limits(self, frame: Tensor) -> Tensor:
        """Resize a frame [3, height, width] as the slow processor does. With the published limits the size never changes."""
        settings = self._model.preprocess
        size = smart_resize(frame.shape[1], frame.shape[2], 28, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
        image = Image.fromarray(frame.permute(1, 2, 0).byte().numpy()).resize(size[::-1])
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)

    def _encode(self, text: str) -> Tensor:
        return torch.tensor(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _id(self, token: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(token))


def _tokenizer_of(directory: Path) -> Any:
    """Return the tokenizer. Raises CheckpointError if transformers cannot read it, or if it has no chat template."""
    try:
        with panics_as_errors():
            tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # the tokenizers library and its files raise errors without a common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CheckpointError(
            f"transformers cannot read the tokenizer of {directory}: {reason}.",
            fix="copy the checkpoint's tokenizer files again, including tokenizer_config.json",
        ) from error
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"The tokenizer of {directory} has no chat template.",
            fix="copy the checkpoint's chat_template.json, or a tokenizer_config.json that contains the template",
        )
    return tokenizer


def _resized(image: Image.Image, factor: int, max_tokens: int = 16384, min_tokens: int = 4) -> Image.Image:
    """Resize an image as qwen-vl-utils' fetch_image does."""
    height, width = smart_resize(
        image.height, image.width, factor, min_pixels=min_tokens * factor**2, max_pixels=max_tokens * factor**2
    )
    return image.resize((width, height))


def _video_frames(video: VideoSource) -> Tensor:
    """Return frames as qwen-vl-utils' fetch_video does: of equal size, 0 to 255 in float32."""
    if isinstance(video, tuple):
        arrays: list[NDArray[np.uint8]] = [np.asarray(_resized(load_image(frame), 56)) for frame in video]
        arrays += arrays[-1:] * (len(arrays) % 2)
        # It passes its 28-pixel factor on as a patch size, so frame sizes become multiples of 56 pixels.
    else:
        arrays = list(read_video_frames(video))
    frames = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    count, _, height, width = frames.shape
    min_pixels = 128 * 28**2
    max_pixels = max(min(768 * 28**2, 128000 * 28**2 * 0.9 / count * 2), int(min_pixels * 1.05))
    size = smart_resize(height, width, 28, min_pixels=min_pixels, max_pixels=max_pixels)
    if size == (height, width):
        return frames.float()
    resized = torch.nn.functional.interpolate(frames.float(), size=size, mode="bicubic", antialias=True)
    return resized.clamp(0, 255).round()
