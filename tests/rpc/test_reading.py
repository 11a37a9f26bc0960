"""Reading a stream: chunk by chunk, left in every way, and waited for no longer than was said."""

import gc
import weakref
from typing import Any

import pytest

from connman.errors import CallTimeout, NoSuchService, RemoteError
from connman.rpc import StreamFailed
from connman.testing import FakeClock
from tests.loopback import in_thread
from tests.rpc.frames import GENERIC, binary, end, follow_up, leave, opened, text
from tests.rpc.wired import raw
from tests.waiting import eventually


def test_chunks_are_read_as_they_come() -> None:
    with raw() as pair:
        stream = opened(pair)
        assert iter(stream) is stream
        for chunk in ("a", "b"):
            pair.send(text(0, chunk))
            assert next(stream) == chunk
        pair.send(end(0))
        assert list(stream) == []
        assert pair.peer.stats.calls_in_flight == 0


def test_all_that_is_left_is_read_as_one() -> None:
    with raw() as pair:
        for number, (frames, whole) in enumerate([
            ([binary(0, b"a"), binary(0, b"b"), end(0)], b"ab"),
            ([end(1)], b""),
            ([{"responseId": 2, "type": "data", "data": [1]}], [1]),
        ]):  # fmt: skip
            stream = opened(pair)
            pair.send(*frames)
            assert stream.read_all() == whole, number


def test_a_service_that_does_not_stream_gives_its_result_as_the_only_item() -> None:
    with raw() as pair:
        stream = opened(pair)
        pair.send({"responseId": 0, "type": "data", "data": {"a": 1}})
        assert list(stream) == [{"a": 1}]


def test_a_service_that_is_not_there_or_raises_fails_the_stream() -> None:
    with raw() as pair:
        first, second = opened(pair), opened(pair)
        unknown = {"name": "TypeError", "code": "UNKNOWN-SERVICE", "message": "Not a function"}
        pair.send({"responseId": 0, "type": "error", "error": unknown})
        pair.send(
            {"responseId": 1, "type": "error", "error": {"name": "KeyError", "message": "x", "code": 5}}
        )
        with pytest.raises(NoSuchService):
            next(first)
        with pytest.raises(RemoteError) as caught:
            next(second)
        assert (caught.value.name, caught.value.message, caught.value.code) == ("KeyError", "x", 5)


def test_what_a_sender_raised_is_told_where_the_sender_tells_it() -> None:
    with raw() as pair:
        stream = opened(pair)
        cause = {"name": "KeyError", "message": "x", "code": "K"}
        pair.send({"responseId": 0, "type": "stream-error", "error": GENERIC, "cause": cause})
        with pytest.raises(StreamFailed) as caught:
            next(stream)
        assert (caught.value.name, caught.value.message, caught.value.code) == ("KeyError", "x", "K")


# Leaving


@pytest.mark.parametrize("frames", [[], [text(0, "a")], [{"responseId": 0, "type": "stream-start"}]])
def test_who_closes_a_stream_tells_the_sender(frames: list[Any]) -> None:
    with raw() as pair:
        with opened(pair) as stream:
            pair.send(*frames, {"requestId": 7, "type": "request", "serviceId": "none"})
            assert pair.recv()["responseId"] == 7  # so the frames are there
        stream.close()
        assert pair.recv() == leave(0)
        assert list(stream) == []
        pair.send(text(0, "b"), binary(0, b"c"), {"responseId": 0, "type": "stream-error", "error": GENERIC})
        if not frames:
            assert pair.recv() == leave(0)  # once more: it had not begun
        follow_up(pair, 1)
        stats = pair.peer.stats
        assert (stats.late_answers, stats.calls_in_flight) == (0, 0)


def test_a_break_out_of_the_loop_leaves_at_the_end_of_the_block() -> None:
    with raw() as pair, opened(pair) as stream:
        pair.send(text(0, "a"), text(0, "b"))
        for chunk in stream:
            assert chunk == "a"
            break
        stream.close()
        assert pair.recv() == leave(0)


def test_a_stream_that_has_ended_is_closed_without_a_word() -> None:
    with raw() as pair:
        with opened(pair) as stream:
            pair.send(text(0, "a"), end(0))
            assert list(stream) == ["a"]
        follow_up(pair, 1)


def test_a_forgotten_stream_is_left_a_second_later() -> None:
    clock = FakeClock()
    with raw(clock=clock, ping_interval=None) as pair:
        stream = opened(pair)
        pair.send({"responseId": 0, "type": "stream-start"}, text(0, "a"))
        assert next(stream) == "a"
        other = opened(pair)
        del stream
        gc.collect()
        clock.advance(1.0)
        assert pair.recv() == leave(0)
        pair.send(text(1, "b"))
        assert next(other) == "b"
        other.close()
        assert pair.recv() == leave(1)


def test_a_stream_that_failed_is_kept_by_nothing() -> None:
    """Seen failing: its error led to the frame that had caught it, and so to the stream that it was kept for."""
    clock = FakeClock()
    with raw(clock=clock, ping_interval=None) as pair:
        stream = opened(pair)
        pair.send({"responseId": 0, "type": "stream-error", "error": GENERIC})
        with pytest.raises(StreamFailed):
            next(stream)
        alive = weakref.ref(stream)
        del stream
        clock.advance(1.0)
        eventually(lambda: gc.collect() >= 0 and alive() is None)


def test_close_wakes_who_waits_for_a_chunk() -> None:
    with raw() as pair:
        stream = opened(pair)
        waiting = in_thread(list, stream)
        stream.close()
        assert waiting.result(10) == []


# Waiting


def test_a_chunk_that_does_not_come_in_time_closes_the_stream() -> None:
    with raw() as pair:
        stream = opened(pair, timeout=0)
        with pytest.raises(CallTimeout):
            next(stream)
        assert pair.recv() == leave(0)
        assert list(stream) == []


def test_the_timeout_is_for_each_chunk() -> None:
    clock = FakeClock()
    with raw(clock=clock, ping_interval=None) as pair:
        stream = opened(pair, timeout=10)
        for _ in range(3):
            waiting = in_thread(next, stream)
            clock.wait_until_waiting()
            clock.advance(9)
            pair.send(text(0, "a"))
            assert waiting.result(10) == "a"
