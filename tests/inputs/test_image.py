"""Images against transformers' image processor behind qwen-vl-utils' resizing, and everything that can be wrong with a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from plume_export.errors import InputError
from plume_export.inputs import image as image_module
from plume_export.inputs import load_image, patches_from_image, smart_resize
from tests.golden_model import GOLDEN_MODEL

VISION, LIMITS = GOLDEN_MODEL.vision, GOLDEN_MODEL.preprocess


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(height + width).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(values)


def palette_with_transparency() -> Image.Image:
    image = noise(60, 90).quantize(16)
    image.info["transparency"] = 3
    return image


# The image, and (height, width) after qwen-vl-utils' resizing.
IMAGES: dict[str, tuple[Callable[[], Image.Image], tuple[int, int]]] = {
    "china": (lambda: Image.fromarray(load_sample_image("china.jpg")), (420, 644)),
    "flower": (lambda: Image.fromarray(load_sample_image("flower.jpg")), (420, 644)),
    "grayscale": (lambda: noise(100, 130).convert("L"), (112, 140)),
    "rgba": (lambda: noise(100, 130, 4), (112, 140)),
    "la": (lambda: noise(100, 130, 4).convert("LA"), (112, 140)),
    "palette": (palette_with_transparency, (56, 84)),
    "bilevel": (lambda: noise(60, 90).convert("1"), (56, 84)),
    "cmyk": (lambda: noise(60, 90).convert("CMYK"), (56, 84)),
    "1x1": (lambda: noise(1, 1), (56, 56)),
    "1x150": (lambda: noise(1, 150), (28, 140)),
    "tall": (lambda: noise(1190, 60), (1176, 56)),
    "wide": (lambda: noise(41, 1999), (28, 1988)),
    "over max_pixels": (lambda: noise(1500, 2000), (1512, 1988)),
}


def published_patches(image: Image.Image, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int, int]]:
    if image.mode == "RGBA":
        rgb = Image.new("RGB", image.size, (255, 255, 255))
        rgb.paste(image, mask=image.split()[3])
    else:
        rgb = image.convert("RGB")
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": LIMITS.min_pixels, "longest_edge": LIMITS.max_pixels})
    features = processor(rgb.resize((size[1], size[0])), return_tensors="np")
    return features["pixel_values"], tuple(features["image_grid_thw"][0].tolist())


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.slow
def test_equals_transformers(name: str) -> None:
    make, size = IMAGES[name]
    image = make()
    patches, grid = patches_from_image(load_image(image), VISION, LIMITS)
    expected, expected_grid = published_patches(image, size)
    assert grid == expected_grid
    assert patches.shape == (1, *expected.shape)
    assert patches.normalised().dtype == np.float32
    np.testing.assert_array_equal(patches.normalised()[0], expected)


def test_path_array_and_image_agree(tmp_path: Path) -> None:
    image = noise(30, 50)
    image.save(tmp_path / "image.png")
    sources = (image, np.asarray(image), tmp_path / "image.png", str(tmp_path / "image.png"))
    assert len({load_image(source).tobytes() for source in sources}) == 1


def test_pixel_limits_of_the_model_hold() -> None:
    limits = type(LIMITS)(min_pixels=784, max_pixels=100 * 784)
    _, grid = patches_from_image(noise(1000, 1000), VISION, limits)
    assert grid == (1, 20, 20)


@pytest.mark.parametrize(
    ("size", "expected"), [((28, 28), (56, 56)), ((14, 42), (56, 112)), ((1, 1), (56, 56)), ((4000, 4000), (3584, 3584))]
)
def test_smart_resize(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size, 28, min_pixels=4 * 784, max_pixels=16384 * 784) == expected


class TestErrors:
    def test_missing_file(self) -> None:
        with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
            load_image("nowhere.png")

    @pytest.mark.parametrize("address", ["https://example.com/a.png", "data:image/png;base64,AAAA"])
    def test_address(self, address: str) -> None:
        with pytest.raises(InputError, match="URLs are not fetched"):
            load_image(address)

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="it is a directory"):
            load_image(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"just text", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
    def test_not_an_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "note.png").write_bytes(content)
        with pytest.raises(InputError, match=r"note\.png cannot be read as an image"):
            load_image(tmp_path / "note.png")

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff"])
    def test_truncated(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"image.{suffix}"
        noise(80, 80).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"image\.{suffix} cannot be"):
            load_image(path)

    def test_null_byte_in_path(self) -> None:
        with pytest.raises(InputError, match="null"):
            load_image("a\0.png")

    def test_too_many_pixels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        noise(20, 30).save(tmp_path / "large.png")
        monkeypatch.setattr(image_module, "MAX_SOURCE_PIXELS", 599)
        with pytest.raises(InputError, match=r"large\.png has 30x20 = 600 pixels; the limit is 599"):
            load_image(tmp_path / "large.png")

    def test_pillow_refuses_a_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        noise(20, 30).save(tmp_path / "bomb.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(InputError, match=r"bomb\.png is too large"):
            load_image(tmp_path / "bomb.png")

    def test_aspect_ratio(self) -> None:
        with pytest.raises(InputError, match=r"201x1 pixels, an aspect ratio of 201; the limit is 200"):
            load_image(noise(1, 201))
        assert load_image(noise(200, 1)).size == (1, 200)

    def test_zero_size(self) -> None:
        for empty in (Image.new("RGB", (0, 5)), np.zeros((5, 0, 3), np.uint8)):
            with pytest.raises(InputError, match="expected at least 1x1"):
                load_image(empty)


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "page.png", "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it was run"))
    with pytest.raises(InputError, match="is a PostScript file"):
        load_image(tmp_path / "page.png")


def test_a_pdf_is_to_be_rendered(tmp_path: Path) -> None:
    (tmp_path / "page.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(InputError, match=r"page\.pdf cannot be read as an image(.|\n)*render its pages"):
        load_image(tmp_path / "page.pdf")


def test_a_video_is_none_either(tmp_path: Path) -> None:
    (tmp_path / "clip.MP4").write_bytes(b"\0\0\0\x1cftypisom")
    with pytest.raises(InputError, match=r"clip\.MP4 cannot be read as an image(.|\n)*\{\"video\": "):
        load_image(tmp_path / "clip.MP4")
