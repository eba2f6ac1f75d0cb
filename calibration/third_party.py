"""int8 by a third-party quantiser of ONNX files: it gets each float32 graph and the inputs that the graph ran on."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
from graph_inputs import Feed, graph_inputs

from plume_export.bundle import WEIGHTS, Bundle, Modalities, Quantisation, move_file, open_written
from plume_export.checkpoint import Checkpoint, tokenizer_json_from_checkpoint
from plume_export.errors import PlumeExportError
from plume_export.inputs import PreparedInput, Preprocessor, sources_from_file
from plume_export.portable_bundle import DraftBundle, draft_bundle
from plume_export.progress import Report, detail_of
from plume_export.quantise.calibrate import inputs_sha256
from plume_export.samples import calibration_inputs_file
from plume_export.spec import GraphName

# Quantises a graph's file into another file, which holds its weights itself. Gets what the graph was fed.
QuantiseFile = Callable[[Path, Path, list[Feed]], None]
# A file of ONNX is a protobuf message.
_MOST_BYTES = 2**31 - 1


class ThirdPartyQuantiser:
    """Quantises graphs traced in float32. It calibrates on the built-in inputs, one at a time.

    `name` goes into the manifest. Of a text-only bundle, only the texts are used.
    """

    def __init__(
        self,
        name: str,
        quantise_file: QuantiseFile,
        report: Report = lambda _: None,
    ) -> None:
        self._name, self._quantise_file, self._report = name, quantise_file, report

    def export(self, checkpoint: Checkpoint, output: Path, modalities: Modalities = "all") -> Bundle:
        """Export a checkpoint with the third party's int8. Raises PlumeExportError for a model that is too large."""
        traced_in_float32 = draft_bundle(
            checkpoint, output, precision="int8", modalities=modalities, traced_in="fp32", report=self._report
        )
        with traced_in_float32 as draft:
            draft.quantisation = self._quantise(draft)
        return open_written(output)

    def _quantise(self, draft: DraftBundle) -> Quantisation:
        bundle = draft.write_graphs()
        _check_size(bundle, self._name)
        self._report("recording what every graph is fed over the calibration inputs")
        inputs = _calibration_inputs(draft.checkpoint, draft.manifest.modalities)
        for graph, feeds in graph_inputs(bundle, inputs).items():
            detail_of(self._report)(f"{self._name}: {graph}, {len(feeds)} runs")
            self._replace(bundle.graph_file(graph), feeds)
        bundle.file(WEIGHTS).unlink()
        matmuls = {graph: int8_matmuls(ir.load(bundle.graph_file(graph))) for graph in bundle.manifest.graphs}
        self._report(_matmuls_text(matmuls))
        return Quantisation(
            graphs={graph: "int8" for graph, (quantised, _) in matmuls.items() if quantised},
            kept={},
            calibration_inputs=len(inputs),
            calibration_sha256=inputs_sha256(inputs),
            min_cosine=None,
            measured=None,
            quantizer=self._name,
        )

    def _replace(self, file: Path, feeds: list[Feed]) -> None:
        """The quantised file is made elsewhere: such tools leave files of their own beside it."""
        with tempfile.TemporaryDirectory(prefix=".quantising-", dir=file.parent.parent) as scratch:
            quantised = Path(scratch) / file.name
            self._quantise_file(file, quantised, feeds)
            move_file(quantised, file)


def int8_matmuls(graph: ir.Model) -> tuple[int, int]:
    """Return how many matmuls of a graph take both operands from int8, and how many there are."""
    matmuls = [node for node in graph.graph if node.op_type == "MatMul"]
    return sum(all(_is_dequantised(value) for value in node.inputs) for node in matmuls), len(matmuls)


def _is_dequantised(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _matmuls_text(matmuls: dict[GraphName, tuple[int, int]]) -> str:
    return "matmuls in int8: " + ", ".join(f"{graph} {some} of {all_}" for graph, (some, all_) in matmuls.items())


def _check_size(bundle: Bundle, name: str) -> None:
    size = bundle.file(WEIGHTS).stat().st_size
    if size > _MOST_BYTES:
        raise PlumeExportError(
            f"The float32 weights take {size:,} bytes; {name} is for models of up to {_MOST_BYTES:,} here, as a graph's file "
            "holds its weights.",
            fix="compare on a smaller model",
        )


def _calibration_inputs(checkpoint: Checkpoint, modalities: Modalities) -> list[PreparedInput]:
    model = checkpoint.model
    preprocessor = Preprocessor(tokenizer_json_from_checkpoint(checkpoint.directory, model.decoder.vocab), model)
    items = [source.read() for source in sources_from_file(calibration_inputs_file())]
    if modalities == "text":
        items = [item for item in items if not item.images and item.video is None]
    return [preprocessor.prepare(item) for item in items]
