"""plume-tiny: a small trained PLUME on drawings, the drawings themselves, and how it was trained.

It shows that a pipeline works, quantisation included, without a real checkpoint at hand. What it knows is `scenes.py`.
"""

from pathlib import Path

# The name that stands for the checkpoint in this package, wherever a checkpoint is asked for.
PLUME_TINY = "plume-tiny"


def plume_tiny_directory() -> Path:
    """Return the checkpoint's directory, in the layout of a published one."""
    return Path(__file__).parent / "checkpoint"
