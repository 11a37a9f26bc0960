"""Ctrl-C and SIGTERM as an exception on the main thread: every wait there ends, and the goodbye is said."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

HURRIED_CLOSE = 1.0
"""Seconds that an unresponsive server has for its goodbye: somebody waits for the prompt."""


class Interrupted(BaseException):
    """A signal asks for the end. Not an Exception, so that nothing takes it for an error and goes on."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.word = _WORDS.get(signal.Signals(signum), "stopped")
        super().__init__(signum)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise `Interrupted` inside the block, and do nothing behind it.

    Behind it the process ends, which takes two seconds at most and must not break off with a traceback. A signal
    that is ignored before stays so: a shell starts its background jobs with SIGINT ignored.

    Threads: does something on the main one only, since no other gets signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    wanted = [number for number in _WORDS if is_main and signal.getsignal(number) is not signal.SIG_IGN]
    for number in wanted:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_IGN)


def _interrupt(signum: int, _: FrameType | None) -> None:
    raise Interrupted(signum)
