"""What the hardware allows: how fast memory is read, how fast matrices are multiplied."""

import os

import msgspec

from ...bundle import Bundle, open_bundle
from ...errors import MissingExtraError, PlumeExportError
from .products import ProductKind, attention_products, is_on_gpu, linear_products


class MachineLimits(msgspec.Struct, frozen=True, tag=True):
    """The best of several runs. What is None or missing was not measured; `reasons` says why, by name."""

    read_bytes_per_s: float | None
    flops_per_s: dict[ProductKind, float]
    reasons: dict[str, str]


def measure_limits(bundle_path: str | os.PathLike[str], *, threads: int | None) -> MachineLimits:
    """Measure memory, and products in every kind of number that a bundle computes in. Takes a few seconds.

    `threads` is for bundles that run on a CPU.
    """
    bundle = open_bundle(bundle_path, verify_hashes=False)
    reasons: dict[str, str] = {}
    flops_per_s: dict[ProductKind, float] = {}
    read_bytes_per_s = None
    try:
        read_bytes_per_s = _read_bytes_per_s(bundle, threads)
    except MissingExtraError:
        raise
    except PlumeExportError as error:
        reasons["memory"] = error.message
    for kind in _kinds(bundle):
        try:
            flops_per_s[kind] = _flops_per_s(bundle, kind, threads)
        except MissingExtraError:
            raise
        except PlumeExportError as error:
            reasons[kind] = error.message
    return MachineLimits(read_bytes_per_s, flops_per_s, reasons)


def _kinds(bundle: Bundle) -> list[ProductKind]:
    manifest = bundle.manifest
    kinds = [of(manifest, graph) for graph in manifest.graphs for of in (linear_products, attention_products)]
    return list(dict.fromkeys(kinds))


def _read_bytes_per_s(bundle: Bundle, threads: int | None) -> float:
    from .read_bandwidth import copied_bytes_per_s, host_read_bytes_per_s

    if is_on_gpu(bundle.manifest):
        return copied_bytes_per_s()
    assert threads is not None
    return host_read_bytes_per_s(threads)


def _flops_per_s(bundle: Bundle, kind: ProductKind, threads: int | None) -> float:
    from .matrix_products import cpu_flops_per_s, cuda_flops_per_s

    if is_on_gpu(bundle.manifest):
        return cuda_flops_per_s(kind)
    assert threads is not None
    return cpu_flops_per_s(kind, threads)
