"""The pipe: one reader, many senders, control frames between messages, and every way to end."""

import itertools
import linecache
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from connman.clock import Deadline, SystemClock
from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    NotConnected,
    PingTimeout,
    ProtocolError,
    SendTimeout,
    WaitTimeout,
)
from connman.testing import FakeClock
from connman.transport.deflate import DeflateCodec
from connman.transport.extensions import Deflate
from connman.transport.framing import RawCodec
from connman.transport.memory import memory_pair
from connman.transport.pipe import Pipe
from connman.transport.sockets import SocketGuard
from connman.transport.stream import Stream
from connman.transport.tcp import TcpStream
from tests.interrupts import every_point, within
from tests.loopback import in_thread
from tests.transport.pipes import (
    CAPACITY,
    LIMIT,
    PATIENCE,
    Pair,
    Raw,
    Reader,
    make_pipe,
    open_pair,
    open_raw,
    patient,
    wait_until_full,
    wait_until_sending,
)
from tests.waiting import eventually

KINDS = ["memory", "socket"]
BIG = "x" * (4 * CAPACITY)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with open_pair(request.param) as opened:
        yield opened


@pytest.fixture
def raw() -> Iterator[tuple[Pipe, Raw]]:
    with open_raw() as opened:
        yield opened


def receive_all(pipe: Pipe, count: int) -> list[object]:
    messages: list[object] = []
    while len(messages) < count:
        messages += pipe.receive(patient())
    return messages


def ended(pipe: Pipe) -> ConnmanError:
    with pytest.raises(ConnmanError) as caught:
        pipe.receive(patient())
    assert not isinstance(caught.value, WaitTimeout)
    return caught.value


# Messages


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    batch = ["text", b"binary", "", b"", "ü\0", bytearray(b"array"), memoryview(b"view")]
    pair.near.send(batch, 1)  # type: ignore[arg-type]
    assert receive_all(pair.far, 7) == ["text", b"binary", "", b"", "ü\0", b"array", b"view"]
    pair.far.send(["back"], 1)
    assert receive_all(pair.near, 1) == ["back"]


def test_what_arrived_together_is_received_together() -> None:
    near, far = memory_pair(SystemClock(), LIMIT)
    near.send([str(number) for number in range(1000)], 1)
    near.send(["one more"], 1)
    assert far.receive(patient()) == [*map(str, range(1000)), "one more"]
    near.dispose()
    far.dispose()


def test_a_message_larger_than_every_buffer_passes(pair: Pair) -> None:
    sender = in_thread(pair.near.send, [BIG, "after"], PATIENCE)
    assert receive_all(pair.far, 2) == [BIG, "after"]
    sender.result(PATIENCE)


def test_counters_tell_what_crossed_the_wire(pair: Pair) -> None:
    pair.near.send(["abc", b"de"], 1)
    receive_all(pair.far, 2)
    assert (pair.near.bytes_out, pair.near.messages_out) == (9, 2)
    assert (pair.far.bytes_in, pair.far.messages_out) == (9, 0)


@pytest.mark.parametrize("bad", [["ok", "\ud800"], ["ok", 5], [None], [["x"]]])
def test_a_message_that_cannot_be_sent_sends_nothing(pair: Pair, bad: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)):
        pair.near.send(bad, 1)
    pair.near.send(["next"], 1)
    assert receive_all(pair.far, 1) == ["next"]


def test_a_receive_that_times_out_changes_nothing(pair: Pair) -> None:
    with pytest.raises(WaitTimeout):
        pair.far.receive(Deadline.after(SystemClock(), 0.01))
    pair.near.send(["late"], 1)
    assert receive_all(pair.far, 1) == ["late"]


def test_what_came_with_the_upgrade_is_received_first() -> None:
    with open_raw(leftover=b"\x81\x05first\x81\x06sec") as (pipe, raw):
        assert pipe.receive(patient()) == ["first"]
        raw.send(b"ond")
        assert pipe.receive(patient()) == ["second"]
        assert pipe.bytes_in == 15


# The orderly end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", [0, 1])
def test_a_close_is_answered_and_seen_at_both_ends(kind: str, direction: int) -> None:
    with open_pair(kind) as pipes:
        closer, other = pipes[direction], pipes[1 - direction]
        closer.close(4001, "why", PATIENCE)
        answered = Reader(other).ended()
        mine = ended(closer)
        for error in (answered, mine):
            assert isinstance(error, ConnectionClosed)
            assert error.code == 4001
        # The answer repeats the code, not the reason.
        assert isinstance(answered, ConnectionClosed)
        assert answered.reason == "why"


def test_both_ends_may_close_at_once(pair: Pair) -> None:
    pair.near.close(4001, "", PATIENCE)
    pair.far.close(4002, "", PATIENCE)
    codes = [getattr(Reader(pipe).ended(), "code", None) for pipe in pair]
    assert codes == [4002, 4001]


def test_only_the_first_close_counts(pair: Pair) -> None:
    for code in (4001, 4002, 4003):
        pair.near.close(code, "", PATIENCE)
    assert getattr(ended(pair.far), "code", None) == 4001
    pair.far.close(4004, "", PATIENCE)
    assert getattr(ended(pair.near), "code", None) == 4001


@pytest.mark.parametrize("end", ["close", "abort", "dispose", "peer"])
def test_nothing_can_be_sent_once_the_end_began(pair: Pair, end: str) -> None:
    if end == "close":
        pair.near.close(1000, "", PATIENCE)
    elif end == "abort":
        pair.near.abort(ConnectionLost("x"))
    elif end == "dispose":
        pair.near.dispose()
    else:
        pair.far.close(1000, "", PATIENCE)
        ended(pair.near)
    with pytest.raises(NotConnected):
        pair.near.send(["x"], 1)
    assert pair.near.messages_out == 0


def test_no_close_waits_for_the_network_or_a_sender(pair: Pair) -> None:
    sender = in_thread(pair.near.send, [BIG], PATIENCE)
    wait_until_sending()
    pair.near.close(1000, "", PATIENCE)
    pair.near.ping()
    assert receive_all(pair.far, 1) == [BIG]
    sender.result(PATIENCE)
    assert isinstance(ended(pair.far), ConnectionClosed)
    assert isinstance(ended(pair.near), ConnectionClosed)


def test_senders_that_were_accepted_finish_before_the_close() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    sent: list[str] = []

    def send(message: str) -> None:
        near.send([message], 1000)
        sent.append(message)

    threads = [threading.Thread(target=send, args=(message,)) for message in (BIG, "one", "two", "three")]
    threads[0].start()
    clock.wait_until_waiting()
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        eventually(lambda count=count: near._accepted == count)  # type: ignore[misc]  # noqa: SLF001
    near.close(4001, "", 1000)
    with pytest.raises(NotConnected):
        near.send(["too late"], 1)
    reader = Reader(far)
    for thread in threads:
        thread.join(PATIENCE)
    assert getattr(reader.ended(), "code", None) == 4001
    assert reader.messages[0] == BIG
    assert sorted(map(str, reader.messages)) == sorted(sent) == sorted([BIG, "one", "two", "three"])
    assert getattr(ended(near), "code", None) == 4001
    near.dispose()


def test_a_peer_that_never_answers_is_waited_for_until_the_timeout() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, raw):
        reader = Reader(pipe)
        pipe.close(4001, "bye", 5)
        assert raw.next_frame() == (CLOSE, b"\x0f\xa1bye")
        clock.advance(4)
        assert reader.error is None
        clock.advance(1)
        error = reader.ended()
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (4001, "bye")


def test_a_peer_that_never_reads_is_waited_for_until_the_timeout() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    reader = Reader(near)
    sender = in_thread(near.send, [BIG], 1000)
    clock.wait_until_waiting()
    near.close(4001, "", 5)
    clock.advance(5)
    assert getattr(reader.ended(), "code", None) == 4001
    assert isinstance(sender.exception(PATIENCE), ConnectionLost)
    far.dispose()


def test_a_finished_close_leaves_no_timer() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, raw):
        pipe.close(1000, "", 1000)
        raw.next_frame()
        raw.send(raw.close_frame())
        assert isinstance(ended(pipe), ConnectionClosed)
        pipe.dispose()
        assert clock.pending == 0


def test_a_close_in_vain_leaves_no_timer() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    near.abort(ConnectionLost("x"))
    near.close(1000, "", 1000)
    assert clock.pending == 0
    near.dispose()
    far.dispose()


def fill(pipe: Pipe, room: int = 0) -> None:
    """Send one message that leaves ``room`` bytes of a memory lane."""
    pipe.send([b"x" * (CAPACITY - 10 - room)], 1)


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_close_that_the_network_did_not_take_at_once_still_goes_out(room: int) -> None:
    # It was kept for later, and then nobody sent it: the peer, reading again, waited in vain.
    with open_pair("memory") as pipes:
        fill(pipes.near, room)
        pipes.near.close(4001, "", PATIENCE)
        receive_all(pipes.far, 1)
        assert getattr(ended(pipes.far), "code", None) == 4001


def test_a_close_that_the_network_takes_at_no_first_try_is_tried_again_and_again() -> None:
    """Planted: a pipe that forgets that its first try is over makes no second one."""
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    fill(near)
    near.close(4001, "", 1000)
    for _ in range(5):
        clock.advance(0.1)
    receive_all(far, 1)
    clock.advance(0.1)
    assert getattr(ended(far), "code", None) == 4001
    near.dispose()


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_pong_that_the_network_did_not_take_at_once_still_goes_out(room: int) -> None:
    with open_pair("memory") as pipes:
        near = Reader(pipes.near)
        fill(pipes.near, room)
        pipes.far.ping()
        pipes.far.send(["behind the ping"], 1)
        near.wait_for(1)
        far = Reader(pipes.far)
        eventually(lambda: pipes.far.ping_rtt is not None)
        pipes.near.close(1000, "", PATIENCE)
        near.ended()
        far.ended()


def test_after_our_close_nothing_follows(raw: tuple[Pipe, Raw]) -> None:
    """RFC 6455 5.5.1: neither pongs nor pings of ours, whatever the peer still sends."""
    pipe, far = raw
    reader = Reader(pipe)
    pipe.close(1000, "", PATIENCE)
    pipe.ping()
    far.send(far.ping(b"a"), far.text("still here"), far.ping(b"b"))
    assert reader.wait_for(1) == ["still here"]
    pipe.ping()
    far.send(far.close_frame(1000))
    assert isinstance(reader.ended(), ConnectionClosed)
    assert far.rest() == [(CLOSE, b"\x03\xe8")]


def test_after_the_answer_to_the_peers_close_nothing_follows() -> None:
    """A sender that waited for its turn meanwhile is told, and sends nothing."""
    clock = FakeClock()
    ours, theirs = socket.socketpair()
    pipe, far = make_pipe(TcpStream(SocketGuard(ours)), clock), Raw(theirs)
    first = in_thread(pipe.send, [BIG * 4], 1000)
    wait_until_full(ours)
    second = in_thread(pipe.send, ["second"], PATIENCE)
    far.send(far.text("hello"), far.close_frame(4001))
    assert pipe.receive(patient()) == ["hello"]
    assert getattr(ended(pipe), "code", None) == 4001
    frames = [far.next_frame()]
    assert (frames[0][0], len(frames[0][1])) == (TEXT, len(BIG * 4))
    first.result(PATIENCE)
    second.exception(PATIENCE)
    # There is room now: should the answer not have found any, it goes out before this is refused.
    with pytest.raises(NotConnected):
        pipe.send(["third"], 1)
    frames.append(far.next_frame())
    if frames[1][0] == TEXT:  # it was its turn before the answer's
        second.result(PATIENCE)
        frames[1] = far.next_frame()
    else:
        assert isinstance(second.exception(PATIENCE), NotConnected)
    assert frames[1] == (CLOSE, b"\x0f\xa1")
    assert far.rest() == []
    pipe.dispose()
    theirs.close()


def test_what_came_before_the_close_is_received_before_the_error(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("one"), far.text("two"), far.close_frame(4001))
    assert pipe.receive(patient()) == ["one", "two"]
    for _ in range(2):
        assert getattr(ended(pipe), "code", None) == 4001


def test_what_came_before_a_violation_is_received_before_the_error(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("one"), b"\xff\xff")
    far.sock.shutdown(socket.SHUT_WR)
    assert pipe.receive(patient()) == ["one"]
    assert isinstance(ended(pipe), ProtocolError)
    assert far.next_frame() == (CLOSE, b"\x03\xea")
    assert far.next_frame() == (-1, b"")


def test_what_came_before_the_end_of_file_is_received_before_the_error(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("one"))
    far.sock.shutdown(socket.SHUT_WR)
    assert pipe.receive(patient()) == ["one"]
    assert isinstance(ended(pipe), ConnectionLost)


def test_a_peer_that_broke_the_rules_can_finish_and_read_why() -> None:
    """Closing over what it still sends would reset it, and it may never see our close frame."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), PATIENCE)
        ours, _ = listener.accept()
    pipe, far = make_pipe(TcpStream(SocketGuard(ours)), FakeClock()), Raw(theirs)
    reader = Reader(pipe)
    far.send(b"\xff\xff" + bytes(16_000_000))
    theirs.shutdown(socket.SHUT_WR)
    assert isinstance(reader.ended(), ProtocolError)
    assert far.rest() == [(CLOSE, b"\x03\xea")]
    theirs.close()


def test_a_peer_that_broke_the_rules_and_never_finishes_is_left() -> None:
    with open_raw() as (pipe, far):
        reader = Reader(pipe)
        far.send(b"\xff\xff")
        assert isinstance(reader.ended(), ProtocolError)
        disposing = in_thread(pipe.dispose)
        assert far.rest() == [(CLOSE, b"\x03\xea")]
        disposing.result(PATIENCE)


def test_a_pipe_without_close_frames_ends_by_the_end_of_file() -> None:
    ours, theirs = socket.socketpair()
    pipe = Pipe("tcp", TcpStream(SocketGuard(ours)), RawCodec(LIMIT), SystemClock())
    assert not pipe.can_ping
    assert not pipe.ping()
    pipe.send([b"last"], 1)
    pipe.close(1000, "", PATIENCE)
    assert theirs.recv(100) == b"last"
    assert theirs.recv(100) == b""
    theirs.sendall(b"answer")
    theirs.close()
    assert pipe.receive(patient()) == [b"answer"]
    assert isinstance(ended(pipe), ConnectionClosed)
    pipe.dispose()


# The sudden end


def test_abort_wakes_the_reader_with_the_first_error(pair: Pair) -> None:
    reader = Reader(pair.near)
    eventually(lambda: pair.near.reading)
    error = PingTimeout("silence")
    pair.near.abort(error)
    pair.near.abort(ConnectionLost("later"))
    assert reader.ended() is error
    assert isinstance(ended(pair.far), ConnectionLost)


def test_abort_wakes_all_senders(pair: Pair) -> None:
    senders = [in_thread(pair.near.send, [BIG * 4], PATIENCE) for _ in range(3)]
    eventually(lambda: all(not sender.done() for sender in senders))
    pair.near.abort(PingTimeout("silence"))
    for sender in senders:
        error = sender.exception(PATIENCE)
        assert isinstance(error, ConnectionLost | NotConnected)
        assert not isinstance(error, ConnectionLost) or str(error) == "silence"


def test_abort_counts_more_than_the_end_of_file(pair: Pair) -> None:
    pair.far.dispose()
    error = PingTimeout("silence")
    pair.near.abort(error)
    assert ended(pair.near) is error


def test_abort_drops_what_was_not_received(pair: Pair) -> None:
    pair.far.send(["unread"], 1)
    error = PingTimeout("silence")
    pair.near.abort(error)
    assert ended(pair.near) is error


def test_what_the_peer_said_counts_more_than_a_later_abort(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.text("x"), far.close_frame(4001))
    assert pipe.receive(patient()) == ["x"]
    pipe.abort(PingTimeout("silence"))
    assert getattr(ended(pipe), "code", None) == 4001


def test_an_end_stays_the_same(pair: Pair) -> None:
    pair.far.dispose()
    first = ended(pair.near)
    pair.near.abort(PingTimeout("late"))
    assert ended(pair.near) is first
    assert ended(pair.near) is first
    pair.near.dispose()
    pair.near.dispose()


def test_the_end_of_file_wakes_a_sender(pair: Pair) -> None:
    sender = in_thread(pair.near.send, [BIG * 4], PATIENCE)
    pair.far.dispose()
    assert isinstance(sender.exception(PATIENCE), ConnectionLost)


# Sends that fail


def test_a_send_out_of_time_ends_the_pipe_and_tells_how_many_were_whole() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    reader = Reader(near)
    sender = in_thread(near.send, [bytes(100_000)] * 10, 5)
    clock.wait_until_waiting()
    clock.advance(5)
    error = sender.exception(PATIENCE)
    assert isinstance(error, SendTimeout)
    assert (error.sent, near.messages_out, near.bytes_out) == (2, 2, CAPACITY)
    assert reader.ended() is error
    assert receive_all(far, 2) == [bytes(100_000)] * 2
    assert isinstance(ended(far), ConnectionLost)
    far.dispose()


def test_a_send_that_breaks_tells_how_many_were_whole() -> None:
    # It told 0, whatever had gone out.
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    sender = in_thread(near.send, [bytes(100_000)] * 10, 5)
    clock.wait_until_waiting()
    near.abort(PingTimeout("silence"))
    error = sender.exception(PATIENCE)
    assert isinstance(error, ConnectionLost)
    assert (error.sent, near.messages_out, near.bytes_out) == (2, 2, CAPACITY)
    near.dispose()
    far.dispose()


def test_bytes_of_a_ping_before_a_message_are_not_counted_as_messages() -> None:
    # It told that -1 messages were sent.
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    fill(near, 3)
    near.ping()
    sender = in_thread(near.send, ["x"], 5)
    clock.wait_until_waiting()
    clock.advance(5)
    error = sender.exception(PATIENCE)
    assert isinstance(error, SendTimeout)
    assert (error.sent, near.messages_out) == (0, 1)
    near.dispose()
    far.dispose()


def test_a_send_that_never_had_its_turn_ends_nothing() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    first = in_thread(near.send, [BIG], 1000)
    clock.wait_until_waiting()
    with pytest.raises(SendTimeout, match="not begun") as caught:
        near.send(["second"], 0.01)
    assert caught.value.sent == 0
    assert receive_all(far, 1) == [BIG]
    first.result(PATIENCE)
    near.send(["third"], 1)
    assert receive_all(far, 1) == ["third"]
    near.dispose()
    far.dispose()


# Messages that depend on those before them


def deflate_pair() -> tuple[socket.socket, Pipe, Pipe]:
    """Return two pipes, behind the socket of the first."""
    ours, theirs = socket.socketpair()
    near, far = (
        Pipe("test", TcpStream(SocketGuard(sock)), DeflateCodec(LIMIT, Deflate(), mask=False), SystemClock())
        for sock in (ours, theirs)
    )
    return ours, near, far


def test_compressed_messages_of_many_threads_leave_in_the_order_of_their_compression() -> None:
    _, near, far = deflate_pair()
    reader = Reader(far)
    barrier = threading.Barrier(6)

    def work(name: str) -> None:
        barrier.wait()
        for number in range(400):
            near.send([f"{name} {number} " + name * 40, f"{name} {number} again, {name * 30}"], PATIENCE)

    workers = [in_thread(work, name) for name in "abcdef"]
    for worker in workers:
        worker.result(PATIENCE)
    got = [str(message) for message in reader.wait_for(6 * 800)]
    for name in "abcdef":
        numbers = [message.split()[1] for message in got if message.startswith(name)]
        assert numbers == [str(number) for number in range(400) for _ in "12"]
    near.close(1000, "", PATIENCE)
    assert isinstance(ended(near), ConnectionClosed)
    assert isinstance(reader.ended(), ConnectionClosed)
    near.dispose()


def test_a_compressed_message_that_never_had_its_turn_is_not_referred_to() -> None:
    noise = random.Random(1).randbytes(4 * CAPACITY)
    sock, near, far = deflate_pair()
    with pytest.raises(TypeError):
        near.send(["what is refused " * 10, 5], 1)  # type: ignore[list-item]
    first = in_thread(near.send, [noise], 1000)
    wait_until_full(sock)
    with pytest.raises(SendTimeout, match="not begun"):
        near.send(["what waits in vain " * 10], 0.01)
    assert receive_all(far, 1) == [noise]
    first.result(PATIENCE)
    messages = ["what waits in vain " * 10, "what is refused " * 10]
    near.send(messages, PATIENCE)
    assert receive_all(far, 2) == messages
    near.dispose()
    far.dispose()


def test_messages_that_inflate_to_too_much_at_once_are_received_one_after_the_other() -> None:
    _, near, far = deflate_pair()
    messages = [bytes([number]) * 3_000_000 for number in range(8)]
    near.send([*messages, "last"], PATIENCE)
    near.close(1000, "", PATIENCE)
    batches = [far.receive(patient()) for _ in range(8)]
    assert batches == [[message] for message in messages]
    assert far.receive(patient()) == ["last"]
    assert far.bytes_in == near.bytes_out
    assert isinstance(ended(far), ConnectionClosed)
    near.dispose()
    far.dispose()


def test_an_abort_drops_what_is_not_inflated_yet() -> None:
    _, near, far = deflate_pair()
    near.send([bytes(3_000_000)] * 8, PATIENCE)
    assert len(far.receive(patient())) == 1
    far.abort(PingTimeout("silence"))
    assert isinstance(ended(far), PingTimeout)
    near.dispose()
    far.dispose()


class Interrupted(BaseException):
    """What a signal handler raises, as Ctrl-C and a worker's time limit do."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_send_that_a_signal_interrupts_ends_the_pipe(kind: str) -> None:
    # Half a message stayed on the wire, and the next one followed in its middle.
    clock, main, was_hit = FakeClock(), threading.get_ident(), threading.Event()
    ours, theirs = socket.socketpair()
    near, far = memory_pair(clock, LIMIT)
    pipe = near if kind == "memory" else make_pipe(TcpStream(SocketGuard(ours)), clock)

    def handler(*_: object) -> None:
        if not was_hit.is_set():
            was_hit.set()
            raise Interrupted

    def interrupt() -> None:
        if kind == "memory":
            clock.wait_until_waiting()
        else:
            wait_until_sending()
        # Again and again: one that comes just before the wait is handled only after it.
        while not was_hit.wait(0.005):
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    interrupter = in_thread(interrupt)
    try:
        with pytest.raises(Interrupted):
            pipe.send(["small", BIG], 1000)
        interrupter.result(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert pipe.messages_out == 1
    with pytest.raises(NotConnected):
        pipe.send(["next"], 1)
    assert isinstance(ended(pipe), ConnectionLost)
    for end in (near, far, pipe):
        end.dispose()
    ours.close()
    theirs.close()


class NoTimers(SystemClock):
    """Time without timers, as at the interpreter's end: those that an interrupt leaves would outlive the test."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> NoReturn:
        raise RuntimeError("no timers")


FILES = ("transport/pipe.py", "transport/sending.py", "transport/tcp.py", "connman/threads.py")


def is_behind_sending(where: str | None) -> bool:
    """Whether a call was interrupted behind the system's sending: nobody knows then whether it has taken the frame."""
    path, _, line = (where or "").partition(" ")[0].rpartition(":")
    return bool(path) and re.search(r"\bsend(_some)?\(", linecache.getline(path, int(line))) is not None


@pytest.mark.plain_locks
@pytest.mark.parametrize("is_ping_queued", [False, True])
def test_a_close_that_is_interrupted_at_any_point_goes_out_with_the_next(is_ping_queued: bool) -> None:
    # First seen failing: noted and never sent, for who came next took it for sent; taken from the queue and lost; queued once
    # more; and the lock for sending stayed taken by a thread that had left.
    for point in every_point():
        with open_raw(NoTimers()) as (pipe, far):
            if is_ping_queued:
                with pipe._send_lock:  # noqa: SLF001
                    pipe.ping()
            where = point.interrupt(lambda pipe=pipe: pipe.close(1000, "", PATIENCE), files=FILES)  # type: ignore[misc]
            within(lambda pipe=pipe: pipe.close(1001, "", PATIENCE), f"close() after {where}")  # type: ignore[misc]
            pipe.abort(NotConnected("the end of the test"))
            frames = far.rest()
            if is_behind_sending(where):
                frames = [frame for frame, _ in itertools.groupby(frames)]
            assert [opcode for opcode, _ in frames] == [PING] * is_ping_queued + [CLOSE], where
            assert frames[-1][1] in (b"\x03\xe8", b"\x03\xe9"), where


@pytest.mark.plain_locks
def test_an_end_without_a_close_frame_that_is_interrupted_at_any_point_is_told_with_the_next() -> None:
    # First seen failing: of bytes alone the end is the goodbye, and it was taken from the queue and lost.
    for point in every_point():
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.settimeout(PATIENCE)
            pipe = Pipe("test", TcpStream(SocketGuard(ours)), RawCodec(LIMIT), NoTimers())
            where = point.interrupt(lambda pipe=pipe: pipe.close(1000, "", PATIENCE), files=FILES)  # type: ignore[misc]
            within(lambda pipe=pipe: pipe.close(1001, "", PATIENCE), f"close() after {where}")  # type: ignore[misc]
            assert theirs.recv(1) == b"", where
            pipe.dispose()


# Control frames


def test_a_pong_gives_the_round_trip_time() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        assert pipe.ping_rtt is None
        assert pipe.ping()
        opcode, payload = far.next_frame()
        assert opcode == PING
        clock.advance(2)
        # Also when a message comes with it, whose callback may take its time.
        far.send(far.pong(payload), far.text("x"))
        assert pipe.receive(patient()) == ["x"]
        assert pipe.ping_rtt == 2


def test_only_the_pong_of_the_newest_ping_counts() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        pipe.ping()
        pipe.ping()
        _, first = far.next_frame()
        _, second = far.next_frame()
        assert first != second
        far.send(far.pong(first), far.pong(b"unasked"), far.text("x"))
        assert pipe.receive(patient()) == ["x"]
        assert pipe.ping_rtt is None


def test_pings_are_answered_in_order(raw: tuple[Pipe, Raw]) -> None:
    pipe, far = raw
    far.send(far.ping(b"1"), far.ping(b"2"), far.text("x"), far.ping(b"3"), far.text("y"))
    assert receive_all(pipe, 2) == ["x", "y"]
    assert [far.next_frame() for _ in range(3)] == [(PONG, b"1"), (PONG, b"2"), (PONG, b"3")]


def test_control_frames_wait_for_a_message_and_go_before_the_next() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    near_reader = Reader(near)
    sender = in_thread(near.send, [BIG], 1000)
    clock.wait_until_waiting()
    far.ping()
    far.send(["behind the ping"], 1)
    near_reader.wait_for(1)  # so the pong was queued
    assert near.ping()
    far_reader = Reader(far)
    sender.result(PATIENCE)
    eventually(lambda: near.ping_rtt is not None and far.ping_rtt is not None)
    near.send(["after"], 1)
    assert far_reader.wait_for(2) == [BIG, "after"]
    near.close(1000, "", 1000)
    near_reader.ended()
    far_reader.ended()


@pytest.mark.parametrize("at_once", [1000, 50])
def test_a_flood_of_pings_at_a_peer_that_does_not_read_is_answered_within_bounds(at_once: int) -> None:
    """Planted: without the pipe's own bound, behind the codec's of what one look brings, all 1,000 wait."""
    ours, theirs = socket.socketpair()
    pipe, far = make_pipe(TcpStream(SocketGuard(ours)), SystemClock()), Raw(theirs)
    sender = in_thread(pipe.send, [BIG * 4], PATIENCE)
    wait_until_full(ours)
    for first in range(0, 1000, at_once):
        pings = [far.ping(str(number).encode()) for number in range(first, first + at_once)]
        far.send(*pings, far.text("x"))
        assert pipe.receive(patient()) == ["x"]
    assert far.next_frame()[0] == TEXT
    sender.result(PATIENCE)
    pipe.send(["end"], 1)
    pongs = [payload for _, payload in iter(far.next_frame, (TEXT, b"end"))]
    assert len(pongs) <= 200
    assert pongs[-1] == b"999"
    pipe.dispose()
    theirs.close()


def test_a_child_that_disposes_of_its_copy_does_not_end_its_parents_pipe(raw: tuple[Pipe, Raw]) -> None:
    """Planted: a child that has not been noticed yet shut the socket down, which is the parent's as well."""
    pipe, far = raw
    pid = os.fork()
    if pid == 0:
        try:
            pipe.dispose()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    pipe.send(["still here"], 1)
    assert far.next_frame() == (TEXT, b"still here")


# Signs of life


def test_life_and_reading_tell_what_the_reader_does() -> None:
    clock = FakeClock(100)
    with open_raw(clock) as (pipe, far):
        assert (pipe.life, pipe.reading) == (100, False)
        clock.advance(5)
        reader = Reader(pipe)
        eventually(lambda: pipe.reading)
        assert pipe.life == 105  # the return to reading counts
        clock.advance(5)
        far.send(far.ping())
        eventually(lambda: pipe.life == 110)
        far.send(far.close_frame())
        reader.ended()
        assert not pipe.reading


def test_a_drip_is_no_sign_of_life_but_growth_is() -> None:
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        reader = Reader(pipe)
        eventually(lambda: pipe.reading)
        frame = far.text("x" * 10_000)
        sent = 0
        for size in (10, 10, 500, 1):
            clock.advance(1)
            far.send(frame[sent : sent + size])
            sent += size
            eventually(lambda sent=sent: pipe.bytes_in == sent)
        assert pipe.life == 0
        clock.advance(1)
        far.send(frame[sent : sent + 1024])
        eventually(lambda: pipe.life == 5)
        far.sock.shutdown(socket.SHUT_WR)
        assert isinstance(reader.ended(), ConnectionLost)


def test_a_drip_of_fragments_is_no_sign_of_life_but_growth_is() -> None:
    """Each of them is a whole frame: a message of one byte every so often would never end, and never be judged."""
    clock = FakeClock()
    with open_raw(clock) as (pipe, far):
        reader = Reader(pipe)
        eventually(lambda: pipe.reading)
        sent = 0
        for fragment in (b"\x01\x01x", b"\x00\x01x", b"\x00\x00", b"\x00\x01x"):
            clock.advance(1)
            far.send(fragment)
            sent += len(fragment)
            eventually(lambda sent=sent: pipe.bytes_in == sent)
        assert pipe.life == 0
        clock.advance(1)
        far.send(b"\x00\x7e\x04\x00" + b"x" * 1024)
        eventually(lambda: pipe.life == 5)
        clock.advance(1)
        far.send(b"\x80\x00")
        eventually(lambda: pipe.life == 6)
        far.sock.shutdown(socket.SHUT_WR)
        assert isinstance(reader.ended(), ConnectionLost)


def test_a_peer_that_takes_bytes_lives_while_a_ping_waits_behind_a_message() -> None:
    clock = FakeClock()
    near, far = memory_pair(clock, LIMIT)
    sender = in_thread(near.send, [BIG], 1000)
    clock.wait_until_waiting()
    near.ping()
    clock.advance(7)
    assert near.life == 0
    assert receive_all(far, 1) == [BIG]
    sender.result(PATIENCE)
    assert near.life == 7
    near.dispose()
    far.dispose()


# Giving the descriptor back


class Watched:
    """A stream that notes whether anybody was inside when it was closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._inside = 0
        self.closed_over: list[int] = []

    def _in(self, function: Callable[..., object], *args: object) -> object:
        with self._lock:
            self._inside += 1
        try:
            return function(*args)
        finally:
            with self._lock:
                self._inside -= 1

    def recv(self, deadline: Deadline | None) -> bytes:
        return self._in(self._stream.recv, deadline)  # type: ignore[return-value]

    def send_some(self, data: memoryview) -> int:
        return self._in(self._stream.send_some, data)  # type: ignore[return-value]

    def wait_writable(self, seconds: float | None) -> None:
        self._in(self._stream.wait_writable, seconds)

    def end_writing(self) -> None:
        self._in(self._stream.end_writing)

    def shutdown(self) -> None:
        self._stream.shutdown()

    def close(self) -> None:
        with self._lock:
            self.closed_over.append(self._inside)
        self._stream.close()


def test_stress_nobody_is_inside_when_the_descriptor_is_given_back(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(30):
        ours, theirs = socket.socketpair()
        stream = Watched(TcpStream(SocketGuard(ours)))
        pipe = make_pipe(stream, SystemClock())
        reader = Reader(pipe)
        messages = [b"x" * rng.choice((10, 1_000_000)) for _ in range(3)]
        senders = [in_thread(pipe.send, [message], PATIENCE) for message in messages]
        if rng.random() < 0.5:
            pipe.ping()
        if rng.random() < 0.5:
            pipe.abort(ConnectionLost("x"))
        else:
            theirs.shutdown(socket.SHUT_RDWR)
        reader.ended()
        for sender in senders:
            assert isinstance(sender.exception(PATIENCE), ConnmanError | None)
        assert stream.closed_over == [0]
        theirs.close()


# All together


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("round_", range(4))
def test_stress_senders_pings_and_a_close(kind: str, round_: int, seed: int) -> None:
    """What was sent without an error arrives once, whole and in order, and the end is the close."""
    rng = random.Random(seed + round_)
    with open_pair(kind) as pipes:
        near, far = Reader(pipes.near), Reader(pipes.far)
        sent: list[list[str]] = [[] for _ in range(4)]
        is_over = threading.Event()

        def send(number: int, sizes: list[int]) -> None:
            for index, size in enumerate(sizes):
                message = f"{number}:{index}:" + "x" * size
                try:
                    pipes.near.send([message], PATIENCE)
                except NotConnected:
                    return
                sent[number].append(message)

        def ping() -> None:
            while not is_over.is_set():
                pipes.near.ping()
                pipes.far.ping()
                is_over.wait(0.001)

        plans = [[rng.choice((0, 10, 200, 70_000, 300_000)) for _ in range(40)] for _ in range(4)]
        threads = [in_thread(send, number, plan) for number, plan in enumerate(plans)]
        pinger = in_thread(ping)
        eventually(lambda: len(far.messages) > 30)
        closer = rng.choice(pipes)
        closer.close(4001, "", PATIENCE)
        assert [getattr(reader.ended(), "code", None) for reader in (near, far)] == [4001, 4001]
        is_over.set()
        for thread in (*threads, pinger):
            error = thread.exception(PATIENCE)
            # Whoever was in the middle when the peer closed is told so.
            assert error is None or (closer is pipes.far and isinstance(error, ConnectionLost))
        for number, messages in enumerate(sent):
            arrived = [m for m in far.messages if str(m).startswith(f"{number}:")]
            if closer is pipes.near:
                assert arrived == messages
            else:
                assert arrived == messages[: len(arrived)]
