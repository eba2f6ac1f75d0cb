"""The frames of many inputs' images and videos by their size: those of one size can be encoded together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..preprocess import Patches, PreparedInput


class FrameSize(NamedTuple):
    """Rows and columns of patches; the blank image that stands before a text is of a size of its own."""

    rows: int
    columns: int
    is_blank: bool


@dataclass(frozen=True)
class Frame:
    """One frame, and where it stands: the input, then the medium in the input and the frame in the medium."""

    input_index: int
    place: tuple[int, int]
    patches: Patches  # of one frame


def frames_by_size(inputs: Sequence[PreparedInput]) -> dict[FrameSize, list[Frame]]:
    """Return all frames of all inputs; an image is one frame."""
    frames: dict[FrameSize, list[Frame]] = defaultdict(list)
    for input_index, item in enumerate(inputs):
        for medium_index, medium in enumerate(item.media):
            size = FrameSize(*medium.grid[1:], medium.is_blank)
            for frame in range(medium.patches.shape[0]):
                frames[size].append(Frame(input_index, (medium_index, frame), medium.patches.frames(frame, frame + 1)))
    return frames
