"""Manifests of bundles that are not built: another bundle's, with some fields changed."""

import msgspec

from plume_export.bundle import Bundle, Manifest, Quantisation

NO_PROMISE = Quantisation(
    graphs={"prefill": "int8", "latent_step": "int8-weight"},
    kept={},
    calibration_inputs=1,
    calibration_sha256="",
    min_cosine=None,
    measured=None,
)


def changed(bundle: Bundle, **changes: object) -> Manifest:
    return msgspec.structs.replace(bundle.manifest, **changes)
