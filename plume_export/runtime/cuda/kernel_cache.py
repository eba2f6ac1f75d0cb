"""Kernels that TensorRT-RTX compiles on the device for shapes it meets, kept for the next start."""

from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...machine.flavour import Flavour
from ...spec import GraphName


class KernelCache:
    """The cache of one engine. TensorRT compiles its kernels when it builds, and uses none."""

    def __init__(self, flavour: Flavour, bundle: Bundle, graph: GraphName) -> None:
        self.is_used = flavour.name == "tensorrt-rtx"
        self._trt = flavour.trt
        self._cache: Any = None
        self._name = f"kernels-{flavour.version}-{bundle.sha256[:16]}-{graph}"

    def set_up(self, config: Any) -> None:
        """Have a context use the cache, and compile kernels for new shapes before they run: recorded work must not change."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._file.is_file():
                self._cache.deserialize(self._file.read_bytes())
        config.set_runtime_cache(self._cache)
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER

    def save(self) -> None:
        """Write what the cache holds now."""
        if self._cache is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_name(f".{self._file.name}.partial")
        partial.write_bytes(memoryview(self._cache.serialize()))
        partial.replace(self._file)

    @property
    def _file(self) -> Path:
        from platformdirs import user_cache_path

        return Path(user_cache_path("plume-export", appauthor=False)) / self._name
