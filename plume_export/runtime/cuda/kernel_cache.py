"""On-disk cache of the kernels that TensorRT-RTX compiles at run time for new input shapes. The next process reuses them."""

import warnings
from pathlib import Path
from typing import Any

from ...bundle import Bundle
from ...errors import PlumeExportError
from ...machine.tensorrt_variant import Variant
from ...spec import GraphName
from ...whole_file import replacing


class KernelCache:
    """Kernel cache of one TensorRT-RTX engine. TensorRT compiles its kernels at build time and needs no cache."""

    def __init__(self, variant: Variant, bundle: Bundle, graph: GraphName) -> None:
        self.is_used = variant.name == "tensorrt-rtx"
        self._trt, self._graph = variant.trt, graph
        self._cache: Any = None
        self._name = f"kernels-{variant.version}-{bundle.sha256[:16]}-{graph}"

    def set_up(self, config: Any) -> None:
        """Attach the cache to the configuration of a context.

        Kernels of latent_step for a new shape are compiled before the first run, because a recorded CUDA graph cannot switch to
        kernels that become ready later. The other graphs have many shapes, so their kernels are compiled in the background.
        """
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._file.is_file():
                self._cache.deserialize(
                    self._file.read_bytes()
                )  # a cache of another version or device is replaced by an empty one
        config.set_runtime_cache(self._cache)
        strategy = self._trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER if self._graph == "latent_step" else strategy.LAZY

    def save(self) -> None:
        """Write the cache to disk, if possible."""
        data = None if self._cache is None else self._cache.serialize()
        if data is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as file:
                file.write(memoryview(data))
        except (OSError, PlumeExportError) as error:
            warnings.warn(f"Compiled kernels could not be saved in {self._file}: {error}", stacklevel=2)

    @property
    def _file(self) -> Path:
        from platformdirs import user_cache_path

        return Path(user_cache_path("plume-export", appauthor=False)) / self._name
