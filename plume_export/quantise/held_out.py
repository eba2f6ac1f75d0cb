"""The accuracy of a quantised bundle, measured on inputs that calibration does not use."""

from pathlib import Path

from ..bundle import Bundle, MeasuredCosine, Modalities
from ..checkpoint import Checkpoint, tokenizer_json_from_checkpoint
from ..inputs import Preprocessor, sources_from_file
from ..progress import Report
from ..runtime.embedder import Embedder
from .observe import Observer
from .streamed_model import NamedInput, StreamedModel


class HeldOut:
    """Inputs of a JSON lines file with their float32 embeddings. A text-only bundle is measured on the texts."""

    def __init__(
        self, checkpoint: Checkpoint, inputs_file: Path, modalities: Modalities, report: Report = lambda _: None
    ) -> None:
        model = checkpoint.model
        preprocessor = Preprocessor(tokenizer_json_from_checkpoint(checkpoint.directory, model.decoder.vocab), model)
        items = [(source.id, source.read()) for source in sources_from_file(inputs_file)]
        if modalities == "text":
            items = [(name, item) for name, item in items if not item.images and item.video is None]
        self._inputs = [NamedInput(name, preprocessor.prepare(item)) for name, item in items]
        report(f"float32 embeddings of {len(self._inputs)} held-out inputs")
        self._expected = StreamedModel(checkpoint, Observer(), report).embed(self._inputs, preprocessor.suffix_ids).numpy()

    def measure(self, bundle: Bundle) -> MeasuredCosine:
        """Embed with a bundle and compare. Raises InputError for an embedding that is not finite."""
        with Embedder(bundle, verify_hashes=False) as embedder:
            actual = embedder.embed_prepared([item.prepared for item in self._inputs])
        cosines = (self._expected * actual).sum(-1)
        worst = int(cosines.argmin())
        return MeasuredCosine(len(cosines), float(cosines.mean()), float(cosines[worst]), self._inputs[worst].name)
