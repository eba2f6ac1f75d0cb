"""Whether a checkpoint is the one that a bundle was made from, by its dimensions."""

from ..bundle import Manifest
from ..errors import CheckpointError
from ..spec import ModelSpec


def check_same_dimensions(name: str, model: ModelSpec, manifest: Manifest) -> None:
    """Raise CheckpointError if the checkpoint `name`, of these dimensions, can not be the bundle's."""
    for part in ("vision", "decoder"):
        received, built = getattr(model, part), getattr(manifest.model, part)
        if received != built:
            raise CheckpointError(
                f"{name} is not the bundle's checkpoint: its {part} is {received}, the bundle's {built}.",
                fix=f"pass the checkpoint that the bundle was made from ({manifest.checkpoint})",
            )
