"""What is fuzzed, one module each. A module is imported when it is needed: some bring torch."""

from importlib import import_module

from ..surface import Surface

_MODULES = (
    *("images", "videos", "json_lines", "datasets", "manifests", "graphs", "tokenizers", "npz_files", "checkpoints", "recipes"),
    *("search_caches", "partial_runs", "compiled_graphs"),
)
NAMES = tuple(name.replace("_", "-") for name in _MODULES)


def load_surface(name: str) -> Surface:
    surface: Surface = import_module(f".{name.replace('-', '_')}", __name__).SURFACE
    assert surface.name == name
    return surface
