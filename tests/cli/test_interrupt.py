import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from connman.cli.interrupt import Interrupted, interruptible
from tests.loopback import PATIENCE, in_thread


@contextlib.contextmanager
def unchanged_handlers() -> Iterator[None]:
    """Have SIGINT not ignored, and both handlers as they were in the end."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_a_wait(number: int, word: str) -> None:
    def wait_and_be_signalled() -> None:
        os.kill(os.getpid(), number)
        threading.Event().wait(PATIENCE)

    with unchanged_handlers(), interruptible(), pytest.raises(Interrupted) as interrupted:
        wait_and_be_signalled()
    assert (interrupted.value.signum, interrupted.value.word) == (number, word)


def test_behind_it_a_signal_does_nothing() -> None:
    with unchanged_handlers():
        with interruptible():
            pass
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_ignored_stays_ignored() -> None:
    with unchanged_handlers():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)


def test_elsewhere_than_on_the_main_thread_it_does_nothing() -> None:
    def enter() -> object:
        with interruptible():
            return signal.getsignal(signal.SIGTERM)

    assert in_thread(enter).result(PATIENCE) == signal.getsignal(signal.SIGTERM)
