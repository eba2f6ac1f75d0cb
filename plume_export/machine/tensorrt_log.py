"""The builder's own log: what it says of weights and memory, and its errors."""

import re
from functools import cache
from typing import Any

import msgspec

from .tensorrt_variant import Flavour

_FIGURES = {
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+)"),
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+)"),
}
# How the one verbose message begins that lists the layers of the finished engine.
_LAYER_LIST = "Layers:\n"
_KEPT_LINES = 10_000


class LogFigures(msgspec.Struct, frozen=True):
    """What the finished engine holds and needs on the device, by the builder's log.

    `activation_bytes` is for the largest shapes of the profile, scratch included.
    """

    weights_bytes: int | None
    activation_bytes: int | None


def new_log(flavour: Flavour) -> Any:
    """Return a logger for the flavour whose `lines` keep (severity, text): the list of layers, and whatever is not verbose."""
    logger_class = flavour.trt.ILogger

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
def log_of_process(flavour: Flavour) -> Any:
    """Return the one logger of this process: TensorRT keeps the first that it is given, whoever comes later."""
    return new_log(flavour)


def reasons_in(lines: list[tuple[str, str]]) -> str:
    """Return the errors as one text for a message."""
    return "; ".join(errors_in(lines)) or "no reason given"


def errors_in(lines: list[tuple[str, str]]) -> list[str]:
    """Return the messages of severity error and above."""
    return [message for severity, message in lines if severity in ("ERROR", "INTERNAL_ERROR")]


def layer_list_in(lines: list[tuple[str, str]]) -> str | None:
    """Return the list of the last engine's layers; None if this builder does not tell it."""
    return next((message for _, message in reversed(lines) if message.startswith(_LAYER_LIST)), None)


def figures_from_lines(lines: list[tuple[str, str]]) -> LogFigures:
    """Return the figures of the last engine that the log tells of; None for one that this builder does not tell."""
    text = "\n".join(message for _, message in lines)
    found = {name: pattern.findall(text) for name, pattern in _FIGURES.items()}
    return LogFigures(**{name: int(values[-1]) if values else None for name, values in found.items()})
