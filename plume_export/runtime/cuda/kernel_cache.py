"""Kernels that TensorRT-RTX compiles on the device for shapes it meets, kept for the next start."""

import warnings
from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...errors import PlumeExportError
from ...machine.tensorrt_variant import Flavour
from ...spec import GraphName
from ...whole_file import replacing


class KernelCache:
    """The cache of one engine. TensorRT compiles its kernels when it builds, and uses none."""

    def __init__(self, flavour: Flavour, bundle: Bundle, graph: GraphName) -> None:
        self.is_used = flavour.name == "tensorrt-rtx"
        self._trt, self._graph = flavour.trt, graph
        self._cache: Any = None
        self._name = f"kernels-{flavour.version}-{bundle.sha256[:16]}-{graph}"

    def set_up(self, config: Any) -> None:
        """Have a context use the cache.

        A step's kernels for new shapes are compiled before they run, since recorded work must not change. Those of the other
        graphs, whose shapes are many, are compiled beside the first runs.
        """
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._file.is_file():
                self._cache.deserialize(self._file.read_bytes())  # of another version or device: it starts anew
        config.set_runtime_cache(self._cache)
        strategy = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER if self._graph == "latent_step" else strategy.LAZY

    def save(self) -> None:
        """Write what the cache holds now, if it can be written."""
        data = None if self._cache is None else self._cache.serialize()
        if data is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as file:
                file.write(memoryview(data))
        except (OSError, PlumeExportError) as error:
            warnings.warn(f"Compiled kernels could not be kept in {self._file}: {error}", stacklevel=2)

    @property
    def _file(self) -> Path:
        from platformdirs import user_cache_path

        return Path(user_cache_path("plume-export", appauthor=False)) / self._name
