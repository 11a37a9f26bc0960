"""Lent reading: while the reader stands by others read, and no message is lost, doubled or overtaken by it."""

import contextlib
import itertools
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from connman.clock import SystemClock
from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError, ProtocolError
from connman.records import Message
from connman.transport import lending
from connman.transport.frames import FrameCodec
from connman.transport.pipe import Pipe
from connman.transport.sockets import SocketGuard
from connman.transport.tcp import TcpStream
from tests.interrupts import every_point
from tests.loopback import in_thread
from tests.transport.pipes import PATIENCE, Raw, Reader, make_pipe, open_raw, socket_pair
from tests.waiting import eventually


class Standing(Reader):
    """A reader that stands by after whatever it has read, until its pipe ends."""

    times = 0  # that it has come back

    def has_read(self) -> None:
        self.pipe.stand_by()
        self.times += 1

    @property
    def log(self) -> list[Message]:
        """What it and those who took something have read, in order."""
        return self.messages

    def take(self, text: str) -> bool:
        """Take a text for one who waits: into the same log, so that its order shows."""
        self.log.append(text)
        return True


@pytest.fixture(autouse=True)
def own_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no reader of another test in the way, nor the moment for which none stands by because of one."""
    monkeypatch.setattr(lending, "_seats", {})


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have readers stand by until they are called."""
    monkeypatch.setattr(lending, "GRACE", PATIENCE)


class Held:
    """The time as lent reading sees it: while it is held a reader stands by, however long it takes until somebody comes."""

    def __init__(self) -> None:
        self.release()

    def hold(self) -> None:
        self.monotonic = time.monotonic().conjugate  # a call of C, as the one it replaces

    def release(self) -> None:
        self.monotonic = time.monotonic


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Have readers look around every 50 ms, and stand by for as long as the time is held."""
    monkeypatch.setattr(lending, "GRACE", 0.05)
    monkeypatch.setattr(lending, "time", held := Held())
    return held


@contextlib.contextmanager
def lent() -> Iterator[tuple[Standing, Raw]]:
    """A reader that stands by, and the far end of its pipe."""
    with open_raw() as (pipe, far):
        reader = Standing(pipe)
        try:
            far.send(far.text("first"))
            eventually(lambda: is_lent(pipe), PATIENCE)
            yield reader, far
        finally:
            pipe.abort(ConnectionLost("the end of the test"))
            pipe.take_one(0, lambda _: False)
            reader.ended()


def is_lent(pipe: Pipe) -> bool:
    """Whether somebody could read now: whose look brings nothing and calls nobody."""
    loan = pipe._loan  # noqa: SLF001
    return loan is not None and loan.is_on


# Taking


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("text", ["x", "", "ü" * 60, "x" * 126, "x" * 16_000])
def test_who_waits_reads_the_next_message_himself(text: str) -> None:
    with lent() as (reader, far):
        before = reader.pipe.bytes_in
        frame = far.text(text)
        taking = in_thread(lambda: reader.pipe.take_one(PATIENCE, reader.take))
        far.send(frame)
        assert taking.result(PATIENCE) is True
        far.send(far.text("last"))
        assert reader.pipe.take_one(PATIENCE, reader.take)
        assert reader.log == ["first", text, "last"]
        assert (reader.times, reader.pipe.lent) == (0, 2)
        assert reader.pipe.bytes_in == before + len(frame) + len(far.text("last"))


@pytest.mark.usefixtures("patient")
def test_what_he_does_not_take_is_the_readers() -> None:
    with lent() as (reader, far):
        far.send(far.text("for the reader"))
        offered: list[str] = []
        assert not reader.pipe.take_one(PATIENCE, lambda text: bool(offered.append(text)))
        eventually(lambda: reader.log == ["first", "for the reader"], PATIENCE)
        assert offered == ["for the reader"]
        assert reader.pipe.lent == 0


FRAMES = {
    "binary": (b"\x82\x01x", [b"x"]),
    "two at once": (b"\x81\x01a\x81\x01b", ["a", "b"]),
    "one and a half": (b"\x81\x01a\x81", ["a"]),
    "fragments": (b"\x01\x01a\x80\x01b", ["ab"]),
    "behind a ping": (b"\x89\x00\x81\x01a", ["a"]),
    "longer than is read at once": (b"\x81\x7e\x60\x00" + b"x" * 0x6000, ["x" * 0x6000]),
    "of eight bytes of length": (
        b"\x81\x7f" + struct.pack(">Q", 1 << 16) + b"x" * (1 << 16),
        ["x" * (1 << 16)],
    ),
}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", FRAMES)
def test_what_is_not_one_whole_text_is_the_readers(name: str) -> None:
    data, messages = FRAMES[name]
    with lent() as (reader, far):
        far.send(data)
        assert not reader.pipe.take_one(PATIENCE, reader.take)
        eventually(lambda: reader.log == ["first", *messages], PATIENCE)


@pytest.mark.usefixtures("patient")
def test_a_message_that_is_cut_is_not_taken_apart() -> None:
    """Its second half may look like a message of its own."""
    with lent() as (reader, far):
        far.send(b"\x81\x06ab")
        assert not reader.pipe.take_one(PATIENCE, reader.take)
        eventually(lambda: not is_lent(reader.pipe), PATIENCE)
        far.send(b"\x81\x02cd")
        assert isinstance(reader.ended(), ProtocolError)  # the half is no UTF-8


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"\x88\x02\x03\xe9", ConnectionClosed), (b"\x81\x01\xff", ProtocolError), (b"\xf1\x00", ProtocolError)],
)
def test_an_end_is_the_readers(data: bytes, kind: type[ConnmanError]) -> None:
    with lent() as (reader, far):
        far.send(data)
        assert not reader.pipe.take_one(PATIENCE, reader.take)
        assert isinstance(reader.ended(), kind)


@pytest.mark.usefixtures("patient")
def test_an_end_of_file_is_the_readers() -> None:
    with lent() as (reader, far):
        far.sock.close()
        assert not reader.pipe.take_one(PATIENCE, reader.take)
        assert "without a close frame" in str(reader.ended())


@pytest.mark.usefixtures("patient")
def test_why_it_broke_is_told_whoever_met_it() -> None:
    """The system tells of it once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    reader = Standing(make_pipe(TcpStream(SocketGuard(near)), SystemClock()))
    far.sendall(b"\x81\x01a")
    eventually(lambda: is_lent(reader.pipe), PATIENCE)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert not reader.pipe.take_one(PATIENCE, reader.take)
    assert "reset" in str(reader.ended())


# Whose turn it is


@pytest.mark.usefixtures("patient")
def test_with_two_who_wait_the_reader_reads() -> None:
    with lent() as (reader, far):
        taking = in_thread(lambda: reader.pipe.take_one(PATIENCE, reader.take))
        eventually(reader.pipe._loan.waiting.locked, PATIENCE)  # type: ignore[union-attr]  # noqa: SLF001
        assert not reader.pipe.take_one(PATIENCE, reader.take)
        eventually(lambda: not is_lent(reader.pipe), PATIENCE)
        far.send(far.text("x"))
        assert taking.result(PATIENCE) is False
        eventually(lambda: reader.log == ["first", "x"], PATIENCE)


@pytest.mark.usefixtures("patient")
def test_what_is_wanted_no_longer_is_not_waited_for() -> None:
    with lent() as (reader, _):
        assert not reader.pipe.take_one(PATIENCE, reader.take, lambda: False)
        eventually(lambda: not is_lent(reader.pipe), PATIENCE)


@pytest.mark.usefixtures("patient")
def test_whoever_knows_that_nobody_will_read_calls_the_reader() -> None:
    with lent() as (reader, far):
        reader.pipe.call_reader()
        eventually(lambda: not is_lent(reader.pipe), PATIENCE)
        reader.pipe.call_reader()
        far.send(far.text("x"))
        eventually(lambda: reader.log == ["first", "x"], PATIENCE)


def test_nobody_reads_beside_the_reader() -> None:
    with open_raw() as (pipe, far):
        assert not pipe.take_one(PATIENCE, lambda _: True)  # it has never stood by
        far.send(far.text("x"))
        assert pipe.receive() == ["x"]
        pipe.stand_by()
        assert not pipe.take_one(PATIENCE, lambda _: True)


def test_a_reader_that_nobody_stands_in_for_goes_on_by_itself() -> None:
    with open_raw() as (pipe, far):
        reader = Standing(pipe)
        for number in range(20):
            far.send(far.text(str(number)))
            eventually(lambda number=number: reader.log[-1:] == [str(number)], PATIENCE)
        pipe.abort(ConnectionLost("over"))
        assert reader.log == [str(number) for number in range(20)]


class Counting(Pipe):
    """A pipe that counts how often its reader has stood by, and is of use to nobody."""

    __slots__ = ("stood",)

    def _wait_while_lent(self, loan: Any, seats: Any) -> None:
        self.stood += 1
        loan.token.pop()


def test_it_stands_by_the_more_seldom_the_less_use_it_is() -> None:
    ours, theirs = socket.socketpair()
    pipe = Counting("test", TcpStream(SocketGuard(ours)), FrameCodec(1000), SystemClock())
    pipe.stood = 0
    stood = []
    for _ in range(600):
        before = pipe.stood
        pipe.stand_by()
        stood.append(pipe.stood > before)
    gaps = [len(list(group)) for was, group in itertools.groupby(stood) if not was]
    assert gaps[:8] == [1, 3, 7, 15, 31, 63, 127, 255]
    pipe.dispose()
    theirs.close()


@pytest.mark.usefixtures("patient")
def test_an_abort_ends_whoever_reads() -> None:
    with lent() as (reader, _):
        taking = in_thread(lambda: reader.pipe.take_one(PATIENCE, reader.take))
        eventually(reader.pipe._loan.waiting.locked, PATIENCE)  # type: ignore[union-attr]  # noqa: SLF001
        error = ConnectionLost("aborted")
        reader.pipe.abort(error)
        assert taking.result(PATIENCE) is False
        assert reader.ended() is error


@pytest.mark.usefixtures("patient")
def test_who_is_about_to_wait_when_the_descriptor_goes_waits_for_nothing() -> None:
    with lent() as (reader, _):

        def end_it() -> bool:
            reader.pipe.abort(ConnectionLost("aborted"))
            reader.pipe.call_reader()
            reader.ended()
            return True

        assert not reader.pipe.take_one(PATIENCE, reader.take, end_it)


def test_an_abort_ends_a_reader_that_stands_by() -> None:
    with open_raw() as (pipe, far):
        reader = Standing(pipe)
        far.send(far.text("x"))
        eventually(lambda: reader.log, PATIENCE)
        error = ConnectionLost("aborted")
        pipe.abort(error)
        assert reader.ended() is error
        assert not pipe.take_one(PATIENCE, reader.take)


@pytest.mark.usefixtures("patient")
def test_a_child_process_reads_nothing_of_its_parents() -> None:
    with lent() as (reader, far):
        far.send(far.text("the parent's"))
        child = os.fork()
        if not child:
            os._exit(reader.pipe.take_one(1, lambda _: True))
        assert os.waitpid(child, 0)[1] == 0
        assert reader.pipe.take_one(PATIENCE, reader.take)
        assert reader.log == ["first", "the parent's"]


# Signal handlers

FILES = ("transport/lending.py", "transport/tcp.py")


@pytest.mark.slow
@pytest.mark.plain_locks
@pytest.mark.parametrize("is_wanted", [True, False])
def test_an_interrupt_at_any_point_loses_nothing(is_wanted: bool, held: Held) -> None:
    """At worst what was taken is the reader's as well: an answer to a call that nobody waits for any more."""
    for point in every_point(more_than=20):
        held.hold()
        taken: list[str] = []

        def take(text: str, taken: list[str] = taken) -> bool:
            if is_wanted:
                taken.append(text)
            return is_wanted

        with lent() as (reader, far):
            far.send(far.text("second"))
            where = point.interrupt(
                lambda reader=reader, take=take: reader.pipe.take_one(PATIENCE, take), None, FILES
            )  # type: ignore[misc]
            held.release()
            far.send(far.text("third"))
            eventually(lambda reader=reader: reader.log[-1] == "third", PATIENCE, where or "")
            assert reader.log in (["first", "second", "third"], ["first", "third"]), where
            assert "second" in reader.log or taken == ["second"], where
        if where is None:
            assert reader.log == (["first", "third"] if is_wanted else ["first", "second", "third"])


@pytest.mark.slow
@pytest.mark.plain_locks
@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_signal_handler_at_any_point_keeps_the_reader_from_nothing(is_wanted: bool, held: Held) -> None:
    """It may wait for what only the reader can bring: a call of its own."""
    for point in every_point(more_than=20):
        held.hold()
        taken: list[str] = []
        with lent() as (reader, far):

            def take(text: str, taken: list[str] = taken) -> bool:
                if is_wanted:
                    taken.append(text)
                return is_wanted

            def handle(reader: Standing = reader, far: Raw = far) -> None:
                held.release()
                reader.pipe.call_reader()
                far.send(far.text("third"))
                eventually(lambda: reader.log[-1] == "third", PATIENCE)

            far.send(far.text("second"))
            where = point.interrupt(lambda reader=reader, take=take: reader.pipe.take_one(0.01, take), handle)  # type: ignore[misc]
            held.release()
            far.send(far.text("last"))
            eventually(lambda reader=reader: reader.log[-1] == "last", PATIENCE, where or "")
            log = [text for text in reader.log if text != "third"]
            assert log in (["first", "second", "last"], ["first", "last"]), where
            assert "second" in log or taken == ["second"], where
            assert reader.log.count("third") == (where is not None)


@pytest.mark.slow
@pytest.mark.plain_locks
def test_a_signal_handler_that_raises_a_timeout_breaks_nothing(held: Held) -> None:
    """As Python's own example of an alarm does: it is an OSError, but none of the connection's."""

    def handle() -> None:
        raise TimeoutError("the alarm")

    for point in every_point(more_than=20):
        held.hold()
        with lent() as (reader, far):
            far.send(far.text("second"))
            with contextlib.suppress(TimeoutError):
                point.interrupt(
                    lambda reader=reader: reader.pipe.take_one(0.01, lambda _: False), handle, FILES
                )  # type: ignore[misc]
            held.release()
            far.send(far.text("last"))
            at = point.where or ""
            eventually(lambda reader=reader: reader.log == ["first", "second", "last"], PATIENCE, at)


@pytest.mark.slow
@pytest.mark.plain_locks
def test_a_signal_handler_that_waits_for_another_thread_keeps_nobody_for_long(held: Held) -> None:
    """It does not know of the pipe; whom it waits for does: his answer is read within some milliseconds."""
    for point in every_point(more_than=20):
        held.hold()
        with lent() as (reader, far):

            def handle(reader: Standing = reader, far: Raw = far) -> None:
                held.release()
                far.send(far.text("third"))
                eventually(lambda: reader.log[-1] == "third", PATIENCE)

            far.send(far.text("second"))
            where = point.interrupt(
                lambda reader=reader: reader.pipe.take_one(0.01, reader.take), handle, FILES
            )  # type: ignore[misc]
            held.release()
            far.send(far.text("last"))
            eventually(lambda reader=reader: reader.log[-1] == "last", PATIENCE, where or "")
            assert "second" in reader.log, where


# Seats


def test_with_more_than_two_nobody_stands_by_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_BUSY", PATIENCE)
    seats = lending._Seats()  # noqa: SLF001
    assert seats.take()
    assert seats.take()
    assert not seats.is_busy
    assert not seats.take()
    seats.leave()
    assert seats.is_busy
    assert not seats.take()
    seats._busy_until -= PATIENCE  # noqa: SLF001  # the moment has passed
    assert seats.take()


def test_a_reader_that_another_one_would_join_goes_on(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.hold()
    monkeypatch.setattr(lending, "_BUSY", PATIENCE)
    with contextlib.ExitStack() as stack:
        two = [stack.enter_context(lent()) for _ in range(2)]
        waiting = [in_thread(reader.pipe.take_one, PATIENCE, reader.take) for reader, _ in two]
        eventually(lambda: all(reader.pipe._loan.waiting.locked() for reader, _ in two), PATIENCE)  # type: ignore[union-attr]  # noqa: SLF001
        pipe, far = stack.enter_context(open_raw())
        third = Standing(pipe)
        far.send(far.text("x"))
        eventually(lambda: third.times, PATIENCE)
        eventually(lambda: not any(is_lent(reader.pipe) for reader, _ in two), PATIENCE)
        assert not any(taking.result(PATIENCE) for taking in waiting)
        pipe.abort(ConnectionLost("over"))
        third.ended()


def test_the_main_thread_reads_no_stream_that_may_lose_what_it_has_read() -> None:
    class Loses(TcpStream):
        lends_to_main = False

    ours, theirs = socket.socketpair()
    far = Raw(theirs)
    reader = Standing(make_pipe(Loses(SocketGuard(ours)), SystemClock()))
    far.send(far.text("first"))
    eventually(lambda: reader.log, PATIENCE)
    assert not reader.pipe.take_one(0.01, reader.take)
    far.send(far.text("second"))
    in_thread(lambda: reader.pipe.take_one(0.01, reader.take)).result(PATIENCE)
    eventually(lambda: reader.log == ["first", "second"], PATIENCE)
    theirs.close()
    reader.ended()


# All at once


def test_stress_every_message_is_read_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    near, far = socket_pair(SystemClock())
    reader = Standing(near)
    count = 2000
    is_over = threading.Event()

    def borrow(chance: random.Random) -> None:
        while not is_over.is_set():
            if not near.take_one(
                chance.choice([0, 0.001, 0.01]), lambda text: chance.random() < 0.8 and reader.take(text)
            ):
                is_over.wait(0.0005)

    borrowers = [in_thread(borrow, random.Random(chance.random())) for _ in range(3)]
    numbers = iter(range(count))
    while batch := list(itertools.islice(numbers, chance.choice([1, 1, 1, 2, 5]))):
        far.send(
            [str(number) if chance.random() < 0.8 else str(number).encode() for number in batch], PATIENCE
        )
        if chance.random() < 0.3:
            eventually(lambda last=batch[-1]: reader.log and int(reader.log[-1]) == last, PATIENCE)  # type: ignore[misc]
    eventually(lambda: len(reader.log) >= count, PATIENCE)
    is_over.set()
    for borrower in borrowers:
        borrower.result(PATIENCE)
    assert [int(message) for message in reader.log] == list(range(count))
    far.abort(ConnectionLost("over"))
    assert reader.ended()
    far.dispose()
