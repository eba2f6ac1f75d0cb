"""A recipe describes a compilation target: backend, precision, shape ranges, and the intended device and software.

Recipes are TOML files, one per target. They are in engines/ in a checkout and in the package data of a wheel. A user's own
recipe works the same way. Unknown keys are errors.
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
# The smallest image, of 56 x 56 pixels, which is also the blank image before a text. Source: qwen-vl-utils.
MIN_IMAGE_TOKENS = 4
# The largest video frame. Source: qwen-vl-utils.
_FRAME_TOKENS = 768


class AxisRange(NamedTuple):
    """The sizes of one dynamic axis, as in a TensorRT optimization profile: engines are tuned for `opt`."""

    min: int
    opt: int
    max: int


class ShapeRanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The range of each dynamic axis. Engines reject sizes outside it.

    `prompt_tokens` includes visual tokens. `image_tokens` are the visual tokens of one image or one frame. The suffix needs no
    range: only the last latent step processes it, always as a whole.
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
        """Number of video frames encoded at a time, chosen so that they need no more memory than the largest image."""
        return AxisRange(1, 1, max(1, self.image_tokens.max // _FRAME_TOKENS))


class BuilderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of TensorRT's builder. `workspace_mb` limits the scratch memory of one layer."""

    workspace_mb: Count = 4096
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The device that a recipe is for.

    `memory_gb` is the memory visible to a program; an integrated GPU shares it with the CPU.
    """

    name: str
    memory_gb: float
    compute_capability: str
    is_integrated: bool = False


class Software(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The software versions that a recipe is for, as free text."""

    python: str
    cuda: str | None = None
    tensorrt: str | None = None
    jetpack: str | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One target. `weights` "baked" embeds the weights in each engine; "shared" lets all engines use one copy on the device.

    A recipe for a CPU may omit `shapes` and `max_pixels`. The shapes are then limited by memory only, and the image size by the
    bundle. ONNX Runtime is not tuned for particular shapes, so only the max of each range is used.
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
        """The shapes of a target that requires them."""
        assert self.shapes is not None
        return self.shapes


class Target(NamedTuple):
    """A recipe that was read and checked, with the name or the file by which the user chose it."""

    name: str
    recipe: Recipe


def read_target(name: str) -> Target:
    """Return a target (a built-in name or the path of a TOML file) with its recipe. Raises the errors of `read_recipe`."""
    return Target(name, read_recipe(name))


def recipes_directory() -> Path:
    """Return the directory of the built-in recipes (engines/ in a checkout, package data in a wheel)."""
    package = Path(__file__).parent
    installed = package / "data" / "engines"
    return installed if installed.is_dir() else package.parent / "engines"


def recipe_names() -> list[str]:
    """Return the names of the built-in targets, sorted."""
    return sorted(file.stem for file in recipes_directory().glob(f"*{_SUFFIX}"))


def read_recipe(target: str) -> Recipe:
    """Return the recipe of a built-in target or of a TOML file.

    Raises PlumeExportError for an unknown target, a corrupt file, an unknown key, and a range that is out of order.
    """
    file = Path(target) if target.endswith(_SUFFIX) else recipes_directory() / f"{target}{_SUFFIX}"
    if not target.endswith(_SUFFIX) and target not in recipe_names():
        raise OptionError(
            f"There is no target {target!r}.", fix=f"use --target {', '.join(recipe_names())}, or the path of a .toml recipe"
        )
    try:
        recipe = msgspec.toml.decode(file.read_bytes(), type=Recipe)
    except OSError as error:
        raise PlumeExportError(f"The recipe {file} cannot be read: {error.strerror}.", fix="check the path") from None
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors, and so is text that is not UTF-8
        raise PlumeExportError(
            f"The recipe {file} is invalid: {error}.", fix=f"see {recipes_directory() / 'README.md'} for the keys of a recipe"
        ) from None
    _check_meant_for_backend(recipe, file)
    if recipe.shapes is not None and recipe.max_pixels is not None:
        _check_ranges(recipe.shapes, recipe.max_pixels, file)
    return recipe


def check_recipe_fits_model(recipe: Recipe, model: ModelSpec, suffix_tokens: int, target: str) -> None:
    """Raise PlumeExportError if the recipe's longest prompt, with latent steps and suffix, exceeds the model's positions."""
    if recipe.shapes is None:
        return
    room = model.decoder.max_positions - model.rollout.latent_steps - suffix_tokens
    most = recipe.shapes.prompt_tokens.max
    if most > room:
        raise PlumeExportError(
            f"The recipe {target} has prompts of up to {most} tokens; this model allows {room} with its "
            f"{model.rollout.latent_steps} latent steps and {suffix_tokens} suffix tokens.",
            fix=f"lower the max of prompt_tokens to {room} in your own recipe",
        )


def model_scaled_to(recipe: Recipe, model: ModelSpec, target: str) -> ModelSpec:
    """Return the model with images scaled down to the recipe's limit.

    Raises PlumeExportError if the bundle's smallest image is larger.
    """
    if recipe.max_pixels is None:
        return model
    preprocess = model.preprocess
    if preprocess.min_pixels > recipe.max_pixels:
        raise PlumeExportError(
            f"The bundle scales images up to at least {preprocess.min_pixels} pixels; the recipe {target} allows "
            f"at most {recipe.max_pixels}.",
            fix="export with a smaller --min-pixels, or raise max_pixels in your own recipe",
        )
    scaled = msgspec.structs.replace(preprocess, max_pixels=min(preprocess.max_pixels, recipe.max_pixels))
    return msgspec.structs.replace(model, preprocess=scaled)


def _check_meant_for_backend(recipe: Recipe, file: Path) -> None:
    """Raise PlumeExportError for a key that the backend would ignore, and for a missing key that it requires."""
    is_onnxruntime = recipe.backend in ("onnxruntime-cpu", "onnxruntime-cuda")
    ignored = {
        "[builder]": (recipe.builder is not None, "settings of TensorRT's builder"),
        'weights = "shared"': (recipe.weights == "shared", "weights of engines; ONNX Runtime's graphs always share one file"),
        "[device]": (recipe.device is not None, "a device for which engines are planned"),
    }
    for key, (is_given, meaning) in ignored.items():
        if is_onnxruntime and is_given:
            raise PlumeExportError(
                f"The recipe {file} has {key}, which {recipe.backend} would ignore: {meaning}.", fix=f"remove {key}"
            )
    for key in ("max_pixels", "shapes"):
        if getattr(recipe, key) is None and (recipe.backend != "onnxruntime-cpu" or recipe.shapes is not None):
            raise PlumeExportError(
                f"The recipe {file} has no {key}; {recipe.backend} requires it{' with shapes' if key == 'max_pixels' else ''}.",
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
            f"The recipe {file} allows images of {max_pixels} pixels, which are {needed} tokens; the max of its "
            f"image_tokens is {allowed}.",
            fix=f"set max_pixels = {allowed * _TOKEN_PIXELS}, or image_tokens up to {needed}",
        )
    if allowed >= shapes.prompt_tokens.max:
        raise PlumeExportError(
            f"The recipe {file} allows {allowed} tokens per image and {shapes.prompt_tokens.max} per prompt; a "
            "prompt needs about 90 tokens more than its image.",
            fix="raise the max of prompt_tokens, or lower that of image_tokens",
        )


def _check_min(shapes: ShapeRanges, file: Path) -> None:
    """Raise if a range starts too high: a batch may have a single prompt, and a text's blank image is the smallest image."""
    for name, most in (("batch", 1), ("image_tokens", MIN_IMAGE_TOKENS)):
        given: AxisRange = getattr(shapes, name)
        if given.min > most:
            raise PlumeExportError(
                f"The recipe {file} has {name} with min {given.min}; expected at most {most}.",
                fix=f"set {name} = [{most}, ...]",
            )
