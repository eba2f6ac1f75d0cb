"""The traces that the tests keep are what the installed tracer makes."""

from pathlib import Path

import numpy as np
import pytest

from plume_export import Embedder, portable_bundle
from plume_export.bundle import Bundle
from plume_export.checkpoint import Checkpoint
from plume_export.spec import graph_specs

from . import traced_graphs
from .conftest import export_to
from .mixed_inputs import mixed_items
from .traced_graphs import code_of


def test_every_graph_of_the_shared_bundles_is_kept(plume_tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of plume_export/graphs: python -m tests.traced_graphs."""
    monkeypatch.setattr(traced_graphs, "trace_model_graph", lambda *_: pytest.fail("python -m tests.traced_graphs"))
    trace = traced_graphs.kept_traces(Path("no cache"))
    for precision in ("fp32", "fp16", "bf16"):
        for name in graph_specs(plume_tiny.model, precision):
            trace(name, plume_tiny.model, precision, ())


def test_comments_and_docstrings_are_not_code() -> None:
    code = code_of("def double(x):\n    return 2 * x\n")
    assert code_of('"""Doubles."""\n\n\ndef double(x):\n    """Double."""\n\n    return 2 * x  # twice\n') == code
    assert code_of("def double(x):\n    return 3 * x\n") != code


@pytest.mark.slow
def test_bundle_of_kept_graphs_embeds_as_one_traced_now(
    tiny_checkpoint: Path, tiny_fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable_bundle, "trace_model_graph", traced_graphs.trace_model_graph)
    traced_now = export_to(tmp_path, tiny_checkpoint, "fp32")
    for name in traced_now.manifest.graphs:
        assert str(Path(portable_bundle.__file__).parent).encode() not in traced_now.graph_file(name).read_bytes(), "a path"
    items = mixed_items()
    np.testing.assert_allclose(Embedder(traced_now).embed(items), Embedder(tiny_fp32).embed(items), rtol=0, atol=1e-6)
