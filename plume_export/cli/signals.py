"""Signals that stop a command become exceptions, on which it cleans up; never where one would crash or be lost."""

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

_RETRY_SECONDS = 0.05
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Stop(SystemExit):
    """SIGTERM or SIGHUP; the exit code is 128 + the signal's number, as a shell's."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def stop_on_signals() -> None:
    """Raise KeyboardInterrupt on SIGINT and SystemExit on SIGTERM and SIGHUP, except on those that are ignored (nohup).

    During an import they wait for its end: initialisers of extension modules (protobuf's is one) crash the process on an
    exception. One that is raised in a destructor, which Python would drop, is raised again.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        _retry(number)
    else:
        _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else _Stop(number)


def _retry(number: int) -> None:
    # A timer's signal, not a thread: to start one takes locks, which the interrupted code may hold.
    signal.signal(signal.SIGALRM, lambda _, frame: _stop(number, frame))
    signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _UnraisableHook:
    def __init__(self, others: Any) -> None:
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            _retry(signal.SIGINT)
        elif isinstance(unraisable.exc_value, _Stop):
            _retry(unraisable.exc_value.number)
        else:
            self._others(unraisable)
