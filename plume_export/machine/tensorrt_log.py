"""Read the engine builder's log: weights, memory and errors."""

import re
from functools import cache
from typing import Any

import msgspec

from .tensorrt_variant import Variant

_FIGURES = {
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+)"),
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+)"),
}
# First line of the single verbose message that lists the layers of the finished engine.
_LAYER_LIST = "Layers:\n"
_KEPT_LINES = 10_000


class LogFigures(msgspec.Struct, frozen=True):
    """Memory of the finished engine on the device, as reported in the builder's log.

    `activation_bytes` is for the maximum shapes of the profile and includes scratch memory.
    """

    weights_bytes: int | None
    activation_bytes: int | None


def new_log(variant: Variant) -> Any:
    """Return a logger that collects (severity, text) in `lines`: all messages that are not verbose, and the list of layers."""
    logger_class = variant.trt.ILogger

    class Log(logger_class):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            logger_class.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            name = str(severity).rsplit(".", 1)[-1]
            if name != "VERBOSE" or message.startswith(_LAYER_LIST):
                self.lines.append((name, message))
                del self.lines[:-_KEPT_LINES]

    return Log()


@cache
def log_of_process(variant: Variant) -> Any:
    """Return the only logger of this process. TensorRT keeps using the first logger that it receives."""
    return new_log(variant)


def reasons_in(lines: list[tuple[str, str]]) -> str:
    """Return the errors as one line of text."""
    return "; ".join(errors_in(lines)) or "no reason given"


def errors_in(lines: list[tuple[str, str]]) -> list[str]:
    """Return the messages of severity error and above."""
    return [message for severity, message in lines if severity in ("ERROR", "INTERNAL_ERROR")]


def layer_list_in(lines: list[tuple[str, str]]) -> str | None:
    """Return the list of the last engine's layers; None if the builder does not print it."""
    return next((message for _, message in reversed(lines) if message.startswith(_LAYER_LIST)), None)


def figures_from_lines(lines: list[tuple[str, str]]) -> LogFigures:
    """Return the figures of the last engine in the log. A figure is None if the builder does not print it."""
    text = "\n".join(message for _, message in lines)
    found = {name: pattern.findall(text) for name, pattern in _FIGURES.items()}
    return LogFigures(**{name: int(values[-1]) if values else None for name, values in found.items()})
