"""Choose the target that matches a machine's GPU and software, for `--target auto`, and give the reason."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..recipe import Recipe, read_recipe, recipe_names
from .gpu import DeviceMemory, Gpu, device_memory, find_gpus
from .software import CUDA_PROVIDER, VARIANT_TITLES, InstalledVariant, Software, cuda_version_text, find_software
from .tensorrt_variant import VariantName

AUTO = "auto"
# Minimum share of a recipe's memory that a device must report. Firmware reserves some, so that a device reports a bit less.
_MEMORY_SHARE = 0.95


@dataclass(frozen=True)
class Machine:
    """The facts that the choice depends on. `memory` is None if it is unknown."""

    gpu: Gpu
    memory: DeviceMemory | None
    software: Software
    recipes: Mapping[str, Recipe]


@dataclass(frozen=True)
class TargetChoice:
    """A built-in target, and the reason for choosing it in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Obstacle:
    """The reason why a kind of target was not chosen, and a `fix` if there is one."""

    problem: str
    fix: str | None = None


def target_of_this_machine() -> TargetChoice:
    """Choose a target for the first GPU of this machine. Without a GPU, no GPU software is imported."""
    gpus = find_gpus()
    if not gpus:
        return TargetChoice("cpu", "no NVIDIA GPU was found")
    recipes = {name: read_recipe(name) for name in recipe_names()}
    return choose_target(Machine(gpus[0], device_memory(), find_software(), recipes))


def choose_target(machine: Machine) -> TargetChoice:
    """Choose the recipe for this GPU, else TensorRT-RTX, else ONNX Runtime's CUDA provider, else the CPU, with the reason."""
    obstacles = []
    for look in (_own_recipe, _rtx, _cuda):
        found = look(machine)
        if isinstance(found, TargetChoice):
            return found
        obstacles.append(found)
    problems = "; ".join(obstacle.problem for obstacle in obstacles)
    fix = next(obstacle.fix for obstacle in obstacles if obstacle.fix is not None)
    return TargetChoice("cpu", f"{machine.gpu.name} was found but is not used: {problems}. To use it: {fix}")


def _own_recipe(machine: Machine) -> TargetChoice | Obstacle:
    for name, recipe in machine.recipes.items():
        if recipe.backend == "tensorrt" and is_recipe_for(recipe, machine):
            return _engines(machine, name, recipe.backend)
    return Obstacle("no TensorRT recipe matches it")


def _rtx(machine: Machine) -> TargetChoice | Obstacle:
    if not machine.gpu.is_listed_for_rtx:
        return Obstacle(f"TensorRT-RTX does not list compute capability {machine.gpu.compute_capability}")
    return _engines(machine, "rtx", "tensorrt-rtx")


def _cuda(machine: Machine) -> TargetChoice | Obstacle:
    installed = machine.software.onnxruntime
    if installed is None or CUDA_PROVIDER not in installed.providers:
        return Obstacle("ONNX Runtime with a CUDA provider is not installed", "pip install 'plume-export[gpu]'")
    return TargetChoice("cuda", f"{machine.gpu.name}; ONNX Runtime {installed.version} has a CUDA provider")


def _engines(machine: Machine, target: str, variant: VariantName) -> TargetChoice | Obstacle:
    """Choose a target with engines if they can be built here and the driver can run them. Otherwise return the obstacle."""
    installed = _installed(machine.software, variant)
    if installed.version is None:
        return Obstacle(installed.problem.rstrip("."), installed.fix)
    cuda = machine.software.cuda
    if cuda is not None and cuda.driver is not None and cuda.is_driver_too_old:
        driver, runtime = cuda_version_text(cuda.driver), cuda_version_text(cuda.runtime)
        return Obstacle(
            f"its driver supports CUDA {driver}, which is too old for the CUDA runtime {runtime}", "update the NVIDIA driver"
        )
    gpu = machine.gpu
    title = f"{VARIANT_TITLES[variant]} {installed.version}"
    return TargetChoice(target, f"{gpu.name}, compute capability {gpu.compute_capability}; {title} is installed")


def _installed(software: Software, variant: VariantName) -> InstalledVariant:
    return next(installed for installed in software.variants if installed.name == variant)


def is_recipe_for(recipe: Recipe, machine: Machine) -> bool:
    """Return True if a recipe matches the machine's GPU name, compute capability and memory.

    The name must match as a whole word (an L40 is not an L4), and the memory within a margin (an 8 GB module is not a 16 GB
    one).
    """
    device = recipe.device
    if device is None or device.compute_capability != machine.gpu.compute_capability:
        return False
    if re.search(rf"\b{re.escape(device.name)}\b", machine.gpu.name) is None:
        return False
    return machine.memory is None or machine.memory.total_bytes >= _MEMORY_SHARE * device.memory_gb * 1e9
