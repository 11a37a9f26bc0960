"""The reading half of a pipe: blocking and ready reading bring the same, and only signs of life count as life."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.clock import Deadline, SystemClock
from connman.errors import ConnectionClosed, ConnectionLost, ConnmanError, ProtocolError, WaitTimeout
from connman.records import Message
from connman.testing import FakeClock
from connman.transport.deflate import _BATCH
from connman.transport.pipe import Pipe
from connman.transport.receiving import Receiving
from connman.transport.sockets import READABLE, poll_ready
from tests.examples import examples
from tests.transport.pipes import LIMIT, PATIENCE, Raw, open_pair, open_raw
from tests.waiting import eventually


def read_ready(pipe: Pipe) -> tuple[list[Message], ConnmanError | None]:
    """Read as a shared reader does until an end comes or nothing more is there."""
    messages: list[Message] = []
    while True:
        before = pipe.bytes_in
        some, end = pipe.receive_ready()
        messages += some
        if end is not None or not (some or pipe.rest or pipe.bytes_in > before):
            return messages, end


@pytest.fixture
def raw() -> Iterator[tuple[Pipe, Raw]]:
    with open_raw() as pair:
        yield pair


def ready(pipe: Pipe) -> Pipe:
    assert poll_ready(pipe.fileno(), READABLE, PATIENCE)
    return pipe


# Ready reading


def test_nothing_there_is_no_end(raw: tuple[Pipe, Raw]) -> None:
    pipe, _ = raw
    assert pipe.receive_ready() == ([], None)
    assert pipe.reads_when == READABLE
    assert pipe.fileno() >= 0


def test_all_that_one_read_brings_comes_at_once(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("a"), far.text("b"), far.text("c")[:2])
    assert ready(pipe).receive_ready() == (["a", "b"], None)
    far.send(far.text("c")[2:])
    assert ready(pipe).receive_ready() == (["c"], None)


def test_an_end_behind_messages_comes_with_the_next_look(raw: tuple[Pipe, Raw]) -> None:
    """It came with them, its answer already sent: what the messages' callback had to say could not go out any more."""
    pipe, far = raw
    far.send(far.text("last"), far.close_frame(1001))
    assert ready(pipe).receive_ready() == (["last"], None)
    assert pipe.has_end
    pipe.send(["answer"], PATIENCE)
    messages, end = pipe.receive_ready()
    assert (messages, pipe.has_end) == ([], False)
    assert isinstance(end, ConnectionClosed)
    assert end.code == 1001
    assert pipe.receive_ready() == ([], end)
    assert far.rest() == [(1, b"answer"), (8, (1001).to_bytes(2))]


def test_blocking_an_end_behind_messages_is_answered_by_the_next_call(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("last"), far.ping(b"in time"), b"\xff\xff")
    assert pipe.receive(Deadline.after(SystemClock(), PATIENCE)) == ["last"]
    pipe.send(["answer"], PATIENCE)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            pipe.receive()
    assert far.rest() == [(1, b"answer"), (10, b"in time"), (8, (1002).to_bytes(2))]


def test_an_end_counts_more_than_what_broke_on_the_way_to_it(raw: tuple[Pipe, Raw]) -> None:
    """The answer to the last message finds a peer that is gone: it had closed in order all the same."""
    pipe, far = raw
    far.send(far.text("last"), far.close_frame(1001))
    far.sock.close()
    assert ready(pipe).receive_ready() == (["last"], None)
    with pytest.raises(ConnectionLost):
        pipe.send(["answer"], PATIENCE)
    messages, end = pipe.receive_ready()
    assert messages == []
    assert isinstance(end, ConnectionClosed)
    assert end.code == 1001


def test_the_end_of_file_is_a_loss(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.sock.shutdown(socket.SHUT_WR)
    messages, end = ready(pipe).receive_ready()
    assert messages == []
    assert isinstance(end, ConnectionLost)


def test_a_reset_is_a_loss_with_its_cause(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    pipe.send(["unread"], PATIENCE)
    far.sock.close()  # over unread data: a reset
    _, end = ready(pipe).receive_ready()
    assert isinstance(end, ConnectionLost)
    assert isinstance(end.__cause__, OSError)
    assert pipe.error is end


def test_a_violation_is_told_and_ends_it(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("good"), b"\xff\xff")
    assert ready(pipe).receive_ready() == (["good"], None)
    messages, end = pipe.receive_ready()
    assert messages == []
    assert isinstance(end, ProtocolError)
    assert pipe.is_slow_to_dispose  # the peer must read our close first
    assert far.next_frame() == (8, (1002).to_bytes(2))


def test_an_abort_ends_what_is_read(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("dropped"))
    told: list[bool] = []
    pipe.on_abort = lambda: told.append(True)
    why = ConnectionLost("not wanted")
    pipe.abort(why)
    assert told == [True]
    assert poll_ready(pipe.fileno(), READABLE, PATIENCE)
    assert read_ready(pipe) == ([], why)


def test_what_came_with_the_upgrade_is_first() -> None:
    with open_raw(leftover=b"\x81\x01a\x81\x01") as (pipe, far):
        assert pipe.rest
        assert pipe.receive_ready() == (["a"], None)
        far.send(b"b")
        assert ready(pipe).receive_ready() == (["b"], None)
        assert pipe.bytes_in == 6


def test_a_pipe_without_a_descriptor_tells_of_what_comes() -> None:
    with open_pair("memory") as (near, far):
        told: list[bool] = []
        assert near.fileno() == -1
        near.watch(lambda: told.append(True))
        first = len(told)  # at once, as there may be something now
        assert first == 1
        far.send(["a"], PATIENCE)
        assert len(told) > first
        assert read_ready(near) == (["a"], None)


@pytest.mark.parametrize("kind", ["memory", "socket"])
@examples(30)
@given(sizes=st.lists(st.integers(0, 3000), max_size=12))
def test_both_ways_of_reading_bring_the_same(kind: str, sizes: list[int]) -> None:
    messages: list[Message] = ["x" * size for size in sizes]
    for is_blocking in (True, False):
        with open_pair(kind) as (near, far):
            far.send(messages or ["only"], PATIENCE)
            far.close(1000, "", PATIENCE)
            got: list[Message] = []
            end: ConnmanError | None = None
            while end is None:
                if is_blocking:
                    try:
                        got += near.receive(Deadline.after(SystemClock(), PATIENCE))
                    except ConnectionClosed as closed:
                        end = closed
                else:
                    some, end = near.receive_ready()
                    got += some
            assert got == (messages or ["only"])
            assert isinstance(end, ConnectionClosed)


# Blocking reading


def test_a_deadline_ends_the_wait_only(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    with pytest.raises(WaitTimeout):
        pipe.receive(Deadline.after(SystemClock(), 0))
    assert pipe.error is None
    assert not pipe.reading
    far.send(far.text("later"))
    assert pipe.receive() == ["later"]


# Signs of life


def life_of(pipe: Receiving, clock: FakeClock) -> float:
    """Return how long ago the last sign was."""
    return clock.now() - pipe.life


def test_a_whole_frame_is_life_and_a_few_bytes_are_not() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        pipe.progress.window = 5.0
        clock.advance(10)
        far.send(b"\x82\x7e\xff\xff" + b"x" * 100)
        ready(pipe).receive_ready()
        assert life_of(pipe, clock) == 10
        far.send(b"x" * 2000)
        eventually(lambda: pipe.receive_ready() and pipe.bytes_in == 2104)
        assert life_of(pipe, clock) == 0
        clock.advance(10)
        far.send(b"x" * (65535 - 2100))
        eventually(lambda: pipe.receive_ready()[0])
        assert life_of(pipe, clock) == 0


def test_the_newest_pong_measures_the_round_trip() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        pipe.ping()
        payload = far.next_frame()[1]
        clock.advance(0.25)
        far.send(far.pong(b"another"), far.pong(payload))
        ready(pipe).receive_ready()
        assert pipe.ping_rtt == 0.25


# Pieces, and other processes


def test_a_piece_without_a_message_leaves_a_rest() -> None:
    """A message that is unpacked in pieces: nothing is whole yet, and all of it has arrived."""
    assert _BATCH < LIMIT

    class InPieces:
        """Give out a message when it was fed three times."""

        end = pong = None
        frames = 0
        replies = ()
        rest = b""
        is_ordered = False

        def feed(self, chunk: bytes) -> list[Message]:
            self.rest = chunk[:-1]
            return [] if self.rest else ["whole"]

        def encode_ping(self, _: bytes) -> None:
            return None

    class Chunk:
        reads_when = READABLE

        def __init__(self) -> None:
            self._chunks = [b"xyz"]

        def recv_some(self) -> bytes | None:
            return self._chunks.pop() if self._chunks else None

    codec: Any = InPieces()
    stream: Any = Chunk()
    pipe = Pipe("test", stream, codec, FakeClock())
    assert pipe.receive_ready() == ([], None)
    assert pipe.rest
    assert pipe.receive_ready() == ([], None)
    assert pipe.receive_ready() == (["whole"], None)
    assert not pipe.rest
    assert pipe.receive_ready() == ([], None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_does_not_read_its_parents_pipe(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("the parent's"))
    ready(pipe)
    pid = os.fork()
    if pid == 0:
        try:
            pipe.receive()
        except ConnectionLost:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert pipe.receive() == ["the parent's"]
