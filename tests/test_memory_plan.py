"""The memory plan, and how near it comes to what TensorRT-RTX's builder reports at the 2B model's widths."""

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from plume_export.builders.tensorrt.engine import EngineRequest
from plume_export.builders.tensorrt.graph_weights import SHARED_BYTES
from plume_export.builders.tensorrt.network import axis_ranges
from plume_export.builders.tensorrt.tensorrt_bundle import build_in_child
from plume_export.bundle import Bundle
from plume_export.cli import main
from plume_export.errors import PlumeExportError
from plume_export.memory_plan import nearest_that_fits, plan_memory
from plume_export.pipeline import compile_bundle
from plume_export.portable_bundle import trace_model_graph
from plume_export.recipe import AxisRange, BuilderSettings, Recipe, ShapeRanges, read_recipe, read_target, recipes_directory
from plume_export.spec import COMPUTE_DTYPE, PLUME_2B, GraphName, GraphSpec, ModelSpec, TensorSpec, graph_specs

# The 2B model's widths with two vision blocks and two decoder layers.
WIDE = msgspec.structs.replace(
    PLUME_2B,
    vision=msgspec.structs.replace(PLUME_2B.vision, depth=2),
    decoder=msgspec.structs.replace(PLUME_2B.decoder, layers=2),
)
# Sizes of the 2B model's engines as TensorRT-RTX 1.7 built them in float16, with the recipe `rtx`.
BUILT_ENGINES = {"vision_encoder": 1_348_000_000, "prefill": 3_108_200_000, "latent_step": 2_746_100_000}


def recipe_of(batch: int, tokens: int, image: int) -> Recipe:
    shapes = ShapeRanges(AxisRange(1, 1, batch), AxisRange(16, 256, tokens), AxisRange(4, 256, image))
    return msgspec.structs.replace(read_recipe("rtx"), shapes=shapes)


def built_activations(graph: GraphName, model: ModelSpec, shapes: ShapeRanges, directory: Path) -> int:
    """Build the engine of a graph without weights: the large ones are inputs, the small ones zero."""
    spec = graph_specs(model, "fp16")[graph]
    traced = trace_model_graph(graph, model, "fp16")
    weights = []
    for name, value in list(traced.graph.initializers.items()):
        if value.const_value is not None:
            continue
        assert value.shape is not None
        assert value.dtype is not None
        shape = [int(size) for size in value.shape]  # type: ignore[call-overload]
        if math.prod(shape) * value.dtype.itemsize >= SHARED_BYTES:
            del traced.graph.initializers[name]
            traced.graph.inputs.append(value)
            assert value.name is not None
            weights.append(TensorSpec(value.name, COMPUTE_DTYPE["fp16"], tuple(shape)))
        else:
            value.const_value = ir.tensor(np.zeros(shape, value.dtype.numpy()), name=name)
    ir.save(traced, directory / "graph.onnx")
    request = EngineRequest(
        variant="tensorrt-rtx",
        onnx_file=str(directory / "graph.onnx"),
        engine_file=str(directory / "engine"),
        timing_cache_file=None,
        precision="fp16",
        spec=GraphSpec(inputs=(*spec.inputs, *weights), outputs=spec.outputs),
        axis_ranges=dict(axis_ranges(shapes, model, 4)),
        builder=BuilderSettings(),
    )
    activations = build_in_child(request, lambda _: None).figures.activation_bytes
    assert activations is not None
    return activations


@pytest.mark.parametrize("graph", ["vision_encoder", "prefill"])
@pytest.mark.parametrize(("batch", "tokens", "image"), [(1, 1024, 768), (4, 4096, 3009)])
@pytest.mark.slow
def test_activations_are_those_of_the_builder(graph: GraphName, batch: int, tokens: int, image: int, tmp_path: Path) -> None:
    recipe = recipe_of(batch, tokens, image)
    planned = plan_memory("x", recipe, WIDE, "fp16").activations[graph]
    assert planned == pytest.approx(built_activations(graph, WIDE, recipe.limits, tmp_path), rel=0.05)


def test_engines_of_the_2b_model() -> None:
    planned = plan_memory("rtx", read_recipe("rtx"), PLUME_2B, "fp16").engines
    for graph, built in BUILT_ENGINES.items():
        assert planned[graph] == pytest.approx(built, rel=0.01)  # type: ignore[index]


def test_weights_are_those_of_a_bundle(tiny_fp16: Bundle) -> None:
    """A shared plan counts the weight file; what it lacks are rotary frequencies and padding."""
    recipe = msgspec.structs.replace(recipe_of(1, 512, 64), weights="shared")
    planned = plan_memory("x", recipe, tiny_fp16.manifest.model, "fp16").shared_weights
    assert planned == pytest.approx(tiny_fp16.manifest.files["weights.safetensors"].bytes, rel=0.02)


def test_the_8_gb_orin_nano() -> None:
    shared = read_recipe("jetson-orin-nano-8gb")
    assert plan_memory("jetson-orin-nano-8gb", shared, PLUME_2B, "fp16").fits is True
    recipe = msgspec.structs.replace(shared, weights="baked")
    plan = plan_memory("jetson-orin-nano-8gb", recipe, PLUME_2B, "fp16")
    assert plan.fits is False
    nearest = nearest_that_fits("jetson-orin-nano-8gb", recipe, PLUME_2B, "fp16")
    assert nearest is not None
    assert nearest.fits is True
    assert nearest.weights == "shared"
    assert nearest.shapes == recipe.limits
    assert nearest_that_fits("x", recipe, PLUME_2B, "fp32") is None  # its weights alone are larger


def test_a_recipe_without_a_device_or_without_engines() -> None:
    assert plan_memory("rtx", read_recipe("rtx"), PLUME_2B, "bf16").fits is None
    for target in ("cpu", "cuda"):
        with pytest.raises(PlumeExportError, match=f"{target} has no engines"):
            plan_memory(target, read_recipe(target), PLUME_2B, "fp16")


def test_engines_that_the_device_can_not_hold_are_not_built(tiny_fp16: Bundle, tmp_path: Path) -> None:
    """The recipe's own device, before the builder starts."""
    text = (recipes_directory() / "jetson-orin-nano-8gb.toml").read_text()
    text = text.replace('backend = "tensorrt"', 'backend = "tensorrt-rtx"').replace("memory_gb = 7.4", "memory_gb = 0.53")
    (tmp_path / "small.toml").write_text(text)
    with pytest.raises(
        PlumeExportError, match=r"need [\d,]+ MB of device memory.*; Orin Nano has 530 MB(.|\n)*nearest that fits"
    ):
        compile_bundle(tiny_fp16, tmp_path / "out", read_target(str(tmp_path / "small.toml")))
    assert not (tmp_path / "out").exists()


def test_the_command(tiny_checkpoint: Path) -> None:
    over = CliRunner().invoke(main, ["plan", "--target", "jetson-orin-nano-8gb", "--weights", "baked"])
    assert over.exit_code == 1
    for part in ("does not fit", 'weights = "shared"', "prefix cache"):
        assert part in over.stdout
    arguments = ["plan", "--target", "jetson-orin-nano-8gb", "--checkpoint", str(tiny_checkpoint), "--json"]
    small = CliRunner().invoke(main, arguments)
    assert small.exit_code == 0
    report = json.loads(small.stdout)
    assert report["fits"] is True
    assert report["total"] < 2_000_000_000
