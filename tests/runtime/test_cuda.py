"""The TensorRT backend on an emulated CUDA device: the same rollout code and parity, and what only a device can get wrong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from plume_export import Embedder
from plume_export.bundle import Bundle, open_bundle
from plume_export.errors import BundleError, InputError, PlumeExportError
from plume_export.inputs import Item
from plume_export.machine.tensorrt_variant import Variant
from plume_export.runtime.cuda.device import CudaDevice
from plume_export.runtime.cuda.device_memory import float32_from_stored, padded_length, stored_from_array
from plume_export.runtime.cuda.tensorrt import TensorRt

from ..mixed_inputs import mixed_items
from .emulated_cuda import EmulatedCuda
from .emulated_tensorrt import EmulatedContext, EmulatedTensorRt
from .engine_bundles import SHAPES, write_engine_bundle
from .same_stages import assert_same_stages

ITEMS = [item for item in mixed_items() if item.id not in ("text-5", "large", "long-with-image")]


@pytest.fixture(scope="module", params=["baked", "shared"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Bundle) -> Bundle:
    directory = tmp_path_factory.mktemp("engines") / "bundle"
    return write_engine_bundle(tiny_fp32, directory, is_shared=request.param == "shared")


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory, tiny_fp32: Bundle) -> Bundle:
    return write_engine_bundle(tiny_fp32, tmp_path_factory.mktemp("engines") / "baked", is_shared=False)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    emulated = EmulatedCuda()
    monkeypatch.setattr("plume_export.runtime.cuda.device.import_cudart", lambda extra: emulated)
    return emulated


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: EmulatedCuda, baked: Bundle) -> EmulatedTensorRt:
    """TensorRT-RTX over the device, for engines of whichever test; its kernels are kept in a directory of their own."""
    emulated = EmulatedTensorRt(cuda, dict(baked.manifest.graphs), {})
    monkeypatch.setattr("plume_export.runtime.cuda.tensorrt.import_runtime", lambda name: Variant(name, emulated))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    return emulated


def opened(trt: EmulatedTensorRt, bundle: Bundle, *, is_recording: bool = True, **options: object) -> Embedder:
    assert bundle.manifest.engines is not None
    trt.entries = dict(bundle.manifest.engines.graphs)
    return Embedder(bundle, backend=TensorRt(bundle, is_recording=is_recording), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected(tiny_fp32: Bundle) -> Iterator[Embedder]:
    with Embedder(tiny_fp32) as embedder:
        yield embedder


@pytest.mark.slow
def test_every_stage_equals_the_cpu_backend(trt: EmulatedTensorRt, engines: Bundle, expected: Embedder) -> None:
    with opened(trt, engines) as embedder:
        assert_same_stages(embedder, expected, ITEMS, relative=1e-4)


@pytest.mark.slow
def test_one_cuda_graph_equals_the_plain_path_bit_for_bit(trt: EmulatedTensorRt, baked: Bundle) -> None:
    items = ITEMS[:6] * 4
    with opened(trt, baked, is_recording=False) as plain:
        wanted = plain.embed(items, batch_size=1)
    assert trt.cuda.launches == 0
    with opened(trt, baked) as recorded:
        actual = recorded.embed(items, batch_size=1)
    assert trt.cuda.launches > len(items) // 3
    assert (actual == wanted).all()


@pytest.mark.slow
def test_batches_of_changing_sizes_and_lengths(trt: EmulatedTensorRt, baked: Bundle, expected: Embedder) -> None:
    with opened(trt, baked) as embedder:
        for size in (1, 4, 3, 4, 1, 4, 3):
            actual = embedder.embed(ITEMS, batch_size=size)
            assert np.abs(actual - expected.embed(ITEMS, batch_size=size)).max() <= 1e-5


@pytest.mark.slow
def test_nothing_is_allocated_after_the_first_round(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with opened(trt, baked) as embedder:
        embedder.embed(ITEMS)
        before = (trt.cuda.allocations, trt.cuda.used_bytes, trt.contexts)
        for _ in range(100 // len(ITEMS) + 1):
            embedder.embed(ITEMS)
        assert (trt.cuda.allocations, trt.cuda.used_bytes, trt.contexts) == before


@pytest.mark.parametrize("item", [Item(text="a text"), ITEMS[2]])
def test_one_copy_in_and_one_copy_out(trt: EmulatedTensorRt, baked: Bundle, item: Item) -> None:
    with opened(trt, baked) as embedder:
        before = dict(trt.cuda.copies)
        embedder.embed([item])
        assert {name: count - before[name] for name, count in trt.cuda.copies.items()} == {"in": 1, "out": 1}


def test_the_host_waits_for_nothing_within_the_rollout(trt: EmulatedTensorRt, baked: Bundle) -> None:
    """Waits are those of the upload, the end of each stage and the download, however many steps there are."""
    waits = []
    for steps in (1, 8):
        with opened(trt, baked, steps=steps) as embedder:
            embedder.embed(["a text"])
            before = trt.cuda.waits
            embedder.embed(["a text"])
            waits.append(trt.cuda.waits - before)
    assert waits[0] == waits[1]


def test_a_graph_is_not_recorded_while_kernels_are_compiled(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with opened(trt, baked) as embedder:
        trt.is_still_compiling = True
        embedder.embed(["a text"] * 5, batch_size=1)
        assert trt.cuda.launches == 0
        trt.is_still_compiling = False
        embedder.embed(["a text"] * 3, batch_size=1)
        assert trt.cuda.launches == 2


def test_closing_frees_everything(trt: EmulatedTensorRt, engines: Bundle) -> None:
    with opened(trt, engines) as embedder:
        embedder.embed(["a text"] * 3, batch_size=1)
    assert trt.cuda.blocks == {}
    assert trt.cuda.host_blocks == {}
    embedder.close()  # again
    with pytest.raises(PlumeExportError, match=r"embedder of .* is closed"):
        embedder.embed(["a text"])


@pytest.mark.slow
def test_two_threads_take_turns(trt: EmulatedTensorRt, baked: Bundle, expected: Embedder) -> None:
    texts = [f"text number {number}" for number in range(24)]
    wanted = expected.embed(texts, batch_size=1)
    with opened(trt, baked) as embedder, ThreadPoolExecutor(3) as pool:
        rows = list(pool.map(lambda text: embedder.embed([text])[0], texts))
    assert np.abs(np.stack(rows) - wanted).max() <= 1e-5


def test_an_engine_that_wants_more_scratch_than_its_builder_told(trt: EmulatedTensorRt, baked: Bundle) -> None:
    trt.scratch_bytes *= 3
    with opened(trt, baked) as embedder:
        assert embedder.embed(["a text", ITEMS[2]]).shape[0] == 2


def test_an_engine_that_computes_other_shapes(trt: EmulatedTensorRt, baked: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(trt, baked) as embedder:
        monkeypatch.setattr(EmulatedContext, "get_tensor_shape", lambda *_: (7, 7))
        with pytest.raises(PlumeExportError, match=r"The engine \w+ computes \w+ \[7, 7\] instead of \["):
            embedder.embed(["a text"])


def test_an_engine_without_a_context(trt: EmulatedTensorRt, baked: Bundle) -> None:
    trt.has_no_context = True
    with (
        opened(trt, baked) as embedder,
        pytest.raises(PlumeExportError, match=r"could not create the context of prefill .*out of memory"),
    ):
        embedder.embed(["a text"])
    assert trt.cuda.blocks == {}


def test_no_host_memory_for_a_large_input(trt: EmulatedTensorRt, baked: Bundle) -> None:
    """The next one that is small enough is embedded as if nothing had been."""
    with opened(trt, baked) as embedder:
        before = embedder.embed(["a text"])
        trt.cuda.pinned_limit = 100_000
        with pytest.raises(PlumeExportError, match="host memory for inputs needs"):
            embedder.embed([next(item for item in ITEMS if item.id == "china")])
        assert (embedder.embed(["a text"]) == before).all()


def test_a_cache_that_can_not_be_written(trt: EmulatedTensorRt, baked: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(UserWarning, match="could not be saved"), opened(trt, baked) as embedder:
        embedder.embed(["a text"])
    assert trt.cuda.blocks == {}


def test_an_embedder_that_can_not_be_made_frees_its_backend(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with pytest.raises(PlumeExportError, match="steps is 99"):
        opened(trt, baked, steps=99)
    assert trt.cuda.blocks == {}


def test_compiled_kernels_are_kept(trt: EmulatedTensorRt, baked: Bundle, tmp_path: Path) -> None:
    for _ in range(2):
        with opened(trt, baked) as embedder:
            embedder.embed(["a text"])
    kept = {file.name.rsplit("-", 1)[-1]: int(file.read_bytes()) for file in (tmp_path / "cache").iterdir()}
    assert kept == {"prefill": 2, "latent_step": 4}  # one context of prefill and two of the step, twice
    assert not [file.name for file in (tmp_path / "cache").iterdir() if file.name.startswith(".")]


def test_a_text_never_loads_the_vision_encoder(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with opened(trt, baked) as embedder:
        embedder.embed(["a text"])
        assert trt.graphs_in_use == {"prefill", "latent_step"}


def test_a_prompt_longer_than_built_for(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with (
        opened(trt, baked) as embedder,
        pytest.raises(InputError, match=r"limit is 700 in this compiled bundle(.|\n)*prompt_tokens"),
    ):
        embedder.embed(["word " * 900])


def test_a_batch_larger_than_built_for(trt: EmulatedTensorRt, baked: Bundle) -> None:
    with opened(trt, baked) as embedder, pytest.raises(PlumeExportError, match=r"batch_size is 5; .* accepts 1 to 4"):
        embedder.embed(["a"] * 5, batch_size=5)


def test_lengths_are_few_and_little_longer() -> None:
    lengths = {padded_length(tokens) for tokens in range(64, 4097)}
    assert len(lengths) <= 24
    assert all(tokens <= padded_length(tokens) <= tokens * 4 / 3 for tokens in range(96, 4097))
    assert padded_length(SHAPES.prompt_tokens.max) > SHAPES.prompt_tokens.max  # so that the limit is met too


def test_bfloat16_bits() -> None:
    values = np.array([1.0, -2.5, 3.14159, 1e-40, np.inf, 0.0, 1.00390625, 1.01171875], np.float32)
    kept = float32_from_stored(stored_from_array(values, "bfloat16"), "bfloat16")
    assert np.abs(kept[:3] / values[:3] - 1).max() <= 2**-8
    assert kept[4] == np.inf
    assert kept[6:].tolist() == [1.0, 1.015625]  # ties to even
    assert np.isnan(float32_from_stored(stored_from_array(np.array([np.nan], np.float32), "bfloat16"), "bfloat16")).all()


def test_engines_of_another_version(trt: EmulatedTensorRt, baked: Bundle) -> None:
    trt.__version__ = "98.0"  # type: ignore[misc]
    with pytest.raises(
        BundleError, match=r"built by tensorrt-rtx 99\.1, but this machine has 98\.0(.|\n)*plume-export compile"
    ):
        opened(trt, baked)


def test_engines_of_another_gpu(trt: EmulatedTensorRt, tiny_fp32: Bundle, tmp_path: Path) -> None:
    bundle = write_engine_bundle(tiny_fp32, tmp_path / "bundle", is_shared=False, device="NVIDIA L4 8.9")
    with pytest.raises(
        BundleError, match=r"built for NVIDIA L4 8\.9, but this machine has Emulated GPU 8\.9(.|\n)*plume-export compile"
    ):
        opened(trt, bundle)


def test_a_corrupted_engine(trt: EmulatedTensorRt, tiny_fp32: Bundle, tmp_path: Path) -> None:
    bundle = write_engine_bundle(tiny_fp32, tmp_path / "bundle", is_shared=False)
    bundle.graph_file("prefill").write_bytes(b"\x00" * bundle.graph_file("prefill").stat().st_size)
    with pytest.raises(BundleError, match=r"prefill\.engine was altered"):
        open_bundle(bundle.path)
    with opened(trt, bundle) as embedder, pytest.raises(BundleError, match=r"cannot load .*prefill\.engine on Emulated GPU"):
        embedder.embed(["a text"])


def test_a_device_too_small(trt: EmulatedTensorRt, baked: Bundle) -> None:
    trt.cuda.memory_bytes = 10_000_000
    with pytest.raises(PlumeExportError, match=r"needs \d+ MB of device memory \(.*buffers \d+\); Emulated GPU has 10 MB free"):
        opened(trt, baked)
    assert trt.cuda.blocks == {}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"driver": 0}, "No NVIDIA driver"),
        ({"driver": 12040}, r"driver supports CUDA 12\.4, but the installed CUDA runtime is 13\.0"),
        ({"gpus": 0}, "No CUDA device can be used"),
    ],
)
def test_machines_that_can_not_run_it(facts: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.runtime.cuda.device.import_cudart", lambda extra: EmulatedCuda(**facts))
    with pytest.raises(PlumeExportError, match=message):
        CudaDevice("rtx")


def test_this_machine_without_a_driver() -> None:
    """With cuda-python itself."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if runtime.cudaDriverGetVersion()[1] != 0:
        pytest.skip("a driver is installed here")
    with pytest.raises(PlumeExportError, match="No NVIDIA driver was found"):
        CudaDevice("rtx")
