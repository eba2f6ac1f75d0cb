"""How pictures and videos are to be read."""

from typing import Any

import pytest

from plume_export.errors import PlumeExportError
from plume_export.inputs import MediaOptions


def test_defaults_are_the_published() -> None:
    assert MediaOptions() == MediaOptions(exif_transpose=False, video_frames=None, video_fps=None)


@pytest.mark.parametrize("frames", [0, 1, -2, 3, 33, 770, 2.0, True, "8"])
def test_wrong_video_frames(frames: Any) -> None:
    with pytest.raises(PlumeExportError, match=r"video_frames is .*; expected an even number from 2 to 768"):
        MediaOptions(video_frames=frames)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "2", True])
def test_wrong_video_fps(fps: Any) -> None:
    with pytest.raises(PlumeExportError, match=r"video_fps is .*; expected a number above 0"):
        MediaOptions(video_fps=fps)


def test_frames_and_rate_exclude_each_other() -> None:
    with pytest.raises(PlumeExportError, match="pass only one of the two"):
        MediaOptions(video_frames=8, video_fps=1)


def test_exif_transpose_is_a_bool() -> None:
    wrong: Any = "no"
    with pytest.raises(PlumeExportError, match="exif_transpose is 'no'"):
        MediaOptions(exif_transpose=wrong)
