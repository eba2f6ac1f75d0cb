"""Deploy PLUME: export, compile and run a universal multimodal embedding model, with measured parity."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime.embedder import Embedder

    __version__: str

__all__ = ["Embedder", "__version__"]


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for, so that `plume-export --help` stays quick."""
    if name == "Embedder":
        from .runtime.embedder import Embedder

        return Embedder
    if name == "__version__":
        from importlib.metadata import version

        return version("plume-export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
