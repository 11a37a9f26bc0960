"""Streams that come in, frame by frame, from a peer of the model's and from one that knows of windows."""

from typing import Any

import pytest
from tenacity import wait_none

from connman import Connection
from connman.errors import CallTimeout, MessageTooBig, PeerGone, ProtocolError, RemoteError
from connman.rpc import Peer, StreamFailed, StreamTooFast
from connman.rpc.receiving import WINDOW
from connman.testing import FakeClock, ScriptedDialer
from tests.rpc.frames import GENERIC, binary, end, follow_up, leave, opened, text
from tests.rpc.wired import Raw, raw

# What a peer of the model's sends


def test_a_call_resolves_with_what_the_model_streams() -> None:
    """Row `receiver`: send() resolves with the writer's result once all has come."""
    with raw() as pair:
        for number, (frames, result) in enumerate([
            ([binary(0, b"ab"), binary(0, b"c")], b"abc"),
            ([text(1, "ä", encoding="utf8"), text(1, "b")], "äb"),
            ([text(2, "YWI=", encoding="base64"), text(2, "Yw==")], b"abc"),
            ([text(3, "a")], "a"),
            ([binary(4, b""), binary(4, b"x")], b"x"),
        ]):  # fmt: skip
            future = pair.peer.send(5)
            assert pair.recv() == {"requestId": number, "type": "request", "serviceId": 5, "args": []}
            pair.send(*frames, end(number))
            assert future.result(10) == result


def test_no_chunk_at_all_is_an_empty_file() -> None:
    """Row `receiver`: zero chunks and stream-end."""
    with raw() as pair:
        future = pair.peer.send(5)
        pair.recv()
        pair.send(end(0))
        assert future.result(10) == b""


@pytest.mark.parametrize("frames", [[], [binary(0, b"abc")]])
def test_a_failure_of_the_sender_has_the_text_of_the_model(frames: list[Any]) -> None:
    """Row `stream-error`: WSRQ-SEH1 and its text."""
    with raw() as pair:
        future = pair.peer.send(5)
        pair.recv()
        pair.send(*frames, {"responseId": 0, "type": "stream-error", "error": GENERIC})
        with pytest.raises(StreamFailed) as caught:
            future.result(10)
    assert isinstance(caught.value, RemoteError)
    assert caught.value.code == "WSRQ-SEH1"
    assert caught.value.message == (
        "WSRQ-SEH1: Remote ReadStream failed. While receiving a stream we received an error from the sender. "
        f"Message: {GENERIC}"
    )


def test_what_we_cannot_take_is_refused_as_the_model_does() -> None:
    """Row `receiver's own write error`: write-stream-error goes out, the call fails, further chunks are ignored."""
    with raw(max_message_size=1000) as pair:
        future = pair.peer.send(5)
        pair.recv()
        pair.send(binary(0, b"x" * 600), binary(0, b"x" * 600))
        with pytest.raises(MessageTooBig):
            future.result(10)
        assert pair.recv() == leave(0)
        pair.send(binary(0, b"x"), {"responseId": 0, "type": "stream-error", "error": GENERIC})
        follow_up(pair, 1)
        assert pair.peer.stats.late_answers == 0


def test_the_end_of_the_connection_ends_streams() -> None:
    """Row `on close`: all streams are cancelled."""
    with raw() as pair:
        stream = opened(pair)
        future = pair.peer.send(5)
        pair.recv()
        pair.send(binary(0, b"a"), binary(1, b"b"))
        assert next(stream) == b"a"
        pair.far.close(1000)
        with pytest.raises(PeerGone):
            next(stream)
        with pytest.raises(PeerGone):
            future.result(10)


# Odd frames


def test_a_short_binary_frame_is_counted_and_survived() -> None:
    """The model closes the connection for it; that hole is closed."""
    with raw() as pair:
        pair.send(b"", b"1234567")
        follow_up(pair, 0)
        assert pair.peer.stats.requests_received_invalid == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.5, 1e300])
def test_a_binary_frame_with_an_impossible_id_is_counted(number: float) -> None:
    with raw() as pair:
        pair.send(binary(number, b"x"))
        follow_up(pair, 0)
        assert pair.peer.stats.requests_received_invalid == 1


def test_a_binary_frame_for_an_unknown_id_opens_nothing() -> None:
    """The model opens a write stream for it; that hole is closed."""
    with raw() as pair:
        pair.send(binary(99, b"x"))
        follow_up(pair, 0)
        stats = pair.peer.stats
        assert (stats.unknown_answers, stats.late_answers, stats.requests_received_invalid) == (1, 0, 0)


def test_a_stream_for_a_call_that_is_over_is_told_to_stop_once() -> None:
    with raw() as pair:
        follow_up(pair, 0)
        pair.send(text(0, "a"), text(0, "b"), binary(0, b"c"), end(0))
        assert pair.recv() == leave(0)
        follow_up(pair, 1)
        assert pair.peer.stats.late_answers == 1


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "stream", "chunk": "a"}, {"responseId": None, "type": "stream-end"},
        {"responseId": [], "type": "stream"}, {"responseId": "0", "type": "stream", "chunk": "a"},
        {"responseId": True, "type": "stream-start"}, {"responseId": 77, "type": "stream-error"},
    ],
)  # fmt: skip
def test_frames_of_no_stream_are_counted_and_survived(frame: Any) -> None:
    with raw() as pair:
        pair.send(frame)
        follow_up(pair, 0)
        assert pair.peer.stats.unknown_answers == 1


@pytest.mark.parametrize("chunk", [None, 1, [], {}])
def test_a_chunk_that_is_none_is_counted_and_survived(chunk: Any) -> None:
    with raw() as pair:
        stream = opened(pair)
        pair.send({"responseId": 0, "type": "stream", "chunk": chunk}, text(0, "a"), end(0))
        assert list(stream) == ["a"]
        assert pair.peer.stats.requests_received_invalid == 1


@pytest.mark.parametrize(
    "frames", [[text(0, "a"), binary(0, b"b")], [text(0, "a", encoding="base64"), end(0)], [text(0, "a", encoding=1)]]
)  # fmt: skip
def test_a_stream_that_makes_no_sense_is_cancelled(frames: list[Any]) -> None:
    with raw() as pair:
        stream = opened(pair)
        pair.send(*frames)
        with pytest.raises(ProtocolError):
            list(stream)
        assert pair.recv() == leave(0)
        follow_up(pair, 1)


# Calls that end before their stream does


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_call_that_is_given_up_in_mid_stream_cancels_the_sender(how: str) -> None:
    clock = FakeClock()
    with raw(clock=clock, ping_interval=None) as pair:
        future = pair.peer.send(5, timeout=10)
        pair.recv()
        pair.send(binary(0, b"abc"), {"requestId": 0, "type": "request", "serviceId": 99})
        pair.recv()  # the answer to that: the chunk has been taken
        if how == "cancel":
            future.cancel()
        else:
            clock.advance(10)
            with pytest.raises(CallTimeout):
                future.result(10)
        assert pair.recv() == leave(0)
        follow_up(pair, 1)


def test_a_call_that_goes_out_again_begins_its_result_anew() -> None:
    """What a stream had brought over the path that broke is not part of what it brings over the next."""
    dialer = ScriptedDialer([ScriptedDialer.OPEN] * 2)
    with Connection(dialer, wait=wait_none()) as conn:
        peer = Peer(conn)
        future = peer.send(5, retry_safe=True, timeout=None)
        first = Raw(dialer.next_peer(), peer)
        assert first.recv()["serviceId"] == 5
        first.send(binary(0, b"abc"), {"requestId": 0, "type": "request", "serviceId": 99})
        first.recv()
        first.far.drop()
        second = Raw(dialer.next_peer(), peer)
        number = second.recv()["requestId"]
        second.send(binary(number, b"abcdef"), end(number))
        assert future.result(10) == b"abcdef"
        peer.close()


# Windows


def test_what_was_read_is_acknowledged() -> None:
    with raw() as pair:
        stream = opened(pair)
        quarter = WINDOW // 4
        pair.send({"responseId": 0, "type": "stream-start"}, binary(0, b"x" * quarter), binary(0, b"x"))
        next(stream)
        assert pair.recv() == {"requestId": 0, "type": "stream-credit", "bytes": quarter}
        next(stream)
        stream.close()
        assert pair.recv() == leave(0)


def test_a_stream_that_begins_when_it_was_left_is_told_to_stop_once_more() -> None:
    with raw() as pair:
        opened(pair).close()
        assert pair.recv() == leave(0)
        pair.send({"responseId": 0, "type": "stream-start"}, binary(0, b"x"), text(0, "x"))
        assert pair.recv() == leave(0)
        follow_up(pair, 1)


def test_a_sender_that_does_not_keep_to_the_window_is_cancelled() -> None:
    with raw() as pair:
        stream = opened(pair)
        pair.send({"responseId": 0, "type": "stream-start"}, binary(0, b"x" * WINDOW), binary(0, b"x"))
        assert pair.recv() == leave(0)
        assert next(stream) == b"x" * WINDOW
        with pytest.raises(StreamTooFast):
            next(stream)


def test_a_sender_of_the_model_that_is_too_fast_is_cancelled() -> None:
    with raw(max_message_size=100_000) as pair:
        stream = opened(pair)
        pair.send(*(binary(0, b"x" * 40_000) for _ in range(3)))
        assert pair.recv() == leave(0)
        with pytest.raises(StreamTooFast):
            list(stream)
        follow_up(pair, 1)
