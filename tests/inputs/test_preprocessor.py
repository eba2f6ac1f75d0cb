"""Whole prompts: media order, the blank image, limits, and appended tokens."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plume_export.errors import InputError
from plume_export.inputs import Item, MediaOptions, NoticeTally, Preprocessor
from plume_export.inputs import preprocessor as preprocessor_module
from plume_export.recipe import AxisRange, ShapeRanges
from tests.golden_model import GOLDEN_MODEL
from tests.inputs.test_video import write_video

TOKENIZER_JSON = (Path(__file__).parents[1] / "golden/checkpoint/tokenizer.json").read_text(encoding="utf-8")
IMAGE = Image.new("RGB", (84, 56), (10, 20, 30))


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL)


def test_blank_image_is_made_once(preprocessor: Preprocessor) -> None:
    first, second = (preprocessor.prepare(Item(text=text)).media for text in ("a", "b"))
    assert first[0] is second[0]
    assert first[0].is_blank
    assert first[0].grid == (1, 4, 4)
    assert first[0].patches.shape == (1, 16, 1176)


def test_a_white_image_of_the_user_is_not_blank(preprocessor: Preprocessor) -> None:
    white = Image.new("RGB", (28, 28), (255, 255, 255))
    (medium,) = preprocessor.prepare(Item(text="a", images=(white,))).media
    assert not medium.is_blank


def test_images_come_before_the_video(preprocessor: Preprocessor) -> None:
    prepared = preprocessor.prepare(Item(text="all", images=(IMAGE, IMAGE), video=(IMAGE,) * 3))
    assert [medium.grid for medium in prepared.media] == [(1, 4, 6), (1, 4, 6), (2, 20, 28)]
    assert prepared.visual_token_count == 6 + 6 + 280
    is_visual = prepared.visual_index >= 0
    assert prepared.visual_index[is_visual].tolist() == list(range(292))
    image_id, video_id = 1993, 1994
    assert prepared.input_ids[is_visual].tolist() == [image_id] * 12 + [video_id] * 280
    assert prepared.input_ids[prepared.anchor_index] == 1996
    assert prepared.position_ids.shape == (3, prepared.token_count)


def test_anchor_is_the_last_even_if_the_text_holds_one() -> None:
    published = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, allow_control_tokens=True)
    prepared = published.prepare(Item(text="an early <disc_emb> here"))
    assert np.flatnonzero(prepared.input_ids == 1996).tolist()[1:] == [prepared.anchor_index]


def test_extended_counts_on_by_length(preprocessor: Preprocessor) -> None:
    prompt = preprocessor.prepare(Item(text="a", images=(IMAGE,)))
    extended = prompt.extended(preprocessor.suffix_ids)
    added = len(preprocessor.suffix_ids)
    assert extended.token_count == prompt.token_count + added
    assert extended.input_ids[-added:].tolist() == preprocessor.suffix_ids.tolist()
    assert (extended.position_ids[:, -added:] == prompt.token_count + np.arange(added)).all()
    assert extended.visual_token_count == prompt.visual_token_count
    assert extended.anchor_index == prompt.anchor_index


def test_default_limit_leaves_room_for_the_rollout(preprocessor: Preprocessor) -> None:
    assert preprocessor.max_prompt_tokens == 32768 - 8 - len(preprocessor.suffix_ids)


def limits_of(prompt_tokens: int, image_tokens: int = 3009) -> ShapeRanges:
    return ShapeRanges(AxisRange(1, 1, 1), AxisRange(1, 1, prompt_tokens), AxisRange(1, 1, image_tokens))


def test_long_prompt() -> None:
    token_count = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL).prepare(Item(text="a")).token_count
    Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, limits=limits_of(token_count)).prepare(Item(text="a"))
    strict = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, limits=limits_of(token_count - 1))
    with pytest.raises(
        InputError, match=f"prompt has {token_count} tokens, of which 4 are visual; the limit is {token_count - 1}"
    ):
        strict.prepare(Item(text="a"))


@pytest.mark.parametrize("item", [Item(images=(IMAGE,) * 50), Item(images=(IMAGE,), video=(IMAGE,) * 4)])
def test_too_many_visual_tokens(item: Item) -> None:
    strict = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, limits=limits_of(200))
    with pytest.raises(InputError, match=r"at least \d+ tokens, of which \d+ are visual; the limit is 200"):
        strict.prepare(item)


def test_a_frame_larger_than_compiled_for() -> None:
    strict = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, limits=limits_of(4096, image_tokens=16))
    with pytest.raises(InputError, match=r"frame of the video has \d+ visual tokens; this bundle allows at most 16"):
        strict.prepare(Item(video=(IMAGE,) * 4))


def lines_of(preprocessor: Preprocessor, item: Item) -> list[str]:
    tally = NoticeTally()
    tally.add(preprocessor.prepare(item).notices)
    return tally.lines()


def test_a_long_text_is_told(preprocessor: Preprocessor) -> None:
    assert lines_of(preprocessor, Item(text="word " * 1000)) == []
    (line,) = lines_of(preprocessor, Item(text="word " * 9000, id="a"))
    assert line.startswith("the input 'a': ")
    assert "prefill time and memory grow with tokens" in line
    assert "--video-frames" not in line


def test_a_long_video_is_told_with_what_fewer_frames_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessor_module, "LONG_PROMPT_TOKENS", 600)
    monkeypatch.setattr(preprocessor_module, "FEWER_FRAMES", 4)
    path = write_video(tmp_path / "clip.mp4", 40)  # of 4 seconds, so 8 frames
    long = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL)
    short = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, media=MediaOptions(video_frames=4))
    (line,) = lines_of(long, Item(video=path))
    token_count = long.prepare(Item(video=path)).token_count
    assert line.startswith(f"{path}: {token_count:,} tokens;")
    assert line.endswith(f"reduces it to about {short.prepare(Item(video=path)).token_count:,} tokens")
    monkeypatch.setattr(preprocessor_module, "LONG_PROMPT_TOKENS", 100)
    assert "--video-frames" not in lines_of(short, Item(video=path))[0]


def test_a_text_that_names_a_file_is_told(preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    IMAGE.save("cat.PNG")
    Path("clip.mp4").touch()
    Path("note.txt").touch()
    Path("folder.png").mkdir()
    for text, key in (("cat.PNG", "image"), (str(tmp_path / "cat.PNG"), "image"), ("clip.mp4", "video")):
        (line,) = lines_of(preprocessor, Item(text=text))
        assert line.startswith(f"{text} names an existing {key} file, but was embedded as text")
        assert f"{{{key!r}: {text!r}}}" in line
    for text in ("note.txt", "gone.png", "folder.png", "a cat", "a\0.png", "x" * 5_000 + ".png", "two\nlines.png"):
        assert lines_of(preprocessor, Item(text=text)) == []
    assert lines_of(preprocessor, Item(text="cat.PNG", images=(IMAGE,))) == []


def test_exif_transpose_reaches_images_and_frames(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    IMAGE.save(tmp_path / "a.png", exif=exif)
    upright = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL, media=MediaOptions(exif_transpose=True))
    stored = Preprocessor(TOKENIZER_JSON, GOLDEN_MODEL)
    for item in (Item(images=(tmp_path / "a.png",)), Item(video=(tmp_path / "a.png",) * 2)):
        (of_stored,), (of_upright,) = (each.prepare(item).media for each in (stored, upright))
        assert of_stored.grid[1:] == of_upright.grid[:0:-1]
        assert of_stored.grid[1] < of_stored.grid[2]
        assert lines_of(upright, item) == []
        assert "EXIF rotation" in lines_of(stored, item)[0]


def test_imports_neither_torch_nor_transformers_nor_onnx() -> None:
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'av'}"
    code = f"import sys, plume_export.inputs; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
