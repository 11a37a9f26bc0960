"""The boxes between a pipe and its requests: order, bounds, ends."""

import json
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.clock import Deadline, SystemClock
from connman.errors import ConnectionLost, SessionLost
from connman.testing import FakeClock
from connman.transport.sockjs_boxes import CAPACITY, Batch, Inbox, Outbox
from connman.transport.sockjs_frames import SockjsCodec, Told
from connman.transport.stream import StreamEnded
from tests.loopback import PATIENCE, in_thread
from tests.transport.streams import PLACES, cut
from tests.waiting import eventually

CLOCK = SystemClock()
CODEC = SockjsCodec(1 << 20)


def now() -> Deadline:
    return Deadline.after(CLOCK, 0)


# What arrives


def test_what_arrived_is_taken_in_order_and_at_once() -> None:
    box = Inbox(CLOCK)
    assert not box.is_ready
    with pytest.raises(TimeoutError):
        box.take(now())
    box.put(b"a")
    box.put(b"b")
    assert box.is_ready
    assert box.take(None) == b"ab"
    assert not box.is_ready


def test_who_brings_too_much_waits() -> None:
    box = Inbox(CLOCK)
    box.put(b"x" * CAPACITY)
    putting = in_thread(box.put, b"y")
    assert box.take(None) == b"x" * CAPACITY
    putting.result(PATIENCE)
    assert box.take(None) == b"y"


def test_who_waits_for_room_is_told_of_the_end() -> None:
    for act in (Inbox.break_, Inbox.end):
        box = Inbox(CLOCK)
        box.put(b"x" * CAPACITY)
        putting = in_thread(box.put, b"y")
        act(box)
        assert isinstance(putting.exception(PATIENCE), BrokenPipeError)
        with pytest.raises(BrokenPipeError):
            box.put(b"z")


def test_the_end_comes_behind_what_arrived() -> None:
    box, error = Inbox(CLOCK), SessionLost("gone")
    box.put(b"last")
    box.end(error)
    box.end(SessionLost("later"))
    assert box.take(None) == b"last"
    told = box.take(None)
    assert isinstance(told, Told)
    assert told.error is error
    assert [box.take(None), box.take(None)] == [b"", b""]


def test_an_end_without_an_error_is_the_end_of_file() -> None:
    box = Inbox(CLOCK)
    box.end()
    assert [box.take(None), box.take(None)] == [b"", b""]
    assert box.wait_over(0)


def test_a_break_drops_what_arrived() -> None:
    box = Inbox(CLOCK)
    taking = in_thread(box.take, None)
    box.break_()
    assert taking.result(PATIENCE) == b""
    box = Inbox(CLOCK)
    box.put(b"x")
    box.break_()
    assert box.take(None) == b""


def test_of_answered_pings_the_newest_is_told_before_anything_else() -> None:
    box = Inbox(CLOCK)
    box.put(b"x")
    for number in range(1000):
        box.put_pong(b"%d" % number)
    told = box.take(None)
    assert (type(told), told) == (Told, b"999")
    assert box.take(None) == b"x"


def test_a_watcher_is_told_of_everything() -> None:
    box, calls = Inbox(CLOCK), []
    box.watch(lambda: calls.append(box.is_ready))
    box.put(b"x")
    box.put_pong(b"")
    box.end()
    box.break_()
    assert calls == [False, True, True, True, True]


def test_waiting_for_the_end_has_its_time() -> None:
    clock = FakeClock()
    box = Inbox(clock)
    waiting = in_thread(box.wait_over, 5.0)
    clock.wait_until_waiting()
    clock.advance(5.0)
    assert waiting.result(PATIENCE) is False


# What is sent


class Sender:
    """Takes batches on a thread, as the sending one does."""

    def __init__(self) -> None:
        self.starts = 0
        self.box = Outbox(CLOCK, self._start)

    def _start(self) -> None:
        self.starts += 1


def content(batch: Batch | None) -> object:
    assert batch is not None
    body = b"".join(batch.body)
    assert len(body) == batch.size
    return json.loads(body)


def encoded(*texts: str) -> bytes:
    return b"".join(map(CODEC.encode, texts))


def test_all_that_waits_goes_into_one_request() -> None:
    sender = Sender()
    assert sender.box.put(encoded("a", "b")) == len(encoded("a", "b"))
    sender.box.put(encoded("c"))
    batch = sender.box.take(0)
    assert (content(batch), batch and batch.ping) == (["a", "b", "c"], None)
    assert len(sender.box) == 0


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8), PLACES)
def test_messages_may_be_put_in_pieces(texts: Sequence[str], places: list[int]) -> None:
    box, found = Sender().box, []
    taking = in_thread(
        lambda: [found.extend(json.loads(b"".join(b.body))) for b in iter(lambda: box.take(PATIENCE), None)]
    )
    for piece in cut(encoded(*texts), places):
        assert box.put(piece) == len(piece)
    box.end()
    taking.result(PATIENCE)
    assert found == list(texts)


def test_a_ping_alone_is_an_empty_request() -> None:
    box = Sender().box
    box.put(CODEC.encode_ping(b"1234") + CODEC.encode_ping(b""))
    batch = box.take(0)
    assert (content(batch), batch and batch.ping) == ([], b"1234")


def test_a_ping_goes_along_with_messages() -> None:
    box = Sender().box
    box.put(encoded("a") + CODEC.encode_ping(b"1234") + encoded("b"))
    batch = box.take(0)
    assert (content(batch), batch and batch.ping) == (["a", "b"], b"1234")


def test_the_box_is_bounded() -> None:
    box = Sender().box
    data = encoded("x" * 100) * 10_000
    assert box.put(data) == CAPACITY
    assert box.put(data) == 0
    box.wait_room(0)
    waiting = in_thread(box.wait_room, PATIENCE)
    assert len(content(box.take(0))) > 2000  # type: ignore[arg-type]
    waiting.result(PATIENCE)
    assert box.put(data) > 0


def test_a_message_larger_than_the_box_passes_through() -> None:
    box, text = Sender().box, "x" * (5 * CAPACITY)
    data = memoryview(encoded("before", text, "after"))

    def put_all() -> None:
        rest = data
        while rest:
            rest = rest[box.put(rest) :]
            box.wait_room(PATIENCE)

    putting = in_thread(put_all)
    assert content(box.take(PATIENCE)) == ["before"]
    assert content(box.take(PATIENCE)) == [text]
    putting.result(PATIENCE)
    assert content(box.take(PATIENCE)) == ["after"]


def test_a_break_ends_a_message_that_passes_through() -> None:
    box = Sender().box
    box.put(encoded("x" * (2 * CAPACITY))[:1000])
    batch = box.take(PATIENCE)
    assert batch is not None
    reading = in_thread(list, batch.body)
    box.break_()
    assert isinstance(reading.exception(PATIENCE), BrokenPipeError)


def test_who_takes_is_started_once_and_again_after_it_has_left() -> None:
    sender = Sender()
    sender.box.put(encoded("a"))
    sender.box.put(encoded("b"))
    assert sender.starts == 1
    sender.box.take(0)
    assert sender.box.take(0) is None  # nothing came: it leaves
    sender.box.put(encoded("c"))
    assert sender.starts == 2


def test_half_a_message_is_waited_for() -> None:
    box, data = Sender().box, encoded("abc")
    box.put(data[:12])
    taking = in_thread(box.take, 0.0)
    box.put(data[12:])
    assert content(taking.result(PATIENCE)) == ["abc"]


def test_the_end_lets_out_what_is_here() -> None:
    box = Sender().box
    box.put(encoded("a"))
    assert box.end() is False
    assert box.is_ended
    with pytest.raises(StreamEnded):
        box.put(encoded("b"))
    assert content(box.take(PATIENCE)) == ["a"]
    assert box.take(PATIENCE) is None
    assert Sender().box.end() is True  # nobody has to send anything


def test_a_break_tells_senders_why() -> None:
    box = Sender().box
    box.put(encoded("a"))
    taking = in_thread(box.take, PATIENCE)
    taking.result(PATIENCE)
    waiting = in_thread(box.take, None)
    eventually(lambda: threading.active_count() > 1)
    box.break_(SessionLost("gone", status=404))
    box.break_(ConnectionLost("later"))
    assert waiting.result(PATIENCE) is None
    with pytest.raises(StreamEnded) as caught:
        box.put(encoded("b"))
    lost = caught.value.lost()
    assert isinstance(lost, SessionLost)
    assert (lost.status, str(lost)) == (404, "gone")
    assert lost is not caught.value.lost()


def test_without_a_thread_nothing_can_be_sent() -> None:
    def refuse() -> None:
        raise OSError("no thread")

    box = Outbox(CLOCK, refuse)
    with pytest.raises(OSError, match="no thread"):
        box.put(b"x")
    with pytest.raises(StreamEnded):
        box.put(b"x")
