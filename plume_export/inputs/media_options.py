"""Options for reading images and videos. The defaults read them as the original evaluation code does."""

import math
from dataclasses import dataclass

from ..errors import OptionError

# Default sampling rate of video files, as in the original code.
SAMPLED_FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768


@dataclass(frozen=True)
class MediaOptions:
    """Options for reading images and videos.

    `exif_transpose` rotates images by their EXIF orientation, including frames given as a list. `video_frames` samples that
    many frames of a video file; a shorter video is used whole. `video_fps` samples that many frames per second, 4 to 768 in
    total (default 2). Sampled frames are evenly spaced from first to last, and their number is even. A list of frames is never
    sampled.

    Raises PlumeExportError for values out of range.
    """

    exif_transpose: bool = False
    video_frames: int | None = None
    video_fps: float | None = None

    def __post_init__(self) -> None:
        frames, fps = self.video_frames, self.video_fps
        if frames is not None and fps is not None:
            raise OptionError(
                f"video_frames is {frames} and video_fps is {fps}; expected at most one of them.",
                fix="pass only one of the two",
            )
        if frames is not None and (type(frames) is not int or not 2 <= frames <= MAX_FRAMES or frames % 2):
            raise OptionError(
                f"video_frames is {frames!r}; expected an even number from 2 to {MAX_FRAMES}, because every two "
                "frames share their tokens.",
                fix="choose an even number in that range, such as 32",
            )
        if fps is not None and (type(fps) not in (int, float) or not (math.isfinite(fps) and fps > 0)):
            raise OptionError(
                f"video_fps is {fps!r}; expected a number above 0, in frames per second.",
                fix=f"choose a positive number, such as {SAMPLED_FPS:g} (the default); {MIN_FRAMES} to {MAX_FRAMES} "
                "frames are sampled from each video",
            )
        if type(self.exif_transpose) is not bool:
            raise OptionError(f"exif_transpose is {self.exif_transpose!r}; expected a boolean.", fix="pass True or False")
