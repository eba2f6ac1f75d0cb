"""Videos as frames: sampled from a file, or given as a list of images."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, MissingDecoderError
from ..spec import PreprocessSpec, VisionSpec
from .bicubic import resize_frame
from .image import fetch_image, load_image, resize_within, smart_resize
from .item import ImageSource, VideoSource
from .media_options import MAX_FRAMES, MIN_FRAMES, SAMPLED_FPS, MediaOptions
from .notice import Notify
from .patches import FrameArray

_FRAME_MULTIPLE = 2
# 8192 x 8192. The limit is low because a decoder holds several frames at once.
MAX_FRAME_PIXELS = 1 << 26
# The only formats that FFmpeg may open: they contain their frames. FFmpeg also reads playlists, which can refer to any file.
_CONTAINERS = (
    *(
        "mov",
        "matroska",
        "avi",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "flv",
        "gif",
        "apng",
        "asf",
        "ogg",
        "ivf",
        "nut",
        "mxf",
        "rm",
        "wtv",
    ),
    # The audio formats are here so that such a file gets the error "no video stream".
    *("dv", "m4v", "h264", "hevc", "obu", "mjpeg", "wav", "mp3", "flac"),
)
_ROUNDS = 4
_REENCODE = "re-encode it, for example with ffmpeg -i in -vf scale=1280:720 out.mp4"


def read_video_frames(
    path: str | os.PathLike[str],
    convert: Callable[[FrameArray, int], FrameArray] = lambda frame, _: frame,
    *,
    frame_count: int | None = None,
    fps: float | None = None,
) -> list[FrameArray]:
    """Return the sampled frames, uint8 [height, width, 3]: `frame_count` in total, or `fps` per second (default 2).

    `convert` is called during decoding with each sampled frame and the number of sampled frames. It can shrink a frame before
    the next one is read. Raises InputError, and MissingDecoderError without PyAV.
    """
    name = os.fspath(path)
    with _opened(name) as (container, stream):
        found_count, found_fps = sum(packet.size > 0 for packet in container.demux(stream)), stream.average_rate
    if found_count == 0:
        raise InputError(f"The video {name} has no frames.", fix="pass a complete video file")
    if not found_fps:
        raise InputError(
            f"The video {name} does not state its frame rate.", fix="remux it, for example with ffmpeg -i in -c copy out.mp4"
        )
    for _ in range(_ROUNDS):
        indices = sampled_indices(name, found_count, float(found_fps), wanted_count=frame_count, wanted_fps=fps)
        frames, decoded_count = _decoded(name, indices, convert)
        if decoded_count == found_count:
            return frames
        # Some packets contained no frame, or two. Decode again with the true number of frames. Decoding is deterministic, so
        # the number changes again only if the file is corrupt.
        found_count = decoded_count
    raise InputError(f"The number of decoded frames of {name} changes from one decode to the next.", fix=_REENCODE)


def video_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the height and width of a video file's frames. Raises the errors of `read_video_frames`."""
    with _opened(os.fspath(path)) as (_, stream):
        return int(stream.height), int(stream.width)


def sampled_indices(
    name: str, frame_count: int, fps: float, *, wanted_count: int | None = None, wanted_fps: float | None = None
) -> NDArray[np.int64]:
    """Return the indices of the frames to sample, [sampled frames], ascending. Raises InputError below two frames.

    Samples `wanted_count` frames, or all frames of a shorter video. Without `wanted_count`, samples `wanted_fps` frames per
    second (default 2), 4 to 768 in total. The number is even.
    """
    if wanted_count is None:
        most = _floor_to_multiple(min(MAX_FRAMES, frame_count))
        wanted = min(max(frame_count / fps * (wanted_fps or SAMPLED_FPS), MIN_FRAMES), most, frame_count)
    else:
        wanted = min(wanted_count, frame_count)
    sampled_count = _floor_to_multiple(wanted)
    if sampled_count < _FRAME_MULTIPLE:
        raise InputError(
            f"The video {name} has {frame_count} frame(s); expected at least {_FRAME_MULTIPLE}.",
            fix="pass a longer video, or pass its frame as an image",
        )
    # torch.linspace: a float32 step, counted from both ends, with fused multiply-adds (exact in float64).
    last = frame_count - 1
    step = float(np.float32(last) / np.float32(sampled_count - 1))
    position = np.arange(sampled_count)
    half = sampled_count // 2
    points = np.where(position < half, step * position, last - step * position[::-1]).astype(np.float32)
    indices: NDArray[np.int64] = np.rint(points).astype(np.int64)
    return indices


def _decoded(
    name: str, indices: NDArray[np.int64], convert: Callable[[FrameArray, int], FrameArray]
) -> tuple[list[FrameArray], int]:
    """Return the converted frames at `indices` and the number of frames of the whole file."""
    wanted = set(indices.tolist())
    frames: dict[int, FrameArray] = {}
    decoded_count = 0
    with _opened(name) as (container, stream):
        stream.thread_type = "AUTO"
        # Also limit frames whose size differs from the one in the file's header.
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        size = None
        for frame in container.decode(stream):
            if decoded_count in wanted:
                _check_size(name, frame.width, frame.height)
                if (frame.width, frame.height) != (size := size or (frame.width, frame.height)):
                    sizes = f"from {size[0]}x{size[1]} to {frame.width}x{frame.height}"
                    raise InputError(f"The video {name} changes its size {sizes}; expected one size.", fix=_REENCODE)
                frames[decoded_count] = convert(frame.to_ndarray(format="rgb24"), len(indices))
            decoded_count += 1
    return [frames[index] for index in indices.tolist() if index in frames], decoded_count


@contextmanager
def _opened(name: str) -> Iterator[tuple[Any, Any]]:
    """Yield the container and its first video stream. PyAV's errors become InputErrors."""
    if not os.path.isfile(name):  # also False for a name that the system does not allow
        raise InputError(
            f"The video {name} does not exist.", fix="check the path; in a JSON lines file, paths are relative to that file"
        )
    try:
        import av
    except ImportError:
        raise MissingDecoderError(f"{name} is a video file", "av", "video") from None
    try:
        # In a relative name, FFmpeg would read the part before a colon as a protocol.
        with av.open(os.path.abspath(name), options={"format_whitelist": ",".join(_CONTAINERS)}) as container:
            if not container.streams.video:
                raise InputError(f"{name} has no video stream.", fix="pass a complete video file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise InputError(f"The video {name} is in a codec that FFmpeg does not know.", fix=_REENCODE)
            _check_size(name, stream.width, stream.height)
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as a video: {error}.", fix="pass a complete MP4, MKV, WebM or other video file"
        ) from error


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_FRAME_PIXELS:
        raise InputError(
            f"The video {name} has frames of {width}x{height} = {width * height} pixels; the limit is {MAX_FRAME_PIXELS}.",
            fix="scale it down, for example with ffmpeg -i in -vf scale=1280:-2 out.mp4",
        )


def _floor_to_multiple(count: float) -> int:
    return int(count // _FRAME_MULTIPLE) * _FRAME_MULTIPLE


# Limits of qwen-vl-utils in visual tokens: per frame (min, max), and for all frames together (0.9 of 128000).
_MIN_FRAME_TOKENS, _MAX_FRAME_TOKENS, _MAX_TOKENS = 128, 768, 128000 * 0.9
_FRAME_MULTIPLE = 2


def frames_from_video(
    video: VideoSource,
    vision: VisionSpec,
    preprocess: PreprocessSpec,
    options: MediaOptions | None = None,
    notify: Notify = lambda _: None,
) -> FrameArray:
    """Return an even number of frames, uint8 [frames, height, width, 3], with height and width in multiples of 28.

    A file is sampled; a list of frames is used whole. Each frame is resized as soon as it is read, so memory holds only resized
    frames. `notify` receives a notice for everything that was dropped or ignored in a list's frames. Raises InputError.
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
    """Resize one of `frame_count` frames as a tensor, so that all frames share the pixel budget of qwen-vl-utils."""
    resized = resize_frame(frame, *_size_in_budget(frame.shape[0], frame.shape[1], frame_count, factor))
    # The image processor then applies the model's own limits to every frame. With the original limits nothing changes.
    return np.asarray(resize_within(Image.fromarray(resized), factor, preprocess))


def frame_token_count(height: int, width: int, frame_count: int, factor: int, preprocess: PreprocessSpec) -> int:
    """Return the number of visual tokens of one of `frame_count` frames. A pair of frames has the same number."""
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
    """Resize one frame of a video that was given as a list. Its height and width become multiples of 56.

    The reason is that `fetch_video` passes its factor of 28 to `fetch_image`, which takes it for a patch size and doubles it.
    """
    return np.asarray(fetch_image(image, factor * 2))


def _sizes_differ(video: tuple[ImageSource, ...], index: int, options: MediaOptions) -> InputError:
    first, other = (load_image(video[position], exif_transpose=options.exif_transpose).size for position in (0, index))
    return InputError(
        f"Frame {index} of the video has {other[0]}x{other[1]} pixels, frame 0 has {first[0]}x{first[1]}; expected one size.",
        fix="scale the frames to one size",
    )
