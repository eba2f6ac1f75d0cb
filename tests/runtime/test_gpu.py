"""What only a GPU can show. Skipped, with the reason, where there is none: pytest -m gpu -rs"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from plume_export import Embedder
from plume_export.bundle import Bundle
from plume_export.errors import MissingExtraError, PlumeExportError
from plume_export.inputs import Item, sources_from_file
from plume_export.machine.software import CUDA_PROVIDER
from plume_export.parity.reference_run import measure_parity
from plume_export.pipeline import ModelOptions, compile_bundle, open_checkpoint
from plume_export.recipe import read_target
from plume_export.runtime.cuda.device import CudaDevice
from plume_export.runtime.cuda.tensorrt import TensorRt
from plume_export.samples import sample_inputs_file

pytestmark = pytest.mark.gpu
ITEMS: list[Item] = [source.read() for source in sources_from_file(sample_inputs_file())]
# One recipe for each backend; the shapes are the recipe's own.
TARGETS = ("cuda", "rtx", "l4", "a100", "h100", "h200")


@pytest.fixture(scope="module")
def device() -> Iterator[CudaDevice]:
    try:
        opened = CudaDevice("gpu")
    except PlumeExportError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=TARGETS)
def bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, device: CudaDevice, tiny_fp16: Bundle
) -> Bundle:
    """A bundle compiled on this machine; only what is not installed is skipped."""
    target = request.param
    if target not in ("cuda", "rtx") and target.upper() not in device.name.upper():
        pytest.skip(f"this is a {device.name}")
    if target == "cuda" and CUDA_PROVIDER not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    try:
        return compile_bundle(tiny_fp16, tmp_path_factory.mktemp("gpu") / target, read_target(target))
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_parity_with_the_reference(bundle: Bundle, tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    with Embedder(bundle) as embedder:
        report = measure_parity(embedder, checkpoint, ITEMS)
    assert report.first_bad_stage is None
    assert {stage.stage: stage.cosine for stage in report.stages}["embedding"] >= 0.999


def test_one_cuda_graph_equals_the_plain_path_bit_for_bit(bundle: Bundle) -> None:
    if bundle.manifest.engines is None:
        pytest.skip("ONNX Runtime's rollout is not recorded")
    with Embedder(bundle, backend=TensorRt(bundle, is_recording=False)) as plain:
        wanted = plain.embed(ITEMS * 4, batch_size=1)
    with Embedder(bundle) as recorded:
        assert (recorded.embed(ITEMS * 4, batch_size=1) == wanted).all()


def test_nothing_is_allocated_after_warm_up(bundle: Bundle, device: CudaDevice) -> None:
    with Embedder(bundle) as embedder:
        for _ in range(4):
            embedder.embed(ITEMS, batch_size=1)
        before = device.free_bytes()
        for _ in range(100 // len(ITEMS) + 1):
            embedder.embed(ITEMS, batch_size=1)
        assert device.free_bytes() == before


def test_a_batch_equals_one_at_a_time(bundle: Bundle) -> None:
    with Embedder(bundle) as embedder:
        together, alone = embedder.embed(ITEMS), embedder.embed(ITEMS, batch_size=1)
    assert np.sum(together * alone, axis=1).min() >= 0.9999
