"""Ctrl-C that is heard, also where a library swallows it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_AGAIN = 3.0  # seconds
_asked = False  # an interrupt came, and nobody has heard it yet


@contextlib.contextmanager
def insistent() -> Iterator[None]:
    """Within it an interrupt is raised again every 3 seconds until `heard` is called.

    TensorFlow and Keras have blocks that catch everything, and Python drops what is raised while
    it collects garbage: an interrupt that falls there is lost, and the training goes on. Or it
    goes on as another error (see `blamed`). Where signals are not ours to take, in a thread or
    below a handler of somebody, nothing is changed.
    """
    ours = (
        hasattr(signal, "setitimer")  # not on Windows
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    before, unraisable = signal.getsignal(signal.SIGALRM), sys.unraisablehook
    signal.signal(signal.SIGALRM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = lambda lost: _is_interrupt(lost) or unraisable(lost)
    try:
        with blamed():
            yield
    finally:
        heard()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = unraisable


@contextlib.contextmanager
def blamed() -> Iterator[None]:
    """Within it an error that comes behind an interrupt is raised as the interrupt it came from.

    Where Python code that C++ has called is interrupted, TensorFlow prints what it met, goes on
    without a result, and fails on the next line with an error that says nothing of Ctrl-C.
    """
    try:
        yield
    except Exception as error:
        if _asked:
            raise KeyboardInterrupt from error
        raise


def heard() -> None:
    """No more of it: what catches the interrupt may do its work."""
    global _asked
    _asked = False
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_interrupt(lost: Any) -> bool:
    """Whether Python is about to print the traceback of an interrupt, which comes again."""
    return lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt)


def _interrupt(*_: Any) -> None:
    global _asked
    _asked = True
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    raise KeyboardInterrupt
