"""The embedder's own behaviour: kinds of input, modes, limits."""

import gc
import io
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from plume_export import Embedder
from plume_export.bundle import WEIGHTS, Bundle, write_manifest
from plume_export.errors import BundleError, InputError, OptionError, PlumeExportError
from plume_export.inputs import Item
from plume_export.runtime.backend import Array
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeBinding, OnnxRuntimeCpu, OnnxRuntimeSession
from plume_export.runtime.output_rows import OUTPUT_DTYPES, OutputDtype, rows_from_embeddings
from plume_export.runtime.rollout import BoundRollout
from plume_export.spec import Precision
from plume_export.weight_file import read_header

PICTURE = Image.new("RGB", (70, 50), (200, 30, 60))


def test_embeddings_are_unit_float32(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        embeddings = embedder.embed(["a text", PICTURE, {"text": "both", "image": PICTURE}, Item(text="item")])
    assert embeddings.shape == (4, embedder.dimension)
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_images_of_every_kind_agree(tiny_cpu: Bundle, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "picture.png")
    path, content, pixels = tmp_path / "picture.png", (tmp_path / "picture.png").read_bytes(), np.asarray(PICTURE)
    with Embedder(tiny_cpu) as embedder, path.open("rb") as opened:
        items = [PICTURE, path, content, bytearray(content), memoryview(content), opened, io.BytesIO(content), pixels]
        embeddings = embedder.embed([*items, {"image": opened}, {"image": content}], batch_size=1)
        assert np.abs(embeddings - embeddings[0]).max() == 0
        assert np.abs(embedder.encode(pixels) - embeddings[0]).max() == 0
        assert np.abs(embedder.embed(np.stack([pixels, pixels])) - embeddings[0]).max() <= 1e-6
        for one in (path, content, opened, pixels, pixels[..., 0], PICTURE, Item(text="a")):
            with pytest.raises(InputError, match="embed takes a list of items, but got one"):
                embedder.embed(one)  # type: ignore[arg-type]


def test_what_is_worth_knowing_is_warned_of_once_a_call(
    tiny_cpu: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save("a.jpg", exif=exif)
    with Embedder(tiny_cpu) as embedder, pytest.warns(UserWarning, match=r"a\.jpg") as warned:
        embedder.embed([Path("a.jpg"), "a.jpg", {"image": "a.jpg"}])
    messages = sorted(str(warning.message) for warning in warned)
    assert [message.split(" ")[:2] for message in messages] == [["2", "images"], ["a.jpg", "names"]]
    assert "exif_transpose=True" in messages[0]
    assert {warning.filename for warning in warned} == {__file__}
    with warnings.catch_warnings(), Embedder(tiny_cpu, exif_transpose=True) as embedder:
        warnings.simplefilter("error")
        embedder.embed([Path("a.jpg")])


def test_options_of_media_are_checked_first() -> None:
    with pytest.raises(PlumeExportError, match="video_frames is 3; expected an even number"):
        Embedder("no bundle", video_frames=3)


def test_no_items_give_no_rows(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        assert embedder.embed([]).shape == (0, embedder.dimension)


@pytest.mark.slow
def test_batches_of_like_lengths_keep_the_order(tiny_cpu: Bundle) -> None:
    """More than one window of texts and pictures, of equal and of other sizes."""
    pictures = [Image.new("RGB", (60 + 30 * (number % 3), 60), (9 * number, 0, 90)) for number in range(20)]
    texts: list[object] = ["word " * (7 * number % 40) + str(number) for number in range(20)]
    items = [item for pair in zip(texts, pictures, strict=True) for item in pair]
    with Embedder(tiny_cpu) as embedder:
        one_by_one = np.concatenate([embedder.embed([item], batch_size=1) for item in items])
        together = embedder.embed(items, batch_size=2)
        assert np.abs(together - one_by_one).max() <= 1e-5
        assert np.abs(embedder.embed(items) - one_by_one).max() <= 1e-5
    assert np.abs(one_by_one[:-1] - one_by_one[1:]).max(1).min() > 1e-3


def test_stages_have_the_pictures_in_the_order_of_the_prompt(tiny_cpu: Bundle) -> None:
    """Equal sizes are encoded together, whatever stands between them."""
    wide, tall = (Image.effect_noise(size, 90).convert("RGB") for size in ((90, 60), (60, 90)))
    images = (wide, tall, wide.rotate(180), tall.rotate(180))
    with Embedder(tiny_cpu) as embedder:
        together = embedder.stages(Item(images=images)).visual_embeddings
        alone = np.concatenate([embedder.stages(Item(images=(image,))).visual_embeddings for image in images])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.slow
def test_buffers_of_an_earlier_batch_are_freed_at_once(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        gc.collect()
        gc.disable()
        try:
            for length in range(4):
                embedder.embed(["word " * length + "end"])
            assert sum(type(value) is BoundRollout for value in gc.get_objects()) == 1
        finally:
            gc.enable()


def test_encode_is_like_sentence_transformers(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        one = embedder.encode("a text")
        two = embedder.encode(["a text", "another text"])
    assert one.shape == (embedder.dimension,)
    assert np.abs(two[0] - one).max() <= 1e-5


def test_encode_takes_the_arguments_of_sentence_transformers(tiny_cpu: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a text", "another"]
    honoured = {"batch_size": 2, "convert_to_numpy": True, "normalize_embeddings": True}
    with Embedder(tiny_cpu) as embedder:
        expected = embedder.embed(texts)
        actual = embedder.encode(np.array(texts), show_progress_bar=False, **honoured)
        assert capsys.readouterr().err == ""
        assert (actual == embedder.encode(texts, show_progress_bar=True, **honoured)).all()
        assert "2/2" in capsys.readouterr().err
        for refused in ({"normalize_embeddings": False}, {"convert_to_numpy": False}, {"convert_to_tensor": True}):
            with pytest.raises(PlumeExportError, match=f"{next(iter(refused))} is {next(iter(refused.values()))}"):
                embedder.encode(texts, **refused)  # type: ignore[call-overload]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_an_output_dtype(tiny_cpu: Bundle, dtype: OutputDtype) -> None:
    with Embedder(tiny_cpu) as embedder:
        expected = rows_from_embeddings(embedder.embed(["a text", "b"]), dtype)
        for actual in (
            embedder.embed(["a text", "b"], output_dtype=dtype),
            embedder.encode(["a text", "b"], output_dtype=dtype),
        ):
            assert actual.dtype == expected.dtype
            assert (actual == expected).all()
        assert embedder.encode("a text", output_dtype=dtype).shape == expected.shape[1:]
        assert embedder.embed([], output_dtype=dtype).shape == (0, expected.shape[1])
        if dtype in ("int8", "binary"):
            with pytest.raises(PlumeExportError, match="has no NaN"):
                embedder.embed(["a text"], on_error="skip", output_dtype=dtype)
        with pytest.raises(PlumeExportError, match="output_dtype is 'uint8'"):
            embedder.encode("a text", output_dtype="uint8")  # type: ignore[call-overload]


def test_a_text_never_loads_the_vision_encoder(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        embedder.embed(["a text"])
        assert "vision" not in embedder.stopwatch.seconds
        embedder.embed([PICTURE])
        assert embedder.stopwatch.seconds["vision"] > 0


def test_typed_control_tokens_are_text(tiny_cpu: Bundle) -> None:
    text = "end <|im_end|> now <disc_emb>"
    with Embedder(tiny_cpu) as literal, Embedder(tiny_cpu, allow_control_tokens=True) as published:
        literal_ids, published_ids = literal.prepare(text).input_ids, published.prepare(text).input_ids
        plain_literal, plain_published = literal.prepare("plain").input_ids, published.prepare("plain").input_ids
    anchor = literal.preprocessor.prepare(Item(text="x")).input_ids[literal.prepare("x").anchor_index]
    assert (literal_ids == anchor).sum() == 1
    assert (published_ids == anchor).sum() == 2
    assert (plain_literal == plain_published).all()


@pytest.mark.parametrize("one", ["a text", {"text": "a text"}])
def test_one_item_is_no_list(tiny_cpu: Bundle, one: object) -> None:
    """Its characters or keys would be embedded."""
    with Embedder(tiny_cpu) as embedder, pytest.raises(InputError, match=r"takes a list of items, but got one (str|dict)"):
        embedder.embed(one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"mode": "Disc"}, r"mode is 'Disc'\."), ({"threads": 0}, "threads is 0; expected 1 to")]
)
def test_wrong_arguments(tiny_cpu: Bundle, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlumeExportError, match=message):
        Embedder(tiny_cpu, **arguments)


def test_steps_outside_the_budget(tiny_cpu: Bundle) -> None:
    with pytest.raises(PlumeExportError, match="steps is 9; this bundle's rollout accepts 0 to 8"):
        Embedder(tiny_cpu, steps=9)
    with pytest.raises(OptionError, match="steps is -1; expected 0 or more"):
        Embedder(tiny_cpu, steps=-1)


def test_over_long_prompt_names_count_and_limit(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder, pytest.raises(InputError, match=r"\d{5,}.*\d{5}"):
        embedder.embed(["word " * 40000])


def test_a_batch_of_unlike_prompts_is_prefilled_one_by_one(tiny_cpu: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    bind = OnnxRuntimeSession.bind

    def counting(self: OnnxRuntimeSession, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> OnnxRuntimeBinding:
        if "input_ids" in inputs:
            shapes.append(inputs["input_ids"].shape)
        return bind(self, inputs, outputs)

    monkeypatch.setattr(OnnxRuntimeSession, "bind", counting)
    with Embedder(tiny_cpu) as embedder:
        texts = ["a text", "a text " * 20]
        counts = [embedder.prepare(text).token_count for text in texts]
        together = embedder.embed(texts, batch_size=2)
        assert shapes == [(1, counts[1]), (1, counts[0])]
        alone = embedder.embed(texts, batch_size=1)
    np.testing.assert_allclose(together, alone, atol=1e-6)


class Overflowing(OnnxRuntimeCpu):
    """A backend whose states have left the range of float16."""

    def download(self, buffer: np.ndarray) -> np.ndarray:
        return np.full_like(super().download(buffer), np.nan)


def test_an_embedding_that_is_not_finite_is_an_error(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu, backend=Overflowing(tiny_cpu)) as embedder, pytest.raises(PlumeExportError, match="not finite"):
        embedder.embed(["a text"])


@pytest.mark.slow
def test_bf16_is_refused_on_the_cpu(tiny_bf16: Bundle) -> None:
    with pytest.raises(BundleError, match="no bfloat16 kernels"):
        Embedder(tiny_bf16)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory, tiny_cpu: Bundle) -> Bundle:
    """A bundle in which the embedding of the token of "Z" is not a number."""
    directory = Path(shutil.copytree(tiny_cpu.path, tmp_path_factory.mktemp("poisoned") / "bundle"))
    with Embedder(tiny_cpu) as embedder:
        token = (set(embedder.prepare("Z").input_ids.tolist()) - set(embedder.prepare("a").input_ids.tolist())).pop()
    table = read_header(directory / WEIGHTS)["embed_tokens.weight"]
    assert table.dtype == "float32"
    row = np.full(table.shape[1], np.nan, np.float32)
    with (directory / WEIGHTS).open("r+b") as weights:
        weights.seek(table.offset + token * row.nbytes)
        weights.write(row.data)
    manifest = write_manifest(directory, tiny_cpu.manifest)
    return Bundle(directory, manifest)


ITEMS = ["two dogs", "Z", "a cat", PICTURE, "  ", {"text": "Z", "image": PICTURE}, "three birds"]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_one_embedding_that_is_not_finite_leaves_the_others_of_its_batch(
    tiny_cpu: Bundle, poisoned: Bundle, batch_size: int
) -> None:
    good = [0, 2, 3, 6]
    with Embedder(poisoned) as embedder:
        with pytest.warns(UserWarning, match=r"3 items .*NaN\. item 1: .*not finite.*item 4: .*empty.*item 5:") as warned:
            embeddings = embedder.embed(ITEMS, batch_size=batch_size, on_error="skip")
        after = embedder.embed(["two dogs"])
    assert warned[0].filename == __file__
    assert np.isnan(embeddings).all(1).nonzero()[0].tolist() == [1, 4, 5]
    with Embedder(tiny_cpu) as embedder:
        expected = np.concatenate([embedder.embed([ITEMS[row]]) for row in good])
    np.testing.assert_allclose(embeddings[good], expected, atol=1e-5)
    np.testing.assert_allclose(after, expected[:1], atol=1e-5)


def test_batch_size_is_checked_once_a_call(tiny_cpu: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = list[int | None]()
    with Embedder(tiny_cpu) as embedder:
        check = embedder.checked_batch_size
        monkeypatch.setattr(embedder, "checked_batch_size", lambda size: checked.append(size) or check(size))
        embedder.embed(["a"] * 40, batch_size=2)  # two windows
        embedder.encode(["a"])
        embedder.embed_prepared([embedder.prepare("a")])
    assert checked == [2, None, None]


def test_an_embedding_that_is_not_finite_names_its_item_and_a_fix_that_suits(poisoned: Bundle) -> None:
    with Embedder(poisoned) as embedder:
        with pytest.raises(InputError, match=r"^item 17: The embedding is not finite") as raised:
            embedder.embed([*["a text"] * 17, "Z", "Z"], batch_size=1)
        with pytest.raises(InputError, match="not finite") as prepared:
            embedder.embed_prepared([embedder.prepare("a"), embedder.prepare("Z")])
    assert (raised.value.index, prepared.value.index) == (17, 1)
    assert "precision fp32" not in str(raised.value).partition("fix:")[2]  # it is one


@pytest.mark.parametrize(
    ("precision", "fix"), [("fp16", "precision fp32;"), ("bf16", "precision fp32;"), ("fp32", "omit the input")]
)
def test_the_fix_of_an_embedding_that_is_not_finite(tiny_cpu: Bundle, precision: Precision, fix: str) -> None:
    bundle = Bundle(tiny_cpu.path, msgspec.structs.replace(tiny_cpu.manifest, precision=precision))
    with Embedder(bundle, backend=Overflowing(tiny_cpu)) as embedder, pytest.raises(InputError) as raised:
        embedder.encode("a text")
    assert fix in str(raised.value)


@pytest.mark.parametrize("position", [0, 200])
@pytest.mark.slow
def test_an_error_has_the_index_of_its_item(tiny_cpu: Bundle, position: int) -> None:
    """In the first window, and in one that a thread prepares."""
    items = ["a"] * position + [" ", "b"]
    with Embedder(tiny_cpu) as embedder, pytest.raises(InputError, match=rf"^item {position}: The input is empty") as raised:
        embedder.embed(items)
    assert raised.value.index == position


def test_a_long_list_of_skipped_items_is_cut(tiny_cpu: Bundle) -> None:
    with Embedder(tiny_cpu) as embedder:
        with pytest.warns(UserWarning, match=r"^12 items .*item 9: [^:]*And 2 more\.$"):
            assert np.isnan(embedder.embed([" "] * 12, on_error="skip")).all()
        with pytest.raises(PlumeExportError, match=r"on_error is 'fail'\.(.|\n)*raise, skip"):
            embedder.embed(["a"], on_error="fail")  # type: ignore[arg-type]
