"""Check that a checkpoint is the one that a bundle was made from: by its dimensions, then by the hash of its tensors."""

from typing import TYPE_CHECKING

from ..bundle import Manifest
from ..errors import CheckpointError

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint


def check_same_checkpoint(checkpoint: "Checkpoint", manifest: Manifest) -> None:
    """Raise CheckpointError if the bundle was made from another checkpoint.

    Hashing reads every tensor once. Bundles of schema 5 or older have no hash, so only their dimensions are compared.
    """
    origin = manifest.checkpoint
    fix = f"pass the checkpoint that the bundle was made from ({origin}), or export this one"
    for part in ("vision", "decoder"):
        received, built = getattr(checkpoint.model, part), getattr(manifest.model, part)
        if received != built:
            raise CheckpointError(
                f"{checkpoint.name} is not the bundle's checkpoint: its {part} is {received}, but the bundle's is {built}.",
                fix=fix,
            )
    if origin.tensors_sha256 is None:
        return
    from ..checkpoint import checkpoint_sha256

    sha256 = checkpoint_sha256(checkpoint.tensors)
    if sha256 != origin.tensors_sha256:
        raise CheckpointError(
            f"{checkpoint.name} is not the bundle's checkpoint: the sha256 of its tensors is {sha256[:12]}, but "
            f"the bundle's is {origin.tensors_sha256[:12]}. The same values in another dtype count as different "
            "tensors.",
            fix=fix,
        )
