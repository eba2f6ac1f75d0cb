"""Turn signals into exceptions, so that a command cleans up. They are delayed where an exception would crash or be lost."""

import signal
import sys
from types import FrameType
from typing import Any

_RETRY_SECONDS = 0.05
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Stop(SystemExit):
    """SIGTERM or SIGHUP. The exit code is 128 + the signal's number, as in a shell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def stop_on_signals() -> None:
    """Raise KeyboardInterrupt on SIGINT and SystemExit on SIGTERM and SIGHUP, unless the signal is ignored (nohup).

    During an import the exception is delayed until the import ends: initialisers of extension modules (such as protobuf's)
    crash the process on an exception. Python discards an exception raised in a destructor, so the signal is then sent again.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def _stop(number: int, frame: FrameType | None) -> None:
    if not _is_importing(frame):
        raise KeyboardInterrupt if number == signal.SIGINT else _Stop(number)
    _retry(number)


def _retry(number: int) -> None:
    # A timer signal instead of a thread: starting a thread takes locks that the interrupted code may hold.
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
