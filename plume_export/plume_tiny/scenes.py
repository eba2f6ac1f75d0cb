"""The scenes that plume-tiny knows, their captions, and the combinations that are held out of training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias, TypeVar

COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (236, 208, 36),
    "green": (44, 150, 62),
    "cyan": (60, 190, 208),
    "blue": (40, 78, 200),
    "purple": (136, 60, 170),
    "black": (28, 28, 32),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond")
SIZES = ("small", "large")
# Where a single figure stands: row by row, in thirds of the picture.
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("on the left", "in the middle", "on the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
COUNTS = {2: "two", 3: "three", 4: "four"}
RELATIONS = {"left of": "right of", "above": "below"}
WORDS = (
    *("CAT", "DOG", "SUN", "TEA", "BOX", "KEY", "MAP", "FISH", "BIRD", "TREE", "SHOE", "MILK"),
    *("LAMP", "ROAD", "WIND", "GOLD", "HAND", "BOOK", "STOP", "EXIT", "OPEN", "SALE", "ZOO", "JAZZ"),
)
TITLES = ("BUDGET", "HARVEST", "TRAVEL", "ENERGY", "WEATHER", "MUSIC", "HEALTH", "SPORT", "LAW", "SPACE", "CITY", "OCEAN")
CHARTS = ("bar chart", "line chart", "pie chart", "table")
MOTIONS = ("moves to the right", "moves to the left", "moves up", "moves down", "grows", "shrinks")

_COLOUR_NAMES = tuple(COLOURS)
Split = Literal["train", "held-out"]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Figure:
    """A coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def plural(self) -> str:
        return f"{self}es" if self.shape.endswith("s") else f"{self}s"

    @property
    def is_held_out(self) -> bool:
        """Whether the figure is held out of training: one colour of every shape is."""
        return (_COLOUR_NAMES.index(self.colour) + 3 * SHAPES.index(self.shape)) % len(COLOURS) == 0


@dataclass(frozen=True)
class Single:
    """One figure of a size at a place."""

    figure: Figure
    size: str
    place: str

    @property
    def is_held_out(self) -> bool:
        return self.figure.is_held_out

    def caption(self, random: Random) -> str:
        figure = f"{self.size} {self.figure}"
        return random.choice((f"a {figure} {self.place}", f"a {figure} {self.place}", f"{self.place} there is a {figure}"))

    def vague_caption(self, random: Random) -> str:
        """Return a caption that leaves something out, as people do."""
        return random.choice((str(self.figure), f"{self.size} {self.figure}", f"{self.figure} {self.place}"))


@dataclass(frozen=True)
class Several:
    """Two to four equal figures."""

    figure: Figure
    size: str
    count: int

    @property
    def is_held_out(self) -> bool:
        return self.figure.is_held_out

    def caption(self, random: Random) -> str:
        words = f"{COUNTS[self.count]} {self.size} {self.figure.plural}"
        return random.choice((words, words, f"there are {words}"))

    def vague_caption(self, random: Random) -> str:
        """Return a caption that leaves something out, as people do."""
        return random.choice((self.figure.plural, f"{COUNTS[self.count]} {self.figure.plural}"))


@dataclass(frozen=True)
class Pair:
    """Two figures side by side or one above the other; `relation` is the position of the first relative to the second."""

    first: Figure
    second: Figure
    relation: str

    @property
    def is_held_out(self) -> bool:
        return self.first.is_held_out or self.second.is_held_out

    def caption(self, random: Random) -> str:
        first, second = (_with_article(str(figure)) for figure in (self.first, self.second))
        return random.choice((f"{first} {self.relation} {second}", f"{second} {RELATIONS[self.relation]} {first}"))


@dataclass(frozen=True)
class Word:
    """A short word, written in a colour."""

    word: str
    colour: str

    @property
    def is_held_out(self) -> bool:
        return (WORDS.index(self.word) + _COLOUR_NAMES.index(self.colour)) % len(COLOURS) == 0

    def caption(self, random: Random) -> str:
        return random.choice((f"the word {self.word} in {self.colour}", f"{self.colour} letters that say {self.word}"))


@dataclass(frozen=True)
class Page:
    """A document page: a title, text in one or two columns and a chart."""

    title: str
    chart: str
    colour: str
    columns: int

    @property
    def is_held_out(self) -> bool:
        number = TITLES.index(self.title) + CHARTS.index(self.chart) + _COLOUR_NAMES.index(self.colour) + self.columns
        return number % 5 == 0

    def caption(self, random: Random) -> str:
        columns, chart = ("one column", "two columns")[self.columns - 1], _with_article(f"{self.colour} {self.chart}")
        return random.choice(
            (
                f"a page about {self.title} with {chart} and {columns} of text",
                f"a document titled {self.title}, {columns}, with {chart}",
            )
        )


@dataclass(frozen=True)
class Clip:
    """A short video of one figure that moves, changes its size, or turns into another figure (`becomes`)."""

    figure: Figure
    motion: str = ""
    becomes: Figure | None = None

    @property
    def is_held_out(self) -> bool:
        return self.figure.is_held_out or (self.becomes is not None and self.becomes.is_held_out)

    def caption(self, random: Random) -> str:
        name = _with_article(str(self.figure))
        if self.becomes is None:
            return f"{name} {self.motion}"
        if self.becomes.shape == self.figure.shape:
            return f"{name} turns {self.becomes.colour}"
        return f"{name} becomes a {self.becomes.shape}"


Scene: TypeAlias = Single | Several | Pair | Word | Page | Clip


@dataclass(frozen=True)
class Edit:
    """A change of one property of a picture: the picture before the change, and the words that describe the change."""

    source: Single | Several
    words: str


def sample_picture(random: Random, split: Split) -> Scene:
    """Return a still scene of any kind except a page."""
    makers = (_any_single, _any_single, _any_single, _any_several, _any_several, _any_pair, _any_pair, _any_word)
    return _of_split(random, split, makers)


def sample_plain_picture(random: Random, split: Split) -> "Single | Several":
    """Return a scene that `sample_edit` can change."""
    scene = _of_split(random, split, (_any_single, _any_single, _any_several))
    assert isinstance(scene, Single | Several)
    return scene


def sample_page(random: Random, split: Split) -> Scene:
    return _of_split(random, split, (_any_page,))


def sample_clip(random: Random, split: Split) -> Scene:
    return _of_split(random, split, (_any_clip,))


def sample_edit(result: Single | Several, random: Random) -> Edit:
    """Return a change of one property that leads to `result`."""
    figure = result.figure
    changed = random.choice(("colour", "shape", "size", "arrangement"))
    if changed == "colour":
        source = replace(result, figure=replace(figure, colour=_another(random, _COLOUR_NAMES, figure.colour)))
        return Edit(source, f"the same but {figure.colour}")
    if changed == "shape":
        source = replace(result, figure=replace(figure, shape=_another(random, SHAPES, figure.shape)))
        return Edit(source, f"the same but a {figure.shape}")
    if changed == "size":
        return Edit(replace(result, size=_another(random, SIZES, result.size)), f"the same but {result.size}")
    if isinstance(result, Single):
        return Edit(replace(result, place=_another(random, PLACES, result.place)), f"the same but {result.place}")
    source = replace(result, count=_another(random, tuple(COUNTS), result.count))
    return Edit(source, f"the same but {COUNTS[result.count]} of them")


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _of_split(random: Random, split: Split, makers: Sequence[Callable[[Random], Scene]]) -> Scene:
    while True:
        scene: Scene = random.choice(makers)(random)
        if scene.is_held_out == (split == "held-out"):
            return scene


def _any_figure(random: Random) -> Figure:
    return Figure(random.choice(_COLOUR_NAMES), random.choice(SHAPES))


def _any_single(random: Random) -> Single:
    return Single(_any_figure(random), random.choice(SIZES), random.choice(PLACES))


def _any_several(random: Random) -> Several:
    return Several(_any_figure(random), random.choice(SIZES), random.choice(tuple(COUNTS)))


def _any_pair(random: Random) -> Pair:
    first, second = _any_figure(random), _any_figure(random)
    while second == first:
        second = _any_figure(random)
    return Pair(first, second, random.choice(tuple(RELATIONS)))


def _any_word(random: Random) -> Word:
    return Word(random.choice(WORDS), random.choice(_COLOUR_NAMES))


def _any_page(random: Random) -> Page:
    return Page(random.choice(TITLES), random.choice(CHARTS), random.choice(_COLOUR_NAMES), random.choice((1, 2)))


def _any_clip(random: Random) -> Clip:
    figure = _any_figure(random)
    kind = random.choice(("motion", "motion", "colour", "shape"))
    if kind == "motion":
        return Clip(figure, motion=random.choice(MOTIONS))
    if kind == "colour":
        return Clip(figure, becomes=replace(figure, colour=_another(random, _COLOUR_NAMES, figure.colour)))
    return Clip(figure, becomes=replace(figure, shape=_another(random, SHAPES, figure.shape)))


def _another(random: Random, values: Sequence[_Value], value: _Value) -> _Value:
    return random.choice([other for other in values if other != value])
