"""The model's rules for bad input, statistics and the close, row by row, as raw frames."""

import dataclasses
import json
import struct
from typing import Any

import pytest

from connman.errors import ConnectionClosed, PeerGone
from tests.rpc.rig import PATIENCE, Wired
from tests.waiting import eventually

INVALID = [
    "", "{", "nonsense", "NaN", "1", '"text"', "null", "true", "[]", "[{}]", "{}",
    '{"type":"what"}', '{"type":null}', '{"type":["request"]}', '{"type":{}}', '{"type":1}',
    '{"type":"request"}', '{"type":"request","requestId":0}', '{"type":"request","serviceId":1}',
    '{"type":"request","requestId":"0","serviceId":1}', '{"type":"request","requestId":0.5,"serviceId":1}',
    '{"type":"request","requestId":true,"serviceId":1}', '{"type":"request","requestId":0,"serviceId":1.5}',
    '{"type":"request","requestId":0,"serviceId":""}', '{"type":"request","requestId":0,"serviceId":[1]}',
    '{"type":"request","requestId":0,"serviceId":null}', '{"type":"request","requestId":1e999,"serviceId":1}',
    "[" * 100_000, '{"type":"request","requestId":' + "9" * 5000 + ',"serviceId":1}',
]  # fmt: skip


@pytest.mark.parametrize("frame", INVALID, ids=lambda frame: frame[:60] or "empty")
def test_bad_text(frame: str) -> None:
    """Bad text messages are ignored and counted, never answered; the connection stays."""
    with Wired({1: lambda: "fine"}) as wire:
        wire.say(frame)
        stats = wire.mark()
        assert (stats.requests_received_invalid, stats.requests_received_total) == (1, 0)
        assert wire.ask(1)["data"] == "fine"


def test_valid_requests_are_counted() -> None:
    """RequestsReceivedTotal counts each valid request, one for an unknown service included, and each write-stream-error."""
    with Wired({1: lambda: 1}) as wire:
        wire.ask(1)
        wire.ask(99)
        wire.ask(-1)
        wire.say({"type": "write-stream-error"}, {"type": "write-stream-error", "requestId": 3})
        stats = wire.mark()
        assert (stats.requests_received_total, stats.requests_received_invalid) == (5, 0)


def test_responses_are_not_counted() -> None:
    """Responses change no counter."""
    with Wired() as wire:
        futures = [wire.peer.send(1), wire.peer.send(1)]
        before = wire.peer.stats
        wire.say({"responseId": 0, "type": "data"}, {"responseId": 1, "type": "error"})
        [future.exception(PATIENCE) for future in futures]
        after = wire.peer.stats
        for name in ("requests_sent_total", "requests_received_total", "requests_received_invalid"):
            assert getattr(before, name) == getattr(after, name)


@pytest.mark.parametrize(
    "frame", [b"", b"1234567", struct.pack("<d", float("nan")) + b"x", struct.pack("<d", -1.0)]
)
def test_bad_binary_frame(frame: bytes) -> None:
    """A binary frame too short closes the model's connection; here it is counted, and survived."""
    with Wired({1: lambda: "fine"}) as wire:
        wire.say(frame)
        assert wire.mark().requests_received_invalid == 1
        assert wire.ask(1)["data"] == "fine"


def test_binary_frame_for_an_unknown_id() -> None:
    """For the model it opens a stream that nobody reads; here it is dropped, and counted."""
    with Wired({1: lambda: "fine"}) as wire:
        wire.say(*[struct.pack("<d", float(number)) + b"x" for number in (0, 1, 7)])
        assert wire.ask(1)["data"] == "fine"
        stats = wire.peer.stats
        assert stats.unknown_answers + stats.late_answers == 3


def test_statistics_are_read_only() -> None:
    """Stats is read-only: here a frozen snapshot."""
    with Wired() as wire, pytest.raises(dataclasses.FrozenInstanceError):
        wire.peer.stats.requests_sent_total = 5  # type: ignore[misc]


def test_statistics_count_bytes() -> None:
    """Bytes: text by its length as UTF-8."""
    with Wired({1: lambda x: x}) as wire:
        request = json.dumps(
            {"requestId": 0, "type": "request", "serviceId": 1, "args": ["ü€"]}, ensure_ascii=False
        )
        wire.say(request)
        answer = wire.far.recv(PATIENCE)
        assert isinstance(answer, str)
        assert wire.peer.stats.bytes_received == len(request.encode())
        eventually(
            lambda: wire.peer.stats.bytes_sent == len(answer.encode()), PATIENCE
        )  # counted when it has gone
        wire.say(b"123")
        assert wire.mark().bytes_received > len(request.encode()) + 3


def test_latencies() -> None:
    with Wired() as wire:
        assert wire.peer.stats.latency_p50 is None
        future = wire.peer.send(1)
        wire.say({"responseId": 0, "type": "data"})
        future.result(PATIENCE)
        stats = wire.peer.stats
        assert stats.latency_mean == stats.latency_p50 == stats.latency_p99
        assert stats.latency_mean is not None
        assert 0 < stats.latency_mean < PATIENCE


@pytest.mark.parametrize("code", [1000, 1001, 4002])
def test_pending_requests_at_the_close(code: int) -> None:
    """Pending requests: all rejected, also after a clean 1000."""
    with Wired() as wire:
        futures = [wire.peer.send(service) for service in (5, 10, 10)]
        for _ in futures:
            wire.hear()
        wire.far.close(code, "bye")
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, PeerGone)
            assert error.sent is True


def test_pending_requests_at_our_own_close() -> None:
    """On whichever side closed."""
    with Wired() as wire:
        future = wire.peer.send(5)
        wire.peer.close()
        assert isinstance(future.exception(0), PeerGone)


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, "away"), (4002, ""), (4010, "why")])
def test_closed(code: int, reason: str) -> None:
    """The promise: 1000 resolves, with code, reason and stats; any other code rejects, with all of them."""
    with Wired() as wire:
        wire.peer.send(5)
        wire.peer.send(10)
        wire.hear()
        wire.far.close(code, reason)
        if code == 1000:
            status = wire.peer.closed.result(PATIENCE)
        else:
            with pytest.raises(ConnectionClosed) as caught:
                wire.peer.closed.result(PATIENCE)
            assert (caught.value.code, caught.value.reason) == (code, reason)
            status = caught.value.status  # type: ignore[attr-defined]
        assert (status.code, status.reason) == (code, reason)
        assert status.stats.requests_sent_total == 2
        # The model names the services that were pending, in request order.
        assert status.pending == (5, 10)


def test_closed_without_a_close_frame() -> None:
    """A drop is 1006, as RFC 6455 calls it."""
    with Wired() as wire:
        wire.far.drop()
        with pytest.raises(ConnectionClosed) as caught:
            wire.peer.closed.result(PATIENCE)
        assert caught.value.code == 1006


def test_unused_rejection(caplog: pytest.LogCaptureFixture) -> None:
    """Unused rejection: never reported as unhandled."""
    with Wired() as wire:
        wire.peer.send(1)
        wire.far.close(4002)
        wire.far.wait_closed(PATIENCE)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_send_after_the_close() -> None:
    """Send after close rejects at once, the counters unchanged."""
    with Wired() as wire:
        wire.peer.send(1)
        wire.hear()
        wire.peer.close()
        for call in (wire.peer.call, lambda service: wire.peer.send(service).result(0), wire.peer.stream):
            with pytest.raises(PeerGone) as caught:
                call(1)
            assert caught.value.sent is False
        assert wire.peer.stats.requests_sent_total == 1


@pytest.mark.parametrize(
    ("reason", "seen"),
    [
        ("", ""),
        ("x" * 122, "x" * 122),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("ü" * 100, "ü" * 61),
        ("x" + "€" * 60, "x" + "€" * 40),
        ("😀" * 40, "😀" * 30),
    ],
)
def test_close_reason(reason: str, seen: str) -> None:
    """close(reason): code 1000, the reason cut to at most 123 UTF-8 bytes, never within a character."""
    with Wired() as wire:
        wire.peer.close(reason)
        end: Any = wire.far.wait_closed(PATIENCE)
        assert (end.code, end.reason) == (1000, seen)
        assert len(end.reason.encode()) <= 123
        assert wire.peer.closed.result(0).reason == reason


def test_close_twice() -> None:
    """The first reason wins, and the end is told once."""
    with Wired() as wire:
        wire.peer.close("first")
        wire.peer.close("second")
        assert wire.far.wait_closed(PATIENCE).reason == "first"  # type: ignore[attr-defined]
        assert wire.peer.closed.result(0).reason == "first"
