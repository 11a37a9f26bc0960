"""So many threads that read, and what they share."""

import threading

from connman import Pool
from connman.clock import SystemClock
from connman.connection.sharing import SharedReaders
from connman.testing import ScriptedDialer
from tests.connection.rig import OPEN, forever
from tests.promises.peers import PATIENCE


def test_two_readers_share_nothing_but_the_diallers() -> None:
    """One that is held up by a callback does not hold the other up."""
    dialer = ScriptedDialer(forever(OPEN))
    inside, leave = threading.Event(), threading.Event()
    with Pool(readers=2, ping_interval=None) as pool:
        pool.add_connection(dialer, on_open=lambda _: (inside.set(), leave.wait(PATIENCE)))
        assert inside.wait(PATIENCE)
        other = pool.add_connection(dialer).wait_open(PATIENCE)
        other.disconnect()
        leave.set()


def test_readers_that_have_nothing_to_read_are_gone() -> None:
    assert SharedReaders(3, "idle", SystemClock()).wait_gone(0)
