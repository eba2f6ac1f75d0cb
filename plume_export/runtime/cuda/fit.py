"""Whether a bundle of engines belongs to this machine: made by its TensorRT, for its GPU, within its memory."""

import msgspec

from ...batch_memory import BufferBytes
from ...bundle import WEIGHTS, Bundle, EngineManifest
from ...errors import BundleError, PlumeExportError
from ...machine.flavour import PORTABLE, Flavour, device_of
from ...machine.gpu import device_memory
from ...plan import CONTEXT_BYTES, nearest_text, nearest_that_fits
from ...recipe import Device
from .device import CudaDevice


def check_engines_match(bundle: Bundle, engines: EngineManifest, flavour: Flavour) -> None:
    """Raise BundleError for engines of another TensorRT or another GPU."""
    if engines.flavour_version != flavour.version:
        raise BundleError(
            f"{bundle.path} was built by {flavour.name} {engines.flavour_version}; this machine has {flavour.version}.",
            fix=rebuild_command(bundle),
        )
    here = device_of(flavour)
    if engines.device not in (PORTABLE, here):
        raise BundleError(
            f"{bundle.path} was built for {engines.device}; this machine has {here}.", fix=rebuild_command(bundle)
        )


def check_engines_fit(bundle: Bundle, engines: EngineManifest, buffers: BufferBytes, device: CudaDevice) -> None:
    """Raise PlumeExportError if the device's free memory does not hold engines, scratch memory, weights and buffers."""
    parts = {
        "engines": sum(entry.bytes for entry in engines.graphs.values()),
        "shared weights": bundle.manifest.files[WEIGHTS].bytes if WEIGHTS in bundle.manifest.files else 0,
        "activations": max(entry.activation_bytes or 0 for entry in engines.graphs.values()),
        "buffers": buffers.total,
    }
    needed, free = sum(parts.values()), free_bytes(device)
    if needed <= free:
        return
    listed = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in parts.items() if size)
    raise PlumeExportError(
        f"{bundle.path} takes {needed / 1e6:,.0f} MB on the device ({listed}); {device.name} has {free / 1e6:,.0f} MB free.",
        fix=f"end other programs on the GPU, or compile with a recipe of smaller shapes ({_nearest(bundle, engines, free)})",
    )


def rebuild_command(bundle: Bundle) -> str:
    """Return the command that makes a bundle anew where it is to run."""
    engines = bundle.manifest.engines
    target = "auto" if engines is None else engines.target
    return (
        f"plume-export compile EXPORTED --target {target} --output {bundle.path}   (EXPORTED: what plume-export export wrote)"
    )


def free_bytes(device: CudaDevice) -> int:
    """Return the memory that a program can get now; an integrated GPU shares the system's, page cache included."""
    memory = device_memory() if device.is_integrated else None
    return device.free_bytes() if memory is None else memory.free_bytes


def _nearest(bundle: Bundle, engines: EngineManifest, free: int) -> str:
    """CUDA's own memory is taken already when the free bytes are asked for."""
    here = Device(name="this GPU", memory_gb=(free + CONTEXT_BYTES) / 1e9, compute_capability="")
    recipe = msgspec.structs.replace(engines.recipe, device=here)
    manifest = bundle.manifest
    return nearest_text(nearest_that_fits(engines.target, recipe, manifest.model, manifest.precision))
