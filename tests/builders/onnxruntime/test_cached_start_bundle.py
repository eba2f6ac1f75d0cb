"""Compiled bundles with the start of prompts cached: prompts of every kind are embedded as without it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from PIL import Image

from plume_export import Embedder
from plume_export.builders.onnxruntime import cached_start
from plume_export.builders.onnxruntime.cached_start import CACHED_TOKENS
from plume_export.builders.onnxruntime.onnxruntime_bundle import compile_for_onnxruntime
from plume_export.bundle import CONSTANTS, TOKENIZER, Bundle, CachedStart, Manifest
from plume_export.errors import PlumeExportError
from plume_export.inputs import Item, Preprocessor
from plume_export.runtime.backend import Array
from plume_export.runtime.batch import prompt_arrays
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeSession, session_options

pytestmark = pytest.mark.slow

Batch = dict[str, Array]


class Prefills(NamedTuple):
    """The same graph with and without a cached start, and the bundles."""

    cached: InferenceSession
    plain: InferenceSession
    bundle: Bundle
    plain_bundle: Bundle

    @property
    def start(self) -> CachedStart:
        start = self.bundle.manifest.cached_start
        assert start is not None
        return start

    def batch(self, *items: Item) -> Batch:
        """Return the inputs for items; pictures get random visual embeddings, texts those of the blank image."""
        manifest = self.bundle.manifest
        preprocessor = Preprocessor(self.bundle.file(TOKENIZER).read_text(), manifest.model)
        prompts = [preprocessor.prepare(item) for item in items]
        arrays = prompt_arrays(prompts, max(prompt.token_count for prompt in prompts))
        with np.load(self.bundle.file(CONSTANTS)) as constants:
            blank = constants["blank_visual_embeddings"]
        random = np.random.default_rng(0)
        media = [medium for prompt in prompts for medium in prompt.media]
        rows = [
            blank if medium.is_blank else random.standard_normal((np.prod(medium.grid) // 4, blank.shape[1]))
            for medium in media
        ]
        dtype = manifest.graphs["prefill"].inputs[1].dtype
        return arrays | {"visual_embeddings": np.concatenate(rows).astype(dtype)}

    def cached_tokens(self, batch: Mapping[str, Array]) -> int:
        (count,) = self.cached.run([CACHED_TOKENS], dict(batch))
        return int(count.item())

    def compare(self, batch: Mapping[str, Array]) -> int:
        """Assert that both give the same; return how many tokens were taken from the cache."""
        names = [tensor.name for tensor in self.bundle.manifest.graphs["prefill"].outputs]
        cached, plain = (session.run(names, dict(batch)) for session in (self.cached, self.plain))
        for name, value, expected in zip(names, cached, plain, strict=True):
            assert value.dtype == expected.dtype
            np.testing.assert_allclose(value, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)
        return self.cached_tokens(batch)


@pytest.fixture(scope="module", params=["tiny_fp32", "tiny_fp16", "plume_tiny_int8"])
def prefills(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prefills:
    directory = tmp_path_factory.mktemp("prefills")
    source: Bundle = request.getfixturevalue(request.param)
    bundle = compile_for_onnxruntime(source, directory / "cached")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cached_start, "cache_prompt_start", lambda directory, manifest: None)
        plain = compile_for_onnxruntime(source, directory / "plain")
    graph = onnx.load(bundle.graph_file("prefill"), load_external_data=False)
    graph.graph.output.add(name=CACHED_TOKENS)
    onnx.save(graph, bundle.path / "shown.onnx")
    files = (bundle.path / "shown.onnx", plain.graph_file("prefill"))
    options = session_options(bundle.manifest)
    return Prefills(*(InferenceSession(file, options, ["CPUExecutionProvider"]) for file in files), bundle, plain)


def picture(width: int, height: int) -> Item:
    return Item(text="What is this?", images=(Image.new("RGB", (width, height), (200, 30, 60)),))


TEXT, OTHER_TEXT, PICTURE = Item(text="two dogs"), Item(text="a red car on a long road by the sea"), picture(112, 84)
LINES = Item(text="\n\n!")
SMALL_PICTURE = picture(28, 28)  # as many visual tokens as the blank image, with other embeddings
VIDEO = Item(text="What moves?", video=tuple(Image.new("RGB", (112, 112)) for _ in range(4)))


def test_the_manifest_tells_how_much_is_cached(tiny_cpu: Bundle) -> None:
    """The system message and what opens an image; four visual tokens and what closes it."""
    assert tiny_cpu.manifest.cached_start == CachedStart(any_prompt_tokens=16, text_tokens=21)


@pytest.mark.parametrize("items", [(TEXT,), (LINES,), (TEXT, OTHER_TEXT, Item(text="x"))])
def test_texts(prefills: Prefills, items: tuple[Item, ...]) -> None:
    assert prefills.compare(prefills.batch(*items)) == prefills.start.text_tokens


@pytest.mark.parametrize("items", [(PICTURE,), (SMALL_PICTURE,), (VIDEO,), (TEXT, PICTURE), (SMALL_PICTURE, TEXT)])
def test_other_prompts(prefills: Prefills, items: tuple[Item, ...]) -> None:
    assert prefills.compare(prefills.batch(*items)) == prefills.start.any_prompt_tokens


@pytest.mark.parametrize("options", [{}, {"mode": "disc"}, {"steps": 0}, {"allow_control_tokens": True}])
def test_embeddings_are_those_without_it(prefills: Prefills, options: dict[str, Any]) -> None:
    items = [TEXT, PICTURE, OTHER_TEXT, VIDEO, SMALL_PICTURE]
    with Embedder(prefills.plain_bundle, **options) as before, Embedder(prefills.bundle, **options) as after:
        np.testing.assert_allclose(after.embed(items), before.embed(items), rtol=0, atol=5e-5)


def test_the_runtime_s_batches_agree_with_it(prefills: Prefills, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: a blank image that were rounded once more would quietly be computed again for every text."""
    batches: list[Batch] = []
    bind = OnnxRuntimeSession.bind

    def recorded(session: OnnxRuntimeSession, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> object:
        if "input_ids" in inputs:
            batches.append({name: array.copy() for name, array in inputs.items()})
        return bind(session, inputs, outputs)

    monkeypatch.setattr(OnnxRuntimeSession, "bind", recorded)
    with Embedder(prefills.bundle) as embedder:
        embedder.embed([TEXT, OTHER_TEXT], batch_size=2)
        embedder.embed([PICTURE])
    start = prefills.start
    *texts, of_picture = [prefills.cached_tokens(batch) for batch in batches]
    assert set(texts) == {start.text_tokens}
    assert of_picture == start.any_prompt_tokens


def test_where_onnxruntime_fails(tiny_fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_prompt_start = cached_start.cache_prompt_start

    def damaged(directory: Path, manifest: Manifest) -> CachedStart:
        (directory / "prefill.onnx").write_bytes(b"no graph")
        return cache_prompt_start(directory, manifest)

    monkeypatch.setattr(cached_start, "cache_prompt_start", damaged)
    with pytest.raises(PlumeExportError, match=r"could not compute the cached start of prompts with prefill\.onnx"):
        compile_for_onnxruntime(tiny_fp32, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
