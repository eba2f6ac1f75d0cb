"""The inputs that are made up: as large as they say, and the same every time."""

from pathlib import Path

import numpy as np
from PIL import Image

from plume_export.bench.inputs import TEXT_TOKENS, Sizer, latency_inputs, text_of_tokens, write_picture
from plume_export.bundle import Bundle


def test_texts_have_their_tokens(tiny_cpu: Bundle) -> None:
    sizer = Sizer(tiny_cpu)
    for tokens in (1, 2, 31, 64, 500):
        assert sizer.text_tokens(text_of_tokens(tokens, sizer.text_tokens)) == tokens


def test_default_inputs(tiny_cpu: Bundle, tmp_path: Path) -> None:
    sizer = Sizer(tiny_cpu)
    text, picture, pictures = latency_inputs([sizer], None, tmp_path).sizes
    assert text.prompt_tokens == sizer.shortest_prompt - 1 + TEXT_TOKENS
    assert (text.visual_tokens, text.vision) == (4, [])
    assert (picture.visual_tokens, picture.vision) == (256, [(1, 1024)])
    assert (pictures.visual_tokens, pictures.vision) == (768, [(1, 1024)] * 3)


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first, again = (np.asarray(Image.open(tmp_path / write_picture(tmp_path, 64, 1))) for _ in range(2))
    other = np.asarray(Image.open(tmp_path / write_picture(tmp_path, 64, 2)))
    assert (first == again).all()
    assert (first != other).mean() > 0.5
