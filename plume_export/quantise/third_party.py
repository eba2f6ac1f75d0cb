"""int8 by a quantiser of ONNX files that is not ours: it gets each float32 graph with what the graph was fed, once."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from ..bundle import WEIGHTS, Bundle, MeasuredCosine, Modalities, Quantisation, move_file
from ..checkpoint import Checkpoint, tokenizer_json_from_checkpoint
from ..errors import PlumeExportError
from ..inputs import PreparedInput, Preprocessor, sources_from_file
from ..progress import Report, detail_of
from ..samples import calibration_inputs_file, held_out_inputs_file
from ..spec import GraphName
from .calibrate import inputs_sha256
from .graph_inputs import Feed, graph_inputs
from .held_out import HeldOut

# Quantises a graph's file into another file, which holds its weights itself. Gets what the graph was fed.
QuantiseFile = Callable[[Path, Path, list[Feed]], None]
# A file of ONNX is a protobuf message.
_MOST_BYTES = 2**31 - 1


class ForeignQuantiser:
    """Quantises graphs traced in float32; calibrates on the inputs that ship, one at a time.

    `name` is what the manifest says. Of a bundle for texts, the texts alone count. With `min_cosine` a worse embedding is an
    error, as there are no layers to take back; None: measured, nothing promised; 0: not measured.
    """

    def __init__(
        self,
        name: str,
        quantise_file: QuantiseFile,
        checkpoint: Checkpoint,
        modalities: Modalities,
        min_cosine: float | None = None,
        report: Report = lambda _: None,
    ) -> None:
        self._name, self._quantise_file, self._checkpoint = name, quantise_file, checkpoint
        self._modalities, self._min_cosine, self._report = modalities, min_cosine, report

    def __call__(self, write: Callable[[None], Bundle]) -> Quantisation:
        """Write the float32 graphs and put quantised ones in their place. Raises PlumeExportError as the class says."""
        bundle = write(None)
        _check_size(bundle, self._name)
        self._report("recording what every graph is fed over the calibration inputs")
        inputs = _calibration_inputs(self._checkpoint, self._modalities)
        for graph, feeds in graph_inputs(bundle, inputs).items():
            detail_of(self._report)(f"{self._name}: {graph}, {len(feeds)} runs")
            self._replace(bundle.graph_file(graph), feeds)
        bundle.file(WEIGHTS).unlink()
        products = {graph: int8_products(ir.load(bundle.graph_file(graph))) for graph in bundle.manifest.graphs}
        self._report(_products_text(products))
        return Quantisation(
            graphs={graph: "int8" for graph, (quantised, _) in products.items() if quantised},
            kept={},
            calibration_inputs=len(inputs),
            calibration_sha256=inputs_sha256(inputs),
            min_cosine=self._min_cosine or None,
            measured=None if self._min_cosine == 0 else self._measure(bundle),
            quantizer=self._name,
        )

    def _replace(self, file: Path, feeds: list[Feed]) -> None:
        """The quantised file is made elsewhere: such tools leave files of their own beside it."""
        with tempfile.TemporaryDirectory(prefix=".quantising-", dir=file.parent.parent) as scratch:
            quantised = Path(scratch) / file.name
            self._quantise_file(file, quantised, feeds)
            move_file(quantised, file)

    def _measure(self, bundle: Bundle) -> MeasuredCosine:
        measured = HeldOut(self._checkpoint, held_out_inputs_file(), self._modalities, self._report).measure(bundle)
        if self._min_cosine is not None and measured.worst < self._min_cosine:
            raise PlumeExportError(
                f"The cosine of {self._name} is {measured.worst:.5f} at worst (input {measured.worst_input!r}), "
                f"{measured.mean:.5f} mean; the threshold asks for {self._min_cosine}.",
                fix="--quantizer own, which keeps layers in 16 bit until it is reached, or a lower --min-cosine",
            )
        return measured


def int8_products(graph: ir.Model) -> tuple[int, int]:
    """Return how many matrix products of a graph take both sides from int8, and how many there are."""
    products = [node for node in graph.graph if node.op_type == "MatMul"]
    return sum(all(_is_dequantised(value) for value in node.inputs) for node in products), len(products)


def _is_dequantised(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _products_text(products: dict[GraphName, tuple[int, int]]) -> str:
    return "matrix products in int8: " + ", ".join(f"{graph} {some} of {all_}" for graph, (some, all_) in products.items())


def _check_size(bundle: Bundle, name: str) -> None:
    size = bundle.file(WEIGHTS).stat().st_size
    if size > _MOST_BYTES:
        raise PlumeExportError(
            f"The float32 weights take {size:,} bytes; {name} is for models of up to {_MOST_BYTES:,} here, as a graph's file "
            "holds its weights.",
            fix="--quantizer own",
        )


def _calibration_inputs(checkpoint: Checkpoint, modalities: Modalities) -> list[PreparedInput]:
    model = checkpoint.model
    preprocessor = Preprocessor(tokenizer_json_from_checkpoint(checkpoint.directory, model.decoder.vocab), model)
    items = [source.read() for source in sources_from_file(calibration_inputs_file())]
    if modalities == "text":
        items = [item for item in items if not item.images and item.video is None]
    return [preprocessor.prepare(item) for item in items]
