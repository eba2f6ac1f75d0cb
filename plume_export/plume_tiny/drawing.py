"""Draw pictures of scenes. Drawings of one scene differ in place, size, shade and background as far as its caption allows."""

import math
from random import Random

from PIL import Image, ImageDraw, ImageFont

from .scenes import COLOURS, PLACES, Clip, Figure, Page, Pair, Scene, Several, Single, Word

# Everything is drawn larger and scaled down, for smooth edges.
_OVERSAMPLING = 2
PICTURE_SIZES = ((112, 112), (140, 112), (112, 140))  # width, height; multiples of 28, as the model sees them
PAGE_SIZE = (140, 196)
CLIP_SIZE = (448, 224)  # smaller frames would be scaled up, to 128 visual tokens per frame
CLIP_FRAMES = 4
_RADII = {"small": (8.0, 10.0), "large": (16.0, 19.0)}

Point = tuple[float, float]
Colour = tuple[int, int, int]


def draw_picture(scene: Scene, random: Random, size: tuple[int, int] | None = None) -> Image.Image:
    """Draw a still scene in RGB. `size` is (width, height); None: one of PICTURE_SIZES at random."""
    if isinstance(scene, Page):
        return _draw_page(scene, random)
    canvas = _Canvas(size or random.choice(PICTURE_SIZES), random)
    if isinstance(scene, Single):
        row, column = divmod(PLACES.index(scene.place), 3)
        canvas.figure(scene.figure, _cell_centre(canvas, row, column), random.uniform(*_RADII[scene.size]))
    elif isinstance(scene, Several):
        for centre in _scattered(canvas, scene.count):
            canvas.figure(scene.figure, centre, random.uniform(*_RADII[scene.size]))
    elif isinstance(scene, Pair):
        _draw_pair(canvas, scene)
    elif isinstance(scene, Word):
        _draw_word(canvas, scene)
    else:
        raise TypeError(f"a {type(scene).__name__} is not a still scene")
    return canvas.image()


def draw_clip(clip: Clip, random: Random) -> tuple[Image.Image, ...]:
    """Draw the frames of a video."""
    width, height = CLIP_SIZE
    background = _background(random)
    shades: dict[str, Colour] = {}
    start = (width * random.uniform(0.42, 0.58), height * random.uniform(0.42, 0.58))
    radius = random.uniform(26, 34)
    frames = []
    for index in range(CLIP_FRAMES):
        done = index / (CLIP_FRAMES - 1)
        canvas = _Canvas(CLIP_SIZE, random, background, oversampling=1)
        canvas.shades = shades
        figure, centre, scale = clip.figure, start, 1.0
        if clip.motion.startswith("moves"):
            right, down = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}[clip.motion.split()[-1]]
            along = 2 * done - 1
            centre = (start[0] + right * along * 0.32 * width, start[1] + down * along * 0.3 * height)
        elif clip.motion:
            scale = 0.5 * 4**done if clip.motion == "grows" else 2 / 4**done
        elif clip.becomes is not None and index >= CLIP_FRAMES / 2:
            figure = clip.becomes
        canvas.figure(figure, centre, radius * scale)
        frames.append(canvas.image())
    return tuple(frames)


class _Canvas:
    """An oversampled drawing; coordinates are pixels of the final picture."""

    def __init__(
        self,
        size: tuple[int, int],
        random: Random,
        background: Colour | None = None,
        oversampling: int = _OVERSAMPLING,
    ) -> None:
        self.width, self.height = size
        self.scale = oversampling
        self.random = random
        self.shades: dict[str, Colour] = {}
        scaled = (self.width * self.scale, self.height * self.scale)
        self._image = Image.new("RGB", scaled, background or _background(random))
        self.draw = ImageDraw.Draw(self._image)

    def image(self) -> Image.Image:
        return self._image.reduce(self.scale)

    def shade(self, colour: str) -> Colour:
        """Return the shade of a colour in this picture."""
        if colour not in self.shades:
            red, green, blue = (min(255, max(0, value + self.random.randint(-12, 12))) for value in COLOURS[colour])
            self.shades[colour] = (red, green, blue)
        return self.shades[colour]

    def figure(self, figure: Figure, centre: Point, radius: float) -> None:
        """Draw a figure. Move it inwards if the edge would cut it off."""
        fill = self.shade(figure.colour)
        sides = (self.width, self.height)
        inside = (min(max(value, radius + 1), side - radius - 1) for value, side in zip(centre, sides, strict=True))
        x, y, r = (self.scale * value for value in (*inside, radius))
        box = (x - r, y - r, x + r, y + r)
        if figure.shape == "circle":
            self.draw.ellipse(box, fill=fill)
        elif figure.shape == "ring":
            self.draw.ellipse(box, outline=fill, width=max(2, round(r * 0.36)))
        elif figure.shape == "square":
            side = 0.86 * r
            self.draw.rectangle((x - side, y - side, x + side, y + side), fill=fill)
        elif figure.shape == "cross":
            arm = 0.32 * r
            self.draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
            self.draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        else:
            self.draw.polygon([(x + r * dx, y + r * dy) for dx, dy in _OUTLINES[figure.shape]], fill=fill)

    def rectangle(self, box: tuple[float, float, float, float], fill: Colour) -> None:
        self.draw.rectangle([self.scale * value for value in box], fill=fill)

    def text(self, centre: Point, text: str, height: float, fill: Colour) -> None:
        font = ImageFont.load_default(height * self.scale)
        self.draw.text((self.scale * centre[0], self.scale * centre[1]), text, fill=fill, font=font, anchor="mm")


def _star() -> list[Point]:
    radii = (1.1, 0.45)
    return [(radii[i % 2] * math.sin(i * math.pi / 5), -radii[i % 2] * math.cos(i * math.pi / 5)) for i in range(10)]


_OUTLINES: dict[str, list[Point]] = {
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "diamond": [(0, -1.1), (0.7, 0), (0, 1.1), (-0.7, 0)],
    "star": _star(),
}


def _background(random: Random) -> Colour:
    base = random.randint(228, 250)
    red, green, blue = (min(255, base + random.randint(-8, 8)) for _ in range(3))
    return red, green, blue


def _cell_centre(canvas: _Canvas, row: int, column: int) -> Point:
    jitter = canvas.random.uniform
    return (canvas.width * (column + 0.5) / 3 + jitter(-4, 4), canvas.height * (row + 0.5) / 3 + jitter(-4, 4))


def _scattered(canvas: _Canvas, count: int) -> list[Point]:
    """Return centres in different quarters of the picture."""
    quarters = canvas.random.sample([(x, y) for x in (0.27, 0.73) for y in (0.27, 0.73)], count)
    jitter = canvas.random.uniform
    return [(canvas.width * x + jitter(-6, 6), canvas.height * y + jitter(-6, 6)) for x, y in quarters]


def _draw_pair(canvas: _Canvas, scene: Pair) -> None:
    jitter = canvas.random.uniform
    for figure, along in ((scene.first, 0.27), (scene.second, 0.73)):
        across = 0.5 + jitter(-0.12, 0.12)
        x, y = (along, across) if scene.relation == "left of" else (across, along)
        centre = (canvas.width * x + jitter(-5, 5), canvas.height * y + jitter(-5, 5))
        canvas.figure(figure, centre, jitter(11, 16))


def _draw_word(canvas: _Canvas, scene: Word) -> None:
    jitter = canvas.random.uniform
    centre = (canvas.width / 2 + jitter(-5, 5), canvas.height / 2 + jitter(-18, 18))
    canvas.text(centre, scene.word, jitter(30, 34), canvas.shade(scene.colour))


def _draw_page(page: Page, random: Random) -> Image.Image:
    canvas = _Canvas(PAGE_SIZE, random, (250, 250, 250))
    width, _ = PAGE_SIZE
    canvas.text((width / 2 + random.uniform(-4, 4), 18 + random.uniform(-3, 3)), page.title, 22, (20, 20, 20))
    chart_first = random.random() < 0.5
    chart_top, text_top = (40, 122) if chart_first else (116, 40)
    _draw_text_block(canvas, page.columns, text_top, random)
    _draw_chart(canvas, page.chart, canvas.shade(page.colour), (14, chart_top, width - 14, chart_top + 66))
    return canvas.image()


def _draw_text_block(canvas: _Canvas, columns: int, top: float, random: Random) -> None:
    """Draw grey lines that stand for text."""
    gap = 12
    column_width = (canvas.width - 28 - gap * (columns - 1)) / columns
    for column in range(columns):
        left = 14 + column * (column_width + gap)
        for line in range(7):
            y = top + 9.5 * line
            end = left + column_width * (random.uniform(0.5, 0.9) if line == 6 else 1)
            canvas.rectangle((left, y, end, y + 4), (150, 150, 150))


def _draw_chart(canvas: _Canvas, chart: str, fill: Colour, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    random, scale = canvas.random, canvas.scale
    if chart == "bar chart":
        for bar in range(5):
            x = left + (right - left) * bar / 5
            canvas.rectangle((x + 3, bottom - (bottom - top) * random.uniform(0.3, 1), x + 18, bottom), fill)
    elif chart == "line chart":
        points = [(left + (right - left) * i / 5, random.uniform(top + 6, bottom - 6)) for i in range(6)]
        canvas.draw.line([(x * scale, y * scale) for x, y in points], fill=fill, width=4 * scale)
        canvas.rectangle((left, top, left + 2, bottom), (60, 60, 60))
        canvas.rectangle((left, bottom - 2, right, bottom), (60, 60, 60))
    elif chart == "pie chart":
        x, y, r = (left + right) / 2 + random.uniform(-20, 20), (top + bottom) / 2, 30
        circle = [value * scale for value in (x - r, y - r, x + r, y + r)]
        start = random.uniform(0, 360)
        canvas.draw.pieslice(circle, start, start + random.uniform(200, 300), fill=fill)
        canvas.draw.ellipse(circle, outline=(60, 60, 60), width=2 * scale)
    else:
        canvas.rectangle((left, top, right, top + 14), fill)
        for row in range(1, 5):
            canvas.rectangle((left, top + 13 * row + 12, right, top + 13 * row + 13), fill)
        for column in range(4):
            x = left + (right - left) * column / 3
            canvas.rectangle((x - 1, top, x + 1, bottom), fill)
