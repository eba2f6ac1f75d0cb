"""Sampled frames of a video file, decoded with PyAV; chosen as in the published evaluation (qwen-vl-utils 0.0.14)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingExtraError
from .patches import FrameArray

SAMPLED_FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768
_FRAME_MULTIPLE = 2
# 8192 x 8192. A decoder holds several frames.
MAX_FRAME_PIXELS = 1 << 26
# FFmpeg also reads lists that name other files, by whatever suffix; a video holds its frames itself.
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
    *("dv", "m4v", "h264", "hevc", "obu", "mjpeg", "wav", "mp3", "flac"),  # the last three to say that they are sound
)
_ROUNDS = 4
_REENCODE = "encode it again, as ffmpeg -i in -vf scale=1280:720 out.mp4"


def read_video_frames(
    path: str | os.PathLike[str],
    convert: Callable[[FrameArray, int], FrameArray] = lambda frame, _: frame,
    *,
    frame_count: int | None = None,
    fps: float | None = None,
) -> list[FrameArray]:
    """Return the sampled frames, uint8 [height, width, 3]: `frame_count` in all, or `fps` a second, two if neither is given.

    `convert` sees each sampled frame and the number of sampled frames while the file is decoded, so it can make frames smaller
    before the next one is read. Raises InputError; MissingExtraError without PyAV.
    """
    name = os.fspath(path)
    with _opened(name) as (container, stream):
        found_count, found_fps = sum(packet.size > 0 for packet in container.demux(stream)), stream.average_rate
    if found_count == 0:
        raise InputError(f"The video {name} has no frames.", fix="pass a complete video file")
    if not found_fps:
        raise InputError(f"The video {name} does not tell its frame rate.", fix="remux it, as ffmpeg -i in -c copy out.mp4")
    for _ in range(_ROUNDS):
        indices = sampled_indices(name, found_count, float(found_fps), wanted_count=frame_count, wanted_fps=fps)
        frames, decoded_count = _decoded(name, indices, convert)
        if decoded_count == found_count:
            return frames
        # Some packets gave no frame (or two). Decoding is deterministic, so the second count holds, but for a damaged file.
        found_count = decoded_count
    raise InputError(f"The video {name} gives another number of frames each time it is decoded.", fix=_REENCODE)


def video_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the height and width of a video file's frames. Raises as `read_video_frames` does."""
    with _opened(os.fspath(path)) as (_, stream):
        return int(stream.height), int(stream.width)


def sampled_indices(
    name: str, frame_count: int, fps: float, *, wanted_count: int | None = None, wanted_fps: float | None = None
) -> NDArray[np.int64]:
    """Return the indices of the frames to keep, [sampled frames], ascending. Raises InputError below two frames.

    `wanted_count` frames, or all of a shorter video; else `wanted_fps` a second (2), and 4 to 768 in all. An even number.
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
            fix="pass a longer video, or its frame as an image",
        )
    # torch.linspace: a step of float32, counted from both ends, with fused multiply-adds (exact in float64).
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
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # of frames that tell another size than the file
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
    """Yield the container and its first video stream; PyAV's errors become InputErrors."""
    try:
        import av
    except ImportError:
        raise MissingExtraError("av", "video") from None
    if not os.path.isfile(name):  # false as well for a name that the system refuses
        raise InputError(
            f"The video {name} does not exist.", fix="check the path; in a JSON lines file it is relative to that file"
        )
    try:
        # Of a relative name FFmpeg would take what stands before a colon for a protocol.
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
            fix="scale it down, as ffmpeg -i in -vf scale=1280:-2 out.mp4",
        )


def _floor_to_multiple(count: float) -> int:
    return int(count // _FRAME_MULTIPLE) * _FRAME_MULTIPLE
