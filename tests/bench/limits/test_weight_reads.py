"""Bytes of weights that a pass reads."""

import pytest

from plume_export.bench.limits.weight_reads import weight_reads
from plume_export.bundle import Bundle
from plume_export.plan import bytes_read_by_pass
from plume_export.spec import GRAPH_NAMES


@pytest.mark.parametrize("graph", GRAPH_NAMES)
def test_weights_read_are_those_of_the_model(tiny_cpu: Bundle, graph: str) -> None:
    """The plan counts from dimensions, this from the file: apart by rotary tables and small constants alone."""
    counted = weight_reads(tiny_cpu, graph)  # type: ignore[arg-type]
    planned = bytes_read_by_pass(tiny_cpu.manifest.model, "fp32", graph)  # type: ignore[arg-type]
    table = 32 * 128 * 4 if graph == "latent_step" else 0  # of steps, of which a row is read
    assert counted.whole == pytest.approx(planned - table, rel=0.002)
    assert counted.row == (0 if graph == "vision_encoder" else 128 * 4)


def test_float16_is_read_as_onnx_runtime_holds_it(tiny_cpu: Bundle, tiny_fp16: Bundle) -> None:
    for graph in GRAPH_NAMES:
        assert weight_reads(tiny_fp16, graph).whole == pytest.approx(weight_reads(tiny_cpu, graph).whole, rel=0.002)
