"""Check that a bundle of engines matches this machine: its TensorRT version, its GPU and its memory."""

from collections.abc import Callable

import msgspec

from ...batch_memory import BufferBytes
from ...bundle import WEIGHTS, Bundle, EngineManifest
from ...errors import BundleError, PlumeExportError
from ...machine.gpu import device_memory
from ...machine.tensorrt_variant import PORTABLE, Variant
from ...memory_plan import CONTEXT_BYTES, nearest_text, nearest_that_fits, plan_memory
from ...recipe import Device
from .device import CudaDevice


def check_version(bundle: Bundle, engines: EngineManifest, variant: Variant) -> None:
    """Raise BundleError if the engines were built by another TensorRT version or variant."""
    if engines.flavour_version != variant.version:
        raise BundleError(
            f"{bundle.path} was built by {variant.name} {engines.flavour_version}, but this machine has {variant.version}.",
            fix=rebuild_command(bundle),
        )


def check_device(bundle: Bundle, engines: EngineManifest, device: CudaDevice) -> None:
    """Raise BundleError if the engines were built for another GPU."""
    if engines.device not in (PORTABLE, device.title):
        raise BundleError(
            f"{bundle.path} was built for {engines.device}, but this machine has {device.title}.", fix=rebuild_command(bundle)
        )


def check_engines_fit(bundle: Bundle, engines: EngineManifest, buffers: BufferBytes, device: CudaDevice) -> None:
    """Raise PlumeExportError if engines, scratch memory, weights and buffers do not fit in the free device memory."""
    files = bundle.manifest.files
    parts = {
        "engines": sum(entry.bytes for entry in engines.graphs.values()),
        "shared weights": files[WEIGHTS].bytes if WEIGHTS in files else 0,
        "activations": scratch_bytes(bundle, engines),
        "buffers": buffers.total,
    }
    _check_fit(bundle, parts, device, lambda free: f"recipe with smaller shapes ({_nearest(bundle, engines, free)})")


def check_graphs_fit(bundle: Bundle, buffers: BufferBytes, device: CudaDevice) -> None:
    """Raise PlumeExportError if the weights and buffers do not fit in the free device memory. Activations are not included."""
    parts = {"weights": bundle.manifest.files[WEIGHTS].bytes, "buffers": buffers.total}
    _check_fit(bundle, parts, device, lambda _: "recipe with smaller shapes")


def scratch_bytes(bundle: Bundle, engines: EngineManifest) -> int:
    """Return the bytes of scratch memory, which the engines share: as reported by the builder, or else as planned."""
    told = [entry.activation_bytes for entry in engines.graphs.values() if entry.activation_bytes is not None]
    if len(told) == len(engines.graphs):
        return max(told)
    manifest = bundle.manifest
    planned = plan_memory(engines.target, engines.recipe, manifest.model, manifest.precision, list(manifest.graphs))
    return max(planned.largest_activations, *told)


def _check_fit(bundle: Bundle, parts: dict[str, int], device: CudaDevice, smaller: Callable[[int], str]) -> None:
    needed, free = sum(parts.values()), free_bytes(device)
    if needed <= free:
        return
    listed = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in parts.items() if size)
    raise PlumeExportError(
        f"{bundle.path} needs {needed / 1e6:,.0f} MB of device memory ({listed}); {device.name} has {free / 1e6:,.0f} MB free.",
        fix=f"end other programs on the GPU, or compile with a {smaller(free)}",
    )


def rebuild_command(bundle: Bundle) -> str:
    """Return the command that rebuilds a bundle on the machine where it will run."""
    engines = bundle.manifest.engines
    target = "auto" if engines is None else engines.target
    return f"plume-export compile PORTABLE --target {target} --output {bundle.path}  (PORTABLE: the bundle written by `export`)"


def free_bytes(device: CudaDevice) -> int:
    """Return the memory that a program can allocate now. An integrated GPU uses system memory, including the page cache."""
    memory = device_memory() if device.is_integrated else None
    return device.free_bytes() if memory is None else memory.free_bytes


def _nearest(bundle: Bundle, engines: EngineManifest, free: int) -> str:
    """Return a description of the nearest plan that fits. `free` excludes CUDA's own memory, which is already allocated."""
    here = Device(name="this GPU", memory_gb=(free + CONTEXT_BYTES) / 1e9, compute_capability="")
    recipe = msgspec.structs.replace(engines.recipe, device=here)
    manifest = bundle.manifest
    return nearest_text(nearest_that_fits(engines.target, recipe, manifest.model, manifest.precision, list(manifest.graphs)))
