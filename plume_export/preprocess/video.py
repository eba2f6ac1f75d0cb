"""A video to uint8 frames of one size, pixel for pixel as in the published evaluation (qwen-vl-utils 0.0.14 `fetch_video`)."""

import os

import numpy as np
from PIL import Image

from ..errors import InputError
from ..spec import PreprocessSpec, VisionSpec
from .bicubic import resize_frame
from .image import fetch_image, load_image, resize_within, smart_resize
from .item import ImageSource, VideoSource
from .media_options import MediaOptions
from .notice import Notify
from .patches import FrameArray
from .video_file import read_video_frames

# qwen-vl-utils' limits, in visual tokens: of one frame, and of all frames together (0.9 of 128000).
_MIN_FRAME_TOKENS, _MAX_FRAME_TOKENS, _MAX_TOKENS = 128, 768, 128000 * 0.9
_FRAME_MULTIPLE = 2


def frames_from_video(
    video: VideoSource,
    vision: VisionSpec,
    preprocess: PreprocessSpec,
    options: MediaOptions | None = None,
    notify: Notify = lambda _: None,
) -> FrameArray:
    """Return an even number of frames, uint8 [frames, height, width, 3], height and width in multiples of 28.

    A file is sampled, a list of frames is taken whole. Each frame is resized as soon as it is read, so memory holds only
    resized frames. `notify` takes what was dropped or ignored of a list's frames. Raises InputError.
    """
    factor = vision.patch_size * vision.merge_size
    options = options or MediaOptions()

    def resized(frame: FrameArray, frame_count: int) -> FrameArray:
        return resize_to_budget(frame, frame_count, factor, preprocess)

    if isinstance(video, str | os.PathLike):
        frames = read_video_frames(video, resized, frame_count=options.video_frames, fps=options.video_fps)
    else:
        frame_count = -(-len(video) // _FRAME_MULTIPLE) * _FRAME_MULTIPLE
        frames = []
        sizes: list[tuple[int, ...]] = []
        for source in video:
            frame = _listed_frame(load_image(source, exif_transpose=options.exif_transpose, notify=notify), factor)
            sizes.append(frame.shape)
            if sizes[-1] != sizes[0]:
                raise _sizes_differ(video, len(sizes) - 1, options)
            frames.append(resized(frame, frame_count))
        frames += frames[-1:] * (frame_count - len(frames))
    return np.stack(frames)


def resize_to_budget(frame: FrameArray, frame_count: int, factor: int, preprocess: PreprocessSpec) -> FrameArray:
    """Resize one of `frame_count` frames as a tensor, so that all of them share qwen-vl-utils' budget of pixels."""
    resized = resize_frame(frame, *_size_in_budget(frame.shape[0], frame.shape[1], frame_count, factor))
    # The image processor then applies the model's own limits to every frame; with the published ones nothing changes.
    return np.asarray(resize_within(Image.fromarray(resized), factor, preprocess))


def frame_token_count(height: int, width: int, frame_count: int, factor: int, preprocess: PreprocessSpec) -> int:
    """Return the visual tokens of one of `frame_count` frames, whose pair has as many."""
    height, width = _size_in_budget(height, width, frame_count, factor)
    limits = {"min_pixels": preprocess.min_pixels, "max_pixels": preprocess.max_pixels}
    height, width = smart_resize(height, width, factor, **limits)
    return height * width // factor**2


def _size_in_budget(height: int, width: int, frame_count: int, factor: int) -> tuple[int, int]:
    min_pixels = _MIN_FRAME_TOKENS * factor**2
    share = _MAX_TOKENS * factor**2 / frame_count * _FRAME_MULTIPLE
    max_pixels = max(min(_MAX_FRAME_TOKENS * factor**2, share), int(min_pixels * 1.05))
    return smart_resize(height, width, factor, min_pixels=min_pixels, max_pixels=max_pixels)


def _listed_frame(image: Image.Image, factor: int) -> FrameArray:
    """Resize one frame of a list as an image, in multiples of 56.

    `fetch_video` hands its factor of 28 to `fetch_image`, which takes it for a patch size and doubles it.
    """
    return np.asarray(fetch_image(image, factor * 2))


def _sizes_differ(video: tuple[ImageSource, ...], index: int, options: MediaOptions) -> InputError:
    first, other = (load_image(video[position], exif_transpose=options.exif_transpose).size for position in (0, index))
    return InputError(
        f"Frame {index} of the video has {other[0]}x{other[1]} pixels, frame 0 has {first[0]}x{first[1]}; expected one size.",
        fix="scale the frames to one size",
    )
