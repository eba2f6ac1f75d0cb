"""The float32 model with streamed weights: the reference's embeddings, and the same ranges however inputs are batched."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from torch import nn

from plume_export.bundle import Bundle
from plume_export.checkpoint import Checkpoint, CheckpointTensors, tokenizer_json_from_checkpoint
from plume_export.graphs.latent_step import ExpertStack
from plume_export.graphs.layers import Linear
from plume_export.graphs.weights import CheckpointParameters
from plume_export.inputs import Item, Preprocessor, sources_from_file
from plume_export.pipeline import ModelOptions, open_checkpoint
from plume_export.quantise import streamed_model
from plume_export.quantise.activation_ranges import PHASES, SAMPLE_ROWS, LinearRange, Phase
from plume_export.quantise.observe import Observer
from plume_export.quantise.streamed_model import NamedInput, StreamedModel
from plume_export.reference import Reference, ReferenceProcessor
from plume_export.samples import PLUME_TINY
from plume_export.spec import GraphName, ModelSpec, TransitionSpec
from tests.conftest import GOLDEN

Linears = dict[Phase, dict[str, LinearRange]]
# Products of other batches round otherwise: magnitudes by a little, and a few of them into the neighbouring bin.
MAGNITUDE_RELATIVE = 1e-4


@pytest.fixture(scope="module")
def golden() -> Checkpoint:
    return open_checkpoint(str(GOLDEN / "checkpoint"), ModelOptions())


@pytest.fixture(scope="module")
def items() -> list[Item]:
    """One of every kind, without the two largest."""
    return [source.read() for source in sources_from_file(GOLDEN / "inputs.jsonl") if source.id not in ("big", "clip")]


def prepared(checkpoint: Checkpoint, items: Sequence[Item]) -> tuple[Preprocessor, list[NamedInput]]:
    tokenizer_json = tokenizer_json_from_checkpoint(checkpoint.directory, checkpoint.model.decoder.vocab)
    preprocessor = Preprocessor(tokenizer_json, checkpoint.model)
    return preprocessor, [NamedInput(str(item.id), preprocessor.prepare(item)) for item in items]


def run(checkpoint: Checkpoint, items: Sequence[Item]) -> tuple[torch.Tensor, Linears]:
    observer = Observer()
    preprocessor, inputs = prepared(checkpoint, items)
    return StreamedModel(checkpoint, observer).embed(inputs, preprocessor.suffix_ids), observer.linears


def assert_same(measured: Linears, expected: Linears) -> None:
    """Magnitudes up to rounding; the number of rows exactly, so that a row of padding would show."""
    for phase in PHASES:
        assert measured[phase].keys() == expected[phase].keys()
        for name, seen in measured[phase].items():
            other = expected[phase][name]
            assert np.allclose(seen.input_abs_max, other.input_abs_max, rtol=MAGNITUDE_RELATIVE, atol=1e-5), (phase, name)
            assert seen.output_abs_max == pytest.approx(other.output_abs_max, rel=MAGNITUDE_RELATIVE)
            assert seen.input_rows == other.input_rows, (phase, name)


@pytest.mark.parametrize("checkpoint", [str(GOLDEN / "checkpoint"), PLUME_TINY])
@pytest.mark.slow
def test_embeddings_are_the_references(checkpoint: str, items: list[Item]) -> None:
    opened = open_checkpoint(checkpoint, ModelOptions())
    embeddings, _ = run(opened, items)
    reference = Reference(opened.directory, opened.tensors, opened.model, dtype=torch.float32)
    processor = ReferenceProcessor(opened.directory, opened.model)
    for embedding, item in zip(embeddings, items, strict=True):
        assert np.abs(embedding.numpy() - reference.stages(processor(item)).embedding).max() <= 1e-4


def test_router_without_anchor(items: list[Item]) -> None:
    opened = open_checkpoint(str(GOLDEN / "checkpoint"), ModelOptions(router_context="none", latent_steps=3))
    embedding, _ = run(opened, items[:1])
    reference = Reference(opened.directory, opened.tensors, opened.model, dtype=torch.float32)
    expected = reference.stages(ReferenceProcessor(opened.directory, opened.model)(items[0])).embedding
    assert np.abs(embedding[0].numpy() - expected).max() <= 1e-4


@pytest.mark.slow
def test_padded_batches_record_what_single_inputs_do(
    golden: Checkpoint, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, batched = run(golden, items)
    for limit in ("_PATCHES", "_PREFILL_TOKENS", "_CACHE_BYTES"):
        monkeypatch.setattr(streamed_model, limit, 1)
    monkeypatch.setattr(streamed_model, "_VISION_SCORES", 20_000)  # a few rows of a picture at once
    single_embeddings, single = run(golden, items)
    assert_same(batched, single)
    assert (embeddings - single_embeddings).abs().max() <= 1e-5


class PlainObserver:
    """Hooks without anything clever: every real row of every linear layer, one after another, in numpy."""

    def __init__(self) -> None:
        self.inputs: dict[tuple[Phase, str], list[np.ndarray]] = {}
        self.output_abs_max: dict[tuple[Phase, str], float] = {}
        self.now: tuple[Phase | None, torch.Tensor | None] = (None, None)

    def watch(self, module: nn.Module) -> None:
        for name, layer in module.named_modules():
            if isinstance(layer, Linear):
                layer.register_forward_hook(lambda _, arguments, output, name=name: self.observe(name, arguments[0], output))

    @contextmanager
    def running(self, phase: Phase | None, _: Sequence[str], is_real: torch.Tensor | None = None) -> Iterator[None]:
        self.now = (phase, is_real)
        yield

    def observe(self, name: str, x: torch.Tensor, output: torch.Tensor) -> None:
        phase, is_real = self.now
        if phase is None:
            return
        if is_real is not None and x.shape[1] == is_real.shape[1]:
            rows = [(x[i, j], output[i, j]) for i, j in is_real.nonzero().tolist()]
        else:
            rows = list(zip(x.flatten(0, -2), output.flatten(0, -2), strict=True))
        self.inputs.setdefault((phase, name), []).extend(row.numpy() for row, _ in rows)
        largest = max(float(given.abs().max()) for _, given in rows)
        self.output_abs_max[phase, name] = max(largest, self.output_abs_max.get((phase, name), 0.0))


@pytest.mark.slow
def test_streaming_changes_nothing(golden: Checkpoint, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against modules that hold their weights, with plain hooks: every magnitude to the bit."""
    _, streamed = run(golden, items)
    monkeypatch.setattr(streamed_model, "stream_parameters", load_for_good)
    plain = PlainObserver()
    preprocessor, inputs = prepared(golden, items)
    StreamedModel(golden, plain).embed(inputs, preprocessor.suffix_ids)  # type: ignore[arg-type]
    assert len(plain.inputs) == 11 + 12 + 2 * 13
    for (phase, name), rows in plain.inputs.items():
        x, seen = np.abs(np.stack(rows)), streamed[phase][name]
        assert (seen.input_abs_max == x.max(0)).all(), (phase, name)
        assert seen.output_abs_max == plain.output_abs_max[phase, name]
        assert seen.input_rows == len(rows)
        assert len(seen.input_sample) == min(len(rows), SAMPLE_ROWS)
        assert {row.tobytes() for row in seen.input_sample} <= {row.tobytes() for row in rows}


def load_for_good(module: nn.Module, tensors: CheckpointTensors, model: ModelSpec) -> None:
    read = CheckpointParameters(tensors, model)
    for name, _ in list(module.named_parameters()):
        part, _, parameter = name.rpartition(".")
        value = read(name).float()
        setattr(module.get_submodule(part), parameter, nn.Parameter(value, requires_grad=False))


def test_no_weight_stays_in_memory(golden: Checkpoint, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the rotary frequencies do, and while a layer runs no other has its weights."""
    modules: list[nn.Module] = []
    observer = Observer()
    watch = observer.watch

    def held() -> set[str]:
        return {name for module in modules for name, parameter in module.named_parameters() if not parameter.is_meta}

    def watched(module: nn.Module) -> None:
        modules.append(module)
        watch(module)
        for name, layer in module.named_modules():
            layer.register_forward_hook(lambda *_, name=name: others.update(weights_beside(name, held())))

    others: set[str] = set()
    monkeypatch.setattr(observer, "watch", watched)
    preprocessor, inputs = prepared(golden, items[:2])
    StreamedModel(golden, observer).embed(inputs, preprocessor.suffix_ids)
    assert held() == {"decoder.inverse_frequencies", "visual.inverse_frequencies"}
    assert others == held()


def weights_beside(layer: str, held: set[str]) -> set[str]:
    return {name for name in held if not name.startswith(f"{layer}.")}


def test_layers_have_the_names_of_the_graphs_weights(tiny_fp32: Bundle, tiny_checkpoint: Path) -> None:
    image = Image.new("RGB", (56, 56))
    _, linears = run(open_checkpoint(str(tiny_checkpoint), ModelOptions()), [Item(text="a", images=(image,))])
    graphs: dict[Phase, GraphName] = {
        "vision": "vision_encoder",
        "prefill": "prefill",
        "step": "latent_step",
        "readout": "latent_step",
    }
    for phase, graph in graphs.items():
        weights = {name for name in ir.load(tiny_fp32.graph_file(graph)).graph.initializers if name.endswith("weight")}
        named = {f"{name}_weight" if ".experts." in name else f"{name}.weight" for name in linears[phase]}
        assert named == {name for name in weights if not re.search(r"norm|embed_tokens|step_embed", name)}


def test_experts_are_two_layers() -> None:
    torch.manual_seed(0)
    experts = ExpertStack(6, TransitionSpec(experts=2, expert_width=10, step_table_rows=4, top_k=1), torch.float32)
    for parameter in experts.requires_grad_(False).parameters():
        nn.init.normal_(parameter)
    observer = Observer()
    observer.watch(nn.ModuleDict({"experts": experts}))
    x = torch.randn(5, 6)
    with torch.inference_mode(), observer.running("step", list("abcde")):
        output = experts(x)
    inner = torch.einsum("bh,ehw->ebw", x, experts.fc1_weight) + experts.fc1_bias
    fc1, fc2 = (observer.linears["step"][f"experts.{name}"] for name in ("fc1", "fc2"))
    assert np.allclose(fc1.input_abs_max, x.abs().amax(0))
    assert fc1.output_abs_max == pytest.approx(float(inner.abs().max()))
    assert np.allclose(fc2.input_abs_max, nn.functional.gelu(inner).abs().amax((0, 1)))
    assert fc2.output_abs_max == pytest.approx(float(output.abs().max()))
    assert fc2.input_rows == 3 * 5
