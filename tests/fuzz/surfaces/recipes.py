"""Recipes of targets."""

from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.recipe import check_recipe_fits_model, model_scaled_to, read_recipe, recipes_directory
from tests.golden_model import GOLDEN_MODEL

from ..mutation import INTEGERS, mutated
from ..surface import Files, Surface

_CASE = "case.toml"
_VALUES = (
    *(
        '""',
        '"a"',
        "true",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "[]",
        "[1]",
        "[1, 2, 3]",
        "[3, 2, 1]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "0x10",
    ),
    *("1_000", "'''\n'''", '"\\ud800"', "[" * 3000 + "]" * 3000, "9" * 5000, "a.b.c", "[[a]]", *map(str, INTEGERS)),
)


def _cases(_: Path) -> st.SearchStrategy[Files]:
    seeds = [file.read_bytes() for file in sorted(recipes_directory().glob("*.toml"))]
    return st.one_of(_edited_lines(seeds), _edited_lines(seeds), mutated(seeds, [b"shapes", b"= ["])).map(
        lambda content: {_CASE: content}
    )


@st.composite
def _edited_lines(draw: DrawFn, seeds: list[bytes]) -> bytes:
    lines = draw(st.sampled_from(seeds)).decode().splitlines()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.integers(0, 5))
        key = lines[at].split("=")[0]
        if kind == 0:
            lines.insert(at, lines[at])
        elif kind == 1:
            lines[at] = ""
        elif kind == 2:
            lines.insert(
                at, draw(st.sampled_from(("x = 1", "[x]", "[shapes]", "[device]\nname = 'a'", "#" + "x" * 9999, "\0")))
            )
        else:
            lines[at] = f"{key}= {draw(st.sampled_from(_VALUES))}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _read(directory: Path) -> None:
    recipe = read_recipe(str(directory / _CASE))
    if recipe.shapes is not None:
        for least, best, most in (recipe.shapes.batch, recipe.shapes.prompt_tokens, recipe.shapes.image_tokens):
            assert 1 <= least <= best <= most
    model = model_scaled_to(recipe, GOLDEN_MODEL, "case")
    assert model.preprocess.min_pixels <= model.preprocess.max_pixels
    assert recipe.max_pixels is None or model.preprocess.max_pixels <= recipe.max_pixels
    check_recipe_fits_model(recipe, GOLDEN_MODEL, 4, "case")


SURFACE = Surface("recipes", 10, lambda _: None, _cases, _read)
