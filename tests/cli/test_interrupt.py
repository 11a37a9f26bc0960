import os
import signal
import threading

import pytest

from connman.cli.interrupt import Interrupted, interruptible
from tests.cli.program import ctrl_c_works
from tests.loopback import PATIENCE, in_thread


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_a_wait(number: int, word: str) -> None:
    def wait_and_be_signalled() -> None:
        os.kill(os.getpid(), number)
        threading.Event().wait(PATIENCE)

    with ctrl_c_works(), interruptible(), pytest.raises(Interrupted) as interrupted:
        wait_and_be_signalled()
    assert (interrupted.value.signum, interrupted.value.word) == (number, word)


def test_the_earlier_handlers_come_back() -> None:
    with ctrl_c_works():
        before = signal.getsignal(signal.SIGTERM)
        with interruptible():
            assert signal.getsignal(signal.SIGTERM) != before
        assert signal.getsignal(signal.SIGTERM) == before
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_what_is_ignored_stays_ignored() -> None:
    with ctrl_c_works():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)


def test_elsewhere_than_on_the_main_thread_it_does_nothing() -> None:
    def enter() -> object:
        with interruptible():
            return signal.getsignal(signal.SIGTERM)

    assert in_thread(enter).result(PATIENCE) == signal.getsignal(signal.SIGTERM)
