"""Draw the sample inputs that ship with plume-export. Run again to make the same files: python calibration/draw_samples.py"""

import json
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent


def draw_shapes() -> Image.Image:
    """A red circle and two blue squares on a light ground."""
    image = Image.new("RGB", (168, 112), (244, 240, 230))
    draw = ImageDraw.Draw(image)
    draw.ellipse((14, 26, 74, 86), fill=(208, 44, 40))
    draw.rectangle((92, 18, 122, 48), fill=(40, 84, 190))
    draw.rectangle((120, 62, 154, 96), fill=(40, 84, 190))
    return image


def draw_tower() -> Image.Image:
    """A tall green tower under a gradient sky."""
    image = Image.new("RGB", (84, 224))
    draw = ImageDraw.Draw(image)
    for row in range(224):
        draw.line((0, row, 83, row), fill=(120 + row // 4, 160 + row // 4, 230))
    draw.polygon([(42, 12), (22, 212), (62, 212)], fill=(36, 120, 62))
    return image


def draw_page() -> Image.Image:
    """A document page: a heading, a paragraph and a bar chart."""
    image = Image.new("RGB", (280, 364), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.text((24, 20), "Quarterly revenue by region", fill=(10, 10, 10))
    for row in range(6):
        draw.line((24, 52 + 14 * row, 250 - 23 * (row % 3), 52 + 14 * row), fill=(120, 120, 120), width=4)
    for bar, height in enumerate((60, 110, 84, 140)):
        draw.rectangle((40 + 54 * bar, 330 - height, 74 + 54 * bar, 330), fill=(52, 108, 176))
    return image


def draw_frame(index: int) -> Image.Image:
    """One frame of a ball that moves to the right."""
    image = Image.new("RGB", (160, 120), (30, 34, 46))
    ImageDraw.Draw(image).ellipse((10 + 26 * index, 44, 42 + 26 * index, 76), fill=(240, 200, 60))
    return image


def main() -> None:
    """Write the pictures and inputs.jsonl beside this file. The first lines are the smallest: bundles carry them."""
    pictures = {"shapes": draw_shapes(), "tower": draw_tower(), "page": draw_page()}
    frames = {f"ball_{index}": draw_frame(index) for index in range(4)}
    for name, picture in (pictures | frames).items():
        picture.save(HERE / "images" / f"{name}.png", optimize=True)
    inputs: list[dict[str, object]] = [
        {"id": "caption", "text": "two dogs running on the beach at sunset"},
        {"id": "shapes", "text": "Represent the given image.", "image": "images/shapes.png"},
        {"id": "tower", "image": "images/tower.png"},
        {"id": "question", "text": "Which document page shows the quarterly revenue by region?"},
        {"id": "page", "text": "Find a document page like this one.", "image": "images/page.png"},
        {"id": "pair", "text": "What changed between the two pictures?", "image": ["images/shapes.png", "images/tower.png"]},
        {"id": "ball", "text": "What does the ball do?", "video": [f"images/{name}.png" for name in frames]},
    ]
    (HERE / "inputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in inputs), encoding="utf-8")


if __name__ == "__main__":
    main()
