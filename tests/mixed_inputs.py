"""Twenty-one inputs of every kind, for parity: texts, photographs, extreme aspect ratios, several images, video."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from plume_export.inputs import Item

LONG_TEXT = " ".join(f"Sentence {number} speaks of rivers and the {number % 7} towns between them." for number in range(40))


def mixed_items() -> list[Item]:
    """Items with ids. Photographs are scikit-learn's china.jpg and flower.jpg, scaled to keep the tests quick."""
    china, flower = (Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))
    small_china, small_flower = china.resize((256, 170)), flower.resize((192, 128))
    tall, wide = china.crop((100, 0, 160, 420)), flower.crop((0, 200, 620, 248))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    frames = tuple(small_flower.crop((8 * step, 0, 128 + 8 * step, 100)) for step in range(4))
    odd_frames = tuple(small_china.rotate(10 * step) for step in range(3))
    texts = ["a", "Two dogs on a beach.", "  surrounded by space \n", "café, naïve, 東京, 🙂", "1234567890", LONG_TEXT]
    return [
        *(Item(id=f"text-{index}", text=text) for index, text in enumerate(texts)),
        Item(id="china", images=(small_china,)),
        Item(id="flower", images=(small_flower,), text="Represent the given image."),
        Item(id="china-question", images=(small_china,), text="Which building is this?"),
        Item(id="large", images=(china,), text="A photograph at its own size"),
        Item(id="tall", images=(tall,), text="tall"),
        Item(id="wide", images=(wide,), text="wide"),
        Item(id="noise", images=(noise,), text="noise"),
        Item(id="gray", images=(small_china.convert("L"),), text="grayscale"),
        Item(id="palette", images=(small_flower.convert("P"),)),
        Item(id="tiny", images=(flower.resize((9, 13)),), text="a few pixels"),
        Item(id="pair", images=(small_china, small_flower), text="What changed between the two pictures?"),
        Item(id="triple", images=(tall, wide, noise), text="three"),
        Item(id="video", video=frames, text="What moves?"),
        Item(id="odd-video", video=odd_frames),
        Item(id="long-with-image", images=(small_flower,), text=LONG_TEXT),
    ]
