"""Import ONNX Runtime. No other module imports it directly."""

import os
from typing import Any

from ..errors import MissingExtraError


def import_onnxruntime(package: str = "onnxruntime", extra: str = "cpu") -> Any:
    """Import onnxruntime and switch its telemetry off, unless the user's environment sets it.

    Official builds collect events by default and store a device id in the user's cache. Raises MissingExtraError, which names
    the extra to install, if the package is missing. Source: Privacy.md of onnxruntime 1.32.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(package, extra) from None
    return onnxruntime
