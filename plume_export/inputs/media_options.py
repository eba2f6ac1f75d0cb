"""How pictures and videos are read. Everything left at its default is read as in the published evaluation."""

import math
from dataclasses import dataclass

from ..errors import OptionError

# Of a video file, as published.
SAMPLED_FPS = 2.0
MIN_FRAMES, MAX_FRAMES = 4, 768


@dataclass(frozen=True)
class MediaOptions:
    """`exif_transpose` turns pictures upright, frames of a list included.

    A video file gives `video_frames` frames, or all if it is shorter; or `video_fps` a second, 4 to 768 in all (published: 2
    a second). Either way they are evenly spaced from first to last, and even in number. A list of frames is never sampled.

    Raises PlumeExportError for values out of range.
    """

    exif_transpose: bool = False
    video_frames: int | None = None
    video_fps: float | None = None

    def __post_init__(self) -> None:
        frames, fps = self.video_frames, self.video_fps
        if frames is not None and fps is not None:
            raise OptionError(f"video_frames is {frames} and video_fps is {fps}.", fix="give one of the two")
        if frames is not None and (type(frames) is not int or not 2 <= frames <= MAX_FRAMES or frames % 2):
            raise OptionError(
                f"video_frames is {frames!r}; expected an even number from 2 to {MAX_FRAMES}: two frames share their tokens.",
                fix="choose a number in that range, as 32",
            )
        if fps is not None and (type(fps) not in (int, float) or not (math.isfinite(fps) and fps > 0)):
            raise OptionError(
                f"video_fps is {fps!r}; expected a number above 0, in frames a second.",
                fix=f"choose one, as {SAMPLED_FPS:g} (the default); {MIN_FRAMES} to {MAX_FRAMES} frames are taken in all",
            )
        if type(self.exif_transpose) is not bool:
            raise OptionError(f"exif_transpose is {self.exif_transpose!r}.", fix="pass True or False")
