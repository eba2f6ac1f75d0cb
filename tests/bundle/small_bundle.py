"""A bundle of a few bytes: it opens, and does not run."""

from pathlib import Path

from plume_export.bundle import CONSTANTS, SELFTEST_INPUTS, TOKENIZER, WEIGHTS, CheckpointOrigin, Manifest, write_manifest
from plume_export.spec import PLUME_2B, Precision, graph_specs

FILES = ("vision_encoder.onnx", "prefill.onnx", "latent_step.onnx", WEIGHTS, CONSTANTS, TOKENIZER, SELFTEST_INPUTS)


def write_small_bundle(directory: Path, *, checkpoint: str = "plume", precision: Precision = "fp16") -> Path:
    """Write it over what is there and return its directory. Its graphs are empty, every other file holds its own name."""
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("" if name.endswith(".onnx") else name)
    graphs = graph_specs(PLUME_2B, precision)
    manifest = Manifest(
        backend="onnx",
        precision=precision,
        modalities="all",
        model=PLUME_2B,
        graphs=graphs,
        checkpoint=CheckpointOrigin(name=checkpoint),
        versions={},
    )
    write_manifest(directory, manifest)
    return directory
