"""Deploy PLUME: export, compile and run a universal multimodal embedding model, with measured parity."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import build, compile, export
    from .atomic import WriteError
    from .bundle import Bundle, open_bundle
    from .errors import (
        BundleError,
        CheckpointError,
        InputError,
        MissingDecoderError,
        MissingExtraError,
        OptionError,
        PlumeExportError,
    )
    from .inputs.item import ImageSource, Item, VideoSource
    from .inputs.media_options import MediaOptions
    from .pipeline import ModelOptions
    from .quantise.options import QuantiseOptions
    from .runtime.embedder import Embedder

    __version__: str

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Embedder",
    "ImageSource",
    "InputError",
    "Item",
    "MediaOptions",
    "MissingDecoderError",
    "MissingExtraError",
    "ModelOptions",
    "OptionError",
    "PlumeExportError",
    "QuantiseOptions",
    "VideoSource",
    "WriteError",
    "__version__",
    "build",
    "compile",
    "export",
    "open_bundle",
]

# Public name -> the module that defines it.
_MODULES = {
    "build": "api",
    "compile": "api",
    "export": "api",
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "BundleError": "errors",
    "CheckpointError": "errors",
    "InputError": "errors",
    "MissingDecoderError": "errors",
    "MissingExtraError": "errors",
    "WriteError": "atomic",
    "OptionError": "errors",
    "PlumeExportError": "errors",
    "ModelOptions": "pipeline",
    "QuantiseOptions": "quantise.options",
    "ImageSource": "inputs.item",
    "Item": "inputs.item",
    "VideoSource": "inputs.item",
    "MediaOptions": "inputs.media_options",
    "Embedder": "runtime.embedder",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `plume-export --help` starts quickly."""
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("plume-export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
