"""Deploy PLUME: export, compile and run a universal multimodal embedding model, with measured parity."""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime.embedder import Embedder

__version__ = version("plume-export")
__all__ = ["Embedder", "__version__"]


def __getattr__(name: str) -> object:
    """Import the runtime when it is first asked for, so that `plume-export --help` stays quick."""
    if name == "Embedder":
        from .runtime.embedder import Embedder

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
