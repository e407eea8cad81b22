"""Ctrl-C that is heard, also where a library swallows it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_AGAIN = 3.0  # seconds


@contextlib.contextmanager
def insistent() -> Iterator[None]:
    """Within it an interrupt is raised again every 3 seconds until `heard` is called.

    TensorFlow and Keras have blocks that catch everything, and Python drops what is raised while
    it collects garbage: an interrupt that falls there is lost, and the training goes on. Where
    signals are not ours to take, in a thread or below a handler of somebody, nothing is changed.
    """
    ours = (
        hasattr(signal, "setitimer")  # not on Windows
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        heard()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, before)


def heard() -> None:
    """No more of it: what catches the interrupt may do its work."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(*_: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    raise KeyboardInterrupt
