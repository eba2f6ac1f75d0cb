"""A recipe says what a bundle is compiled for: backend, precision, shape ranges, and the device and software it is meant for.

Recipes are TOML files, one per target: top-level engines/ in a checkout, package data in a wheel. A user's own file works like
one that ships. Unknown keys are errors.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from .errors import OptionError, PlumeExportError
from .spec import ModelSpec, Precision

RecipeBackend = Literal["onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx"]
Count = Annotated[int, msgspec.Meta(ge=1)]
_SUFFIX = ".toml"
_TOKEN_PIXELS = 28 * 28  # one visual token
# The smallest image, of 56 x 56 pixels: also the blank one before a text. Source: qwen-vl-utils.
MIN_IMAGE_TOKENS = 4
# The largest frame of a video. Source: qwen-vl-utils.
_FRAME_TOKENS = 768


class AxisRange(NamedTuple):
    """The sizes of one dynamic axis, as in a TensorRT optimization profile: engines are tuned for `opt`."""

    min: int
    opt: int
    max: int


class ShapeRanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The range of each dynamic axis. Engines refuse sizes outside it.

    `prompt_tokens` counts visual tokens too. `image_tokens` are the visual tokens of one image or one frame. The rows of the
    forced suffix are the model's: none on a plain step, all on the last.
    """

    batch: AxisRange
    prompt_tokens: AxisRange
    image_tokens: AxisRange

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} = {list(getattr(self, name))}; expected sizes >= 1")

    @property
    def frames(self) -> AxisRange:
        """Frames that are encoded at a time: of a video, as many as take no more memory than the largest image."""
        return AxisRange(1, 1, max(1, self.image_tokens.max // _FRAME_TOKENS))


class BuilderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of TensorRT's builder. `workspace_mb` bounds the scratch memory of one layer."""

    workspace_mb: Count = 4096
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The device that a recipe is for. `memory_gb` is what a program can see; an integrated GPU shares it with the CPU."""

    name: str
    memory_gb: float
    compute_capability: str
    is_integrated: bool = False


class Software(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The versions that a recipe is for, as text for a person."""

    python: str
    cuda: str | None = None
    tensorrt: str | None = None
    jetpack: str | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One target. `weights` "baked" puts them into the engines; "shared" binds all engines to one copy on the device.

    A CPU's may leave out `shapes`, or `max_pixels` too: shapes are as large as memory allows, images as the bundle has them.
    ONNX Runtime takes every shape up to the largest alike, so of its ranges the last number alone counts.
    """

    description: str
    backend: RecipeBackend
    precision: Precision
    weights: Literal["baked", "shared"] = "baked"
    max_pixels: Annotated[int, msgspec.Meta(ge=MIN_IMAGE_TOKENS * _TOKEN_PIXELS)] | None = None
    shapes: ShapeRanges | None = None
    builder: BuilderSettings | None = None
    device: Device | None = None
    software: Software

    @property
    def limits(self) -> ShapeRanges:
        """The shapes of a target that cannot do without."""
        assert self.shapes is not None
        return self.shapes


def recipes_directory() -> Path:
    """Return where the recipes lie that ship (top-level engines/ in a checkout, package data in a wheel)."""
    package = Path(__file__).parent
    installed = package / "data" / "engines"
    return installed if installed.is_dir() else package.parent / "engines"


def recipe_names() -> list[str]:
    """Return the targets that ship, sorted."""
    return sorted(file.stem for file in recipes_directory().glob(f"*{_SUFFIX}"))


def read_recipe(target: str) -> Recipe:
    """Return the recipe of a target that ships, or of a TOML file.

    Raises PlumeExportError for an unknown target, a file that is damaged, an unknown key, and a range that is out of order.
    """
    file = Path(target) if target.endswith(_SUFFIX) else recipes_directory() / f"{target}{_SUFFIX}"
    if not target.endswith(_SUFFIX) and target not in recipe_names():
        raise OptionError(
            f"There is no target {target!r}.", fix=f"--target {', '.join(recipe_names())}, or the path of a .toml recipe"
        )
    try:
        recipe = msgspec.toml.decode(file.read_bytes(), type=Recipe)
    except OSError as error:
        raise PlumeExportError(f"The recipe {file} cannot be read: {error.strerror}.", fix="check the path") from None
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors, and so is a text that is not UTF-8
        raise PlumeExportError(
            f"The recipe {file} is wrong: {error}.", fix=f"see {recipes_directory() / 'README.md'} for the keys of a recipe"
        ) from None
    _check_meant_for_backend(recipe, file)
    if recipe.shapes is not None and recipe.max_pixels is not None:
        _check_ranges(recipe.shapes, recipe.max_pixels, file)
    return recipe


def check_recipe_fits_model(recipe: Recipe, model: ModelSpec, suffix_tokens: int, target: str) -> None:
    """Raise PlumeExportError if the model cannot serve the recipe's largest prompt with rollout and suffix behind it."""
    if recipe.shapes is None:
        return
    room = model.decoder.max_positions - model.rollout.latent_steps - suffix_tokens
    most = recipe.shapes.prompt_tokens.max
    if most > room:
        raise PlumeExportError(
            f"The recipe {target} asks for prompts of up to {most} tokens; this model serves {room} with its "
            f"{model.rollout.latent_steps} latent steps and {suffix_tokens} suffix tokens.",
            fix=f"lower the max of prompt_tokens to {room} in a recipe of your own",
        )


def model_scaled_to(recipe: Recipe, model: ModelSpec, target: str) -> ModelSpec:
    """Return the model with images scaled down to what a recipe serves.

    Raises PlumeExportError if the bundle's smallest image is larger.
    """
    if recipe.max_pixels is None:
        return model
    preprocess = model.preprocess
    if preprocess.min_pixels > recipe.max_pixels:
        raise PlumeExportError(
            f"The bundle scales images up to {preprocess.min_pixels} pixels at least; the recipe {target} takes "
            f"{recipe.max_pixels} at most.",
            fix="export with a smaller --min-pixels, or raise max_pixels in a recipe of your own",
        )
    scaled = msgspec.structs.replace(preprocess, max_pixels=min(preprocess.max_pixels, recipe.max_pixels))
    return msgspec.structs.replace(model, preprocess=scaled)


def _check_meant_for_backend(recipe: Recipe, file: Path) -> None:
    """Raise for a key that the backend would ignore, and for one that it cannot do without."""
    is_onnxruntime = recipe.backend in ("onnxruntime-cpu", "onnxruntime-cuda")
    ignored = {
        "[builder]": (recipe.builder is not None, "settings of TensorRT's builder"),
        'weights = "shared"': (recipe.weights == "shared", "weights of engines; ONNX Runtime's graphs share one file anyway"),
        "[device]": (recipe.device is not None, "a device whose memory engines are planned for"),
    }
    for key, (is_given, meaning) in ignored.items():
        if is_onnxruntime and is_given:
            raise PlumeExportError(
                f"The recipe {file} has {key}, which {recipe.backend} would ignore: {meaning}.", fix=f"leave {key} out"
            )
    for key in ("max_pixels", "shapes"):
        if getattr(recipe, key) is None and (recipe.backend != "onnxruntime-cpu" or recipe.shapes is not None):
            raise PlumeExportError(
                f"The recipe {file} has no {key}; {recipe.backend} needs it{' with shapes' if key == 'max_pixels' else ''}.",
                fix=f"see {recipes_directory() / 'README.md'} for the keys of a recipe",
            )


def _check_ranges(shapes: ShapeRanges, max_pixels: int, file: Path) -> None:
    for name in ShapeRanges.__struct_fields__:
        given: AxisRange = getattr(shapes, name)
        if not given.min <= given.opt <= given.max:
            raise PlumeExportError(
                f"The recipe {file} has {name} = {list(given)}; expected [min, opt, max] with min <= opt <= max.",
                fix="put the three numbers in order",
            )
    _check_min(shapes, file)
    needed, allowed = max_pixels // _TOKEN_PIXELS, shapes.image_tokens.max
    if needed > allowed:
        raise PlumeExportError(
            f"The recipe {file} lets images have {max_pixels} pixels, which are {needed} tokens; its image_tokens "
            f"end at {allowed}.",
            fix=f"max_pixels = {allowed * _TOKEN_PIXELS}, or image_tokens up to {needed}",
        )
    if allowed >= shapes.prompt_tokens.max:
        raise PlumeExportError(
            f"The recipe {file} lets one image have {allowed} tokens, and a prompt {shapes.prompt_tokens.max}; "
            "a prompt needs some 90 tokens more than its image.",
            fix="raise the max of prompt_tokens, or lower that of image_tokens",
        )


def _check_min(shapes: ShapeRanges, file: Path) -> None:
    """A last batch may hold one prompt, and every text comes with the blank image."""
    for name, most in (("batch", 1), ("image_tokens", MIN_IMAGE_TOKENS)):
        given: AxisRange = getattr(shapes, name)
        if given.min > most:
            raise PlumeExportError(
                f"The recipe {file} has {name} from {given.min} on; expected {most} at most.", fix=f"{name} = [{most}, ...]"
            )
