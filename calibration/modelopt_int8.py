"""int8 by NVIDIA's ModelOpt (package nvidia-modelopt), for comparison with ours on small models.

It takes float32 graphs of opset 20 with dynamic axes and int64 inputs as they are; its entropy calibration fails on float16
ones. By default it turns what it does not quantise into float16, norms and residual stream too. Here that stays float32, so
that int8 alone is compared. In its files all weights stay floats, with QuantizeLinear behind them.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from graph_inputs import Feed
from third_party import QuantiseFile

from plume_export.errors import PlumeExportError

_PACKAGE = "nvidia-modelopt"


@dataclass(frozen=True)
class ModelOptSettings:
    """The defaults are ModelOpt's, but for float16.

    `products` are patterns of the names of the nodes to quantise; without them it chooses, by what TensorRT fuses. Unless
    `takes_vectors`, products that had one row when calibrated stay in floats, as TensorRT is no faster for them in int8.
    """

    method: Literal["entropy", "max"] = "entropy"
    products: Callable[[Path], list[str]] | None = None
    takes_vectors: bool = False


def modelopt_name() -> str:
    """Return what a manifest calls the quantiser. Raises PlumeExportError if it is not installed."""
    _quantize()
    return f"modelopt {version(_PACKAGE)}"


def modelopt(settings: ModelOptSettings | None = None) -> QuantiseFile:
    """Return the function that quantises a graph's file. Raises PlumeExportError if it is not installed.

    The function raises PlumeExportError with what ModelOpt says of a graph that it cannot quantise.
    """
    settings, quantize = settings or ModelOptSettings(), _quantize()

    def quantise_file(source: Path, target: Path, feeds: list[Feed]) -> None:
        said = io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                quantize(
                    str(source),
                    quantize_mode="int8",
                    calibration_data_reader=FeedReader(feeds),
                    calibration_method=settings.method,
                    calibration_eps=["cpu"],
                    nodes_to_quantize=None if settings.products is None else settings.products(source),
                    high_precision_dtype="fp32",
                    output_path=str(target),
                    enable_gemv_detection_for_trt=not settings.takes_vectors,
                )
        except Exception as error:  # whatever it stumbles over
            raise PlumeExportError(
                f"{modelopt_name()} cannot quantise {source.name}: {type(error).__name__}: {error}", fix="compare without it"
            ) from error

    return quantise_file


class FeedReader:
    """Calibration data as ModelOpt and ONNX Runtime's `quantize_static` read it, one run of the graph at a time."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = feeds
        self._rest: Iterator[Feed] = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def get_first(self) -> Feed:
        return self._feeds[0]

    def get_next(self) -> Feed | None:
        return next(self._rest, None)

    def rewind(self) -> None:
        self._rest = iter(self._feeds)


def _quantize() -> Any:
    try:
        from modelopt.onnx.quantization import quantize
    except ImportError as error:
        missing = (error.name or _PACKAGE).partition(".")[0]
        raise PlumeExportError(f"The package {missing!r} is not installed.", fix="see calibration/README.md") from None
    return quantize
