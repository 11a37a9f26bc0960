"""Whose a connection is: who may become its reader, who counts as the reader, and what has to end with it."""

import threading

from connman.clock import SystemClock
from connman.connection.life import Life
from connman.connection.ownership import Owned
from connman.errors import ConnectionClosed
from connman.options import Options
from connman.testing import FakeClock
from connman.transport.base import Dial
from tests.loopback import PATIENCE, in_thread


def asked() -> Life:
    """Return a life whose reader is wanted."""
    life = Life(FakeClock(), lambda _: None)
    life.ask()
    return life


def test_nobody_becomes_the_reader_of_what_wants_none() -> None:
    owned = Owned()
    assert not owned.claim_reader()
    assert not owned.is_reader()
    assert owned.wait_gone(0)


def test_only_one_becomes_the_reader() -> None:
    life = asked()
    assert in_thread(life.claim_reader).result(PATIENCE)
    assert not life.claim_reader()
    assert not life.is_reader()


def test_whoever_dials_for_the_reader_counts_as_it_for_so_long() -> None:
    life = asked()
    assert not life.is_reader()
    life.note_dialler(threading.get_ident())
    assert life.is_reader()
    assert not in_thread(life.is_reader).result(PATIENCE)
    life.note_dialler(None)
    assert not life.is_reader()


def test_the_number_of_a_reader_that_has_gone_says_nothing() -> None:
    """The system gives it to the next thread that starts."""
    life = asked()
    assert life.claim_reader(lambda: None)
    assert life.is_reader()
    life.disconnect(ConnectionClosed(), 0)
    assert not life.take_dial(Dial(None, Options(), SystemClock()))
    assert not life.is_reader()


def test_gone_is_who_reads_and_every_thread_that_was_noted() -> None:
    life, stays = asked(), threading.Event()
    assert in_thread(lambda: life.claim_reader(lambda: None)).result(PATIENCE)
    thread = threading.Thread(target=stays.wait, args=(PATIENCE,))
    thread.start()
    life.note_thread(thread)
    assert not life.wait_gone(0)
    life.disconnect(ConnectionClosed(), 0)
    assert not life.take_dial(Dial(None, Options(), SystemClock()))
    assert not life.wait_gone(0)
    stays.set()
    assert life.wait_gone(PATIENCE)
