"""Prefill with the start of prompts cached: what it returns for any batch is what it returned before, with less computed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from PIL import Image

from plume_export import Embedder
from plume_export.builders.onnxruntime import cached_start
from plume_export.builders.onnxruntime.cached_start import KNOWN_TOKENS
from plume_export.builders.onnxruntime.compile import compile_for_onnxruntime
from plume_export.bundle import CONSTANTS, TOKENIZER, Bundle, CachedStart, Manifest
from plume_export.errors import PlumeExportError
from plume_export.preprocess import Item, Preprocessor
from plume_export.runtime.backend import Array
from plume_export.runtime.batch import prompt_arrays
from plume_export.runtime.embedder import Mode
from plume_export.runtime.onnxruntime_cpu import session_options

# Of the tests' tokenizer: the system message and what opens an image; four visual tokens and what closes it.
ANY_PROMPT, TEXT = 16, 21
Batch = dict[str, Array]


class Prefills(NamedTuple):
    """The same graph with and without a cached start, and the bundle of the first."""

    cached: InferenceSession
    plain: InferenceSession
    bundle: Bundle

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

    def compare(self, batch: Mapping[str, Array]) -> int:
        """Assert that both give the same; return how many tokens were taken from the cache."""
        names = [tensor.name for tensor in self.bundle.manifest.graphs["prefill"].outputs]
        *cached, known = self.cached.run([*names, KNOWN_TOKENS], dict(batch))
        for name, value, expected in zip(names, cached, self.plain.run(names, dict(batch)), strict=True):
            assert value.dtype == expected.dtype
            np.testing.assert_allclose(value, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)
        return int(known.item())


def without_cached_start(source: Bundle, output: Path) -> Bundle:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cached_start, "cache_prompt_start", lambda directory, manifest: None)
        return compile_for_onnxruntime(source, output)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def prefills(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prefills:
    directory = tmp_path_factory.mktemp("prefills")
    source: Bundle = request.getfixturevalue(f"tiny_{request.param}")
    bundle = compile_for_onnxruntime(source, directory / "cached")
    graph = onnx.load(bundle.graph_file("prefill"), load_external_data=False)
    graph.graph.output.add(name=KNOWN_TOKENS)
    shown = bundle.path / "shown.onnx"
    onnx.save(graph, shown)
    plain = without_cached_start(source, directory / "plain").graph_file("prefill")
    options = session_options(bundle.manifest)
    return Prefills(*(InferenceSession(file, options, ["CPUExecutionProvider"]) for file in (shown, plain)), bundle)


def picture(width: int, height: int) -> Item:
    return Item(text="What is this?", images=(Image.new("RGB", (width, height), (200, 30, 60)),))


def test_the_manifest_tells_how_much_is_cached(prefills: Prefills) -> None:
    assert prefills.bundle.manifest.cached_start == CachedStart(any_prompt=ANY_PROMPT, text=TEXT)


@pytest.mark.parametrize(
    ("items", "known"),
    [
        ((Item(text="two dogs"),), TEXT),
        ((Item(text="\n\n!"),), TEXT),
        ((Item(text="two dogs"), Item(text="a red car on a long road by the sea"), Item(text="x")), TEXT),
        ((picture(112, 84),), ANY_PROMPT),
        ((picture(28, 28),), ANY_PROMPT),  # as many visual tokens as the blank image, with other embeddings
        ((Item(text="two dogs"), picture(112, 84)), ANY_PROMPT),
    ],
)
def test_prompts(prefills: Prefills, items: tuple[Item, ...], known: int) -> None:
    assert prefills.compare(prefills.batch(*items)) == known


def other_ids(batch: Batch) -> None:
    batch["input_ids"][-1, 7] += 1


def other_positions(batch: Batch) -> None:
    batch["position_ids"][2, 0, 3] += 1


def other_embeddings(batch: Batch) -> None:
    batch["visual_embeddings"][2, -1] += 1


def embeddings_that_are_no_numbers(batch: Batch) -> None:
    batch["visual_embeddings"][3, 0] = np.nan


def a_picture_in_place_of_a_text(batch: Batch) -> None:
    batch["visual_index"][0, 5] = 0


def embeddings_elsewhere(batch: Batch) -> None:
    batch["visual_embeddings"] = np.concatenate([batch["visual_embeddings"][::-1]] * 2)
    index = batch["visual_index"]
    batch["visual_index"] = np.where(index >= 0, 7 - index, -1)


def an_early_anchor(batch: Batch) -> None:
    batch["anchor_index"][0] = 4


def a_short_prompt(batch: Batch) -> None:
    batch["token_count"][1] = 9


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (other_ids, 7),
        (other_positions, 3),
        (other_embeddings, 18),
        (a_picture_in_place_of_a_text, 5),
        (embeddings_elsewhere, TEXT),
        (an_early_anchor, 4),
        (a_short_prompt, 8),
    ],
)
def test_only_what_agrees_is_taken_from_the_cache(prefills: Prefills, change: Callable[[Batch], None], known: int) -> None:
    batch = prefills.batch(Item(text="two dogs"), Item(text="a red car"))
    # Both prompts have the first one's embeddings, so that a change to these is one to both.
    batch["visual_index"][1] = batch["visual_index"][0]
    batch["visual_embeddings"] = batch["visual_embeddings"][:4].copy()
    change(batch)
    assert prefills.compare(batch) == known


def test_what_is_no_number_is_not_taken_for_the_blank_image(prefills: Prefills) -> None:
    batch = prefills.batch(Item(text="two dogs"))
    embeddings_that_are_no_numbers(batch)
    (known,) = prefills.cached.run([KNOWN_TOKENS], batch)
    assert known.item() == 19


def test_a_batch_shorter_than_the_start(prefills: Prefills) -> None:
    batch = prefills.batch(Item(text="two dogs"))
    short = {
        name: array[..., :6] if name in ("input_ids", "visual_index", "position_ids") else array
        for name, array in batch.items()
    }
    short |= {"token_count": np.array([6]), "anchor_index": np.array([5])}
    assert prefills.compare(short) == 5


def test_embeddings_are_those_without_it(tiny_fp32: Bundle, tiny_cpu: Bundle, tmp_path: Path) -> None:
    items = [Item(text="two dogs"), picture(84, 56), Item(text="a red car")]
    plain = without_cached_start(tiny_fp32, tmp_path / "plain")
    assert plain.manifest.cached_start is None
    for mode in get_args(Mode):
        with Embedder(plain, mode=mode) as before, Embedder(tiny_cpu, mode=mode) as after:
            np.testing.assert_allclose(after.embed(items), before.embed(items), rtol=0, atol=1e-5)


def test_where_onnxruntime_fails(tiny_fp32: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(directory: Path, manifest: Manifest) -> CachedStart:
        (directory / "prefill.onnx").write_bytes(b"no graph")
        return cache_prompt_start(directory, manifest)

    cache_prompt_start = cached_start.cache_prompt_start
    monkeypatch.setattr(cached_start, "cache_prompt_start", damaged)
    with pytest.raises(PlumeExportError, match=r"could not compute the start of prompts with prefill\.onnx"):
        compile_for_onnxruntime(tiny_fp32, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
