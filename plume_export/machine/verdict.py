"""Summary of what works on this machine, and the command that adds the rest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..recipe import Recipe, read_recipe, recipe_names
from .checks import EXTRAS, extras_for, has_packages
from .gpu import DeviceMemory, Gpu, Jetson, device_memory, find_gpus, find_jetson
from .software import CUDA_PROVIDER, InstalledOnnxRuntime, InstalledVariant, Software, package_version
from .target import Machine, choose_target, is_recipe_for
from .tensorrt_variant import VARIANT_NAMES

_EXTRA_OF_BACKEND = {"onnxruntime-cuda": "gpu", "tensorrt-rtx": "rtx", "tensorrt": "tensorrt"}


@dataclass(frozen=True)
class Verdict:
    """What works on this machine: the backends that run bundles, the targets of `compile`, and whether `export` works.

    `fix` is the command that adds what is missing; None if nothing is missing, or no package would help.
    """

    embed: list[str]
    compile: list[str]
    export: bool
    cannot: list[str]
    fix: str | None

    def lines(self) -> list[str]:
        """Return the capabilities, the missing ones, and the command that adds them, one per line."""
        can = [f"embed on {', '.join(self.embed)}"] if self.embed else []
        can += [f"compile for {', '.join(self.compile)}"] if self.compile else []
        can += ["export"] if self.export else []
        lines = [f"This machine can {'; '.join(can)}." if can else "This machine can neither embed, compile nor export."]
        if can and self.cannot:
            lines.append(f"It cannot {'; '.join(self.cannot)}.")
        return lines + ([f"To add that: {self.fix}"] if self.fix else [])


def verdict_of_this_machine(software: Software) -> Verdict:
    """Return the capabilities of this machine with the software that was found on it."""
    return judge(find_gpus(), device_memory(), find_jetson(), software)


def judge(gpus: list[Gpu], memory: DeviceMemory | None, jetson: Jetson | None, software: Software) -> Verdict:
    """Return the capabilities of a machine. Only its first GPU counts, as for `--target auto`."""
    recipes = {name: read_recipe(name) for name in recipe_names()}
    machine = Machine(gpus[0], memory, software, recipes) if gpus else None
    embed = [*_backends(gpus, software)]
    has_compile, has_export = has_packages(EXTRAS["compile"]), has_packages(EXTRAS["export"])
    targets = [name for name, recipe in recipes.items() if has_compile and _is_buildable(recipe, machine, software)]
    lacking: dict[str, str] = {}  # missing capability: the extra that adds it
    if machine is None and not embed:
        lacking["embed"] = "cpu"
    elif machine is not None and not set(embed) - {"cpu"}:
        lacking["embed on the GPU" if embed else "embed"] = _extra_for(machine, jetson)
    if not has_compile:
        lacking["compile"] = "compile"
    if not has_export:
        lacking["export"] = "export"
    extras = [extra for extra in lacking.values() if not has_packages(extras_for(jetson).get(extra, ()))]
    return Verdict(embed, targets, has_export, list(lacking), _command(extras))


def _backends(gpus: list[Gpu], software: Software) -> Iterator[str]:
    """Yield the backends that run bundles on this machine."""
    if software.onnxruntime is not None:
        yield "cpu"
    cuda = software.cuda
    if not gpus or cuda is None or cuda.driver is None or cuda.is_driver_too_old:
        return
    if software.onnxruntime is not None and CUDA_PROVIDER in software.onnxruntime.providers:
        yield "cuda"
    for variant in software.variants:
        if variant.version is not None and (variant.name == "tensorrt" or gpus[0].is_listed_for_rtx):
            yield variant.name


def _is_buildable(recipe: Recipe, machine: Machine | None, software: Software) -> bool:
    """Return True if a target can be compiled here. TensorRT-RTX builds on any machine, TensorRT only on the device itself."""
    if recipe.backend == "onnxruntime-cuda":
        return True
    if recipe.backend == "onnxruntime-cpu":  # compiling runs ONNX Runtime to compute the cached start of prompts
        return software.onnxruntime is not None
    is_installed = any(variant.name == recipe.backend and variant.version is not None for variant in software.variants)
    return is_installed and (recipe.backend == "tensorrt-rtx" or (machine is not None and is_recipe_for(recipe, machine)))


def _extra_for(machine: Machine, jetson: Jetson | None) -> str:
    """Return the extra for the target that `--target auto` would choose if all software were installed."""
    variants = tuple(InstalledVariant(name, "") for name in VARIANT_NAMES)
    everything = Software(variants, InstalledOnnxRuntime("", (CUDA_PROVIDER,)), None)
    target = choose_target(replace(machine, software=everything)).name
    extra = _EXTRA_OF_BACKEND[machine.recipes[target].backend]
    return f"jetson{jetson.jetpack}" if extra == "tensorrt" and jetson is not None else extra


def _command(extras: list[str]) -> str | None:
    """Return the command that installs the extras.

    ONNX Runtime for the CPU is removed before ONNX Runtime for GPUs is installed, because each overwrites the other's files.
    """
    if not extras:
        return None
    command = f"pip install 'plume-export[{','.join(extras)}]'"
    if "gpu" in extras and package_version("onnxruntime") is not None:
        command = f"pip uninstall -y onnxruntime && {command}"
    return command
