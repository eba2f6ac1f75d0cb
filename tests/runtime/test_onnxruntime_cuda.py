"""The backend over ONNX Runtime's CUDA provider: its provider is replaced by the CPU's, on an emulated device's memory."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from plume_export import Embedder
from plume_export.builders.onnxruntime.onnxruntime_bundle import compile_for_onnxruntime, compile_for_onnxruntime_cuda
from plume_export.bundle import Bundle
from plume_export.errors import PlumeExportError
from plume_export.recipe import read_recipe
from plume_export.runtime.cuda import onnxruntime_cuda

from ..mixed_inputs import mixed_items
from .emulated_cuda import EmulatedCuda
from .engine_bundles import SHAPES
from .same_stages import assert_same_stages

ITEMS = [item for item in mixed_items() if item.id not in ("text-5", "large", "long-with-image")]
PROVIDER = "CUDAExecutionProvider"


class EmulatedOnnxRuntime:
    """Stands for the module `onnxruntime` built for CUDA: what a session runs is queued on the device's stream."""

    __version__ = onnxruntime.__version__
    SessionOptions = onnxruntime.SessionOptions
    RunOptions = onnxruntime.RunOptions

    def __init__(self, cuda: EmulatedCuda) -> None:
        self._cuda = cuda
        self.loaded_providers = [PROVIDER]
        self.provider_options: dict[str, str] = {}

    def get_available_providers(self) -> list[str]:
        return [PROVIDER, "CPUExecutionProvider"]

    def InferenceSession(  # noqa: N802
        self, file: str, options: Any, providers: list[Any], enable_fallback: int
    ) -> "EmulatedSession":
        assert not enable_fallback
        ((provider, self.provider_options),) = providers
        assert provider == PROVIDER
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return EmulatedSession(self._cuda, session, self.loaded_providers)


class EmulatedSession:
    def __init__(self, cuda: EmulatedCuda, session: Any, providers: list[str]) -> None:
        self._cuda, self._session, self._providers = cuda, session, providers

    def get_providers(self) -> list[str]:
        return self._providers

    def io_binding(self) -> "EmulatedBinding":
        return EmulatedBinding(self._session.io_binding())

    def run_with_iobinding(self, binding: "EmulatedBinding", options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        self._cuda.enqueue(lambda: self._session.run_with_iobinding(binding.binding))


class EmulatedBinding:
    def __init__(self, binding: Any) -> None:
        self.binding = binding

    def bind_input(self, name: str, device: str, index: int, element_type: Any, shape: list[int], address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.binding.bind_input(name, "cpu", 0, element_type, shape, address)

    def bind_output(self, name: str, device: str, index: int, element_type: Any, shape: list[int], address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.binding.bind_output(name, "cpu", 0, element_type, shape, address)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_fp16: Bundle) -> Bundle:
    recipe = msgspec.structs.replace(read_recipe("cuda"), shapes=SHAPES, max_pixels=SHAPES.image_tokens.max * 784)
    return compile_for_onnxruntime_cuda(tiny_fp16, tmp_path_factory.mktemp("cuda") / "tiny", "cuda", recipe)


@pytest.fixture(scope="module")
def cpu_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_fp16: Bundle) -> Bundle:
    return compile_for_onnxruntime(tiny_fp16, tmp_path_factory.mktemp("cpu") / "tiny")


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedOnnxRuntime]:
    cuda = EmulatedCuda()
    emulated = EmulatedOnnxRuntime(cuda)
    monkeypatch.setattr("plume_export.runtime.cuda.device.import_cudart", lambda extra: cuda)
    monkeypatch.setattr(onnxruntime_cuda, "_import_onnxruntime", lambda: emulated)
    yield emulated
    assert cuda.blocks == {}


@pytest.mark.slow
def test_every_stage_equals_the_cpu_backend(emulated: EmulatedOnnxRuntime, bundle: Bundle, cpu_bundle: Bundle) -> None:
    with Embedder(bundle) as embedder, Embedder(cpu_bundle) as expected:
        assert_same_stages(embedder, expected, ITEMS, relative=1e-2)
        assert np.abs(embedder.embed(ITEMS) - expected.embed(ITEMS, batch_size=4)).max() <= 1e-3
    assert emulated.provider_options["user_compute_stream"] == "77"


def test_a_provider_that_did_not_load(emulated: EmulatedOnnxRuntime, bundle: Bundle) -> None:
    """ONNX Runtime itself would go on, on the CPU."""
    emulated.loaded_providers = ["CPUExecutionProvider"]
    with Embedder(bundle) as embedder, pytest.raises(PlumeExportError, match="could not load its CUDA provider"):
        embedder.embed(["a text"])


def test_an_onnxruntime_for_the_cpu(bundle: Bundle) -> None:
    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(PlumeExportError, match="has no CUDA provider"):
        Embedder(bundle)
