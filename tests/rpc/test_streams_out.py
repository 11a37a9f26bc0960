"""Streams that go out, frame by frame, to a peer of the model's and to one that knows of windows."""

import io
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman.errors import CallTimeout, MessageTooBig, PeerGone
from connman.rpc import NotAllowed, current_peer
from connman.rpc.sending import Source
from connman.rpc.streams_out import MAX_STREAMS
from connman.testing import FakeClock
from tests.rpc.wired import PATIENCE, Raw, raw
from tests.waiting import eventually

ERROR = "Error while reading the file stream"


def binary(number: int, chunk: bytes) -> bytes:
    return struct.pack("<d", number) + chunk


def endless_of(chunk: bytes) -> tuple[Callable[[], Iterator[bytes]], threading.Event]:
    """Return a service that gives ``chunk`` for ever, and what is set when its generator is closed."""
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield chunk
        finally:
            closed.set()

    return endless, closed


def request(number: int, service: int | str = 5, *args: Any, **more: Any) -> dict[str, Any]:
    return {"requestId": number, "type": "request", "serviceId": service, "args": list(args), **more}


def end(number: int) -> dict[str, Any]:
    return {"responseId": number, "type": "stream-end"}


def failed(number: int) -> dict[str, Any]:
    return {"responseId": number, "type": "stream-error", "error": ERROR}


def leave(number: int) -> dict[str, Any]:
    return {"requestId": number, "type": "write-stream-error"}


# What a peer of the model's gets


def test_what_a_service_streams_goes_out_as_the_model_sends_it() -> None:
    """Row `sender`: binary frames, text frames with the encoding on the first, and stream-end; no word of windows."""
    services = {
        5: lambda: iter([b"ab", b"c"]),
        6: lambda: iter(["ä", "b"]),
        7: lambda: io.BytesIO(b"file"),
        8: lambda: io.StringIO("text"),
        9: lambda: iter([]),
    }
    with raw(services=services) as pair:
        pair.send(request(0, 5))
        assert pair.recv_all(3) == [binary(0, b"ab"), binary(0, b"c"), end(0)]
        pair.send(request(1, 6))
        assert pair.recv_all(3) == [
            {"responseId": 1, "type": "stream", "chunk": "ä", "encoding": "utf8"},
            {"responseId": 1, "type": "stream", "chunk": "b"},
            end(1),
        ]
        pair.send(request(2, 7))
        assert pair.recv_all(2) == [binary(2, b"file"), end(2)]
        pair.send(request(3, 8))
        assert pair.recv_all(2)[0] == {"responseId": 3, "type": "stream", "chunk": "text", "encoding": "utf8"}
        pair.send(request(4, 9))
        assert pair.recv() == end(4)


def test_a_service_whose_stream_breaks_off_tells_the_generic_text() -> None:
    """Row `stream failure`: the text is always the same."""

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("what went wrong")

    with raw(services={5: broken}) as pair:
        pair.send(request(0))
        assert pair.recv_all(2) == [binary(0, b"a"), failed(0)]


def test_a_receiver_that_cannot_write_cancels_the_sender() -> None:
    """Row `write-stream-error`: the sender is cancelled; the entry of the model's stays until a stream-error comes."""
    endless, closed = endless_of(b"x")
    with raw(services={5: endless}) as pair:
        pair.send(request(0))
        assert pair.recv() == binary(0, b"x")
        pair.send(leave(0))
        frame = pair.recv()
        while frame == binary(0, b"x"):
            frame = pair.recv()
        assert frame == failed(0)
        assert closed.wait(PATIENCE)
        assert (
            pair.peer.stats.requests_received_total == 2
        )  # with the write-stream-error, as the model counts


@pytest.mark.parametrize(
    "frame", [{"type": "write-stream-error"}, {"requestId": "x", "type": "write-stream-error"}, leave(99)]
)
def test_a_write_stream_error_needs_no_id(frame: Any) -> None:
    """Row `stream write error`: it counts as a request, whatever is in it."""
    with raw(services={5: lambda: 1}) as pair:
        pair.send(frame, request(0))
        assert pair.recv() == {"responseId": 0, "type": "data", "data": 1}
        stats = pair.peer.stats
        assert (stats.requests_received_total, stats.requests_received_invalid) == (2, 0)


# Windows


@pytest.mark.parametrize("chunk", ["\x01" * 10_000, "ü" * 10_000, b"x" * 10_000])
def test_a_piece_is_never_larger_than_a_message_may_be(chunk: Any) -> None:
    with raw(services={5: lambda: iter([chunk])}, max_message_size=1000) as pair:
        pair.send(request(0))
        frames = []
        while not frames or '"stream-end"' not in str(frames[-1]):
            frames.append(pair.far.recv(PATIENCE))
        assert (
            max(len(frame) if isinstance(frame, bytes) else len(frame.encode()) for frame in frames) <= 1000
        )


def test_a_window_holds_the_sender_back() -> None:
    with raw(services={5: lambda: iter([b"12345", b"67890", b"abcde"])}) as pair:
        pair.send(request(0, window=8))
        assert pair.recv_all(2) == [{"responseId": 0, "type": "stream-start"}, binary(0, b"12345")]
        pair.send(request(1, 99))
        assert pair.recv()["type"] == "error"
        pair.send({"requestId": 0, "type": "stream-credit", "bytes": 100})
        assert pair.recv_all(3) == [binary(0, b"67890"), binary(0, b"abcde"), end(0)]


@pytest.mark.parametrize("window", [0, -1, 1.5, "8", None, True, [], 2**60])
def test_a_window_that_is_none_is_none(window: Any) -> None:
    with raw(services={5: lambda: iter([b"a"])}) as pair:
        pair.send(request(0, window=window))
        assert pair.recv_all(2) == [binary(0, b"a"), end(0)]


@pytest.mark.parametrize(
    "fields", [{"bytes": 0}, {"bytes": -5}, {"bytes": 2**60}, {"bytes": "5"}, {}, {"requestId": None, "bytes": 5}]
)  # fmt: skip
def test_a_credit_that_is_none_is_counted(fields: Any) -> None:
    with raw(services={5: lambda: iter([b"12345"])}) as pair:
        pair.send(request(0, window=4))
        assert pair.recv_all(2)[1] == binary(0, b"1234")
        pair.send({"requestId": 0, "type": "stream-credit", **fields}, request(1, 99))
        assert pair.recv()["responseId"] == 1
        assert pair.peer.stats.requests_received_invalid == 1


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -1, 10**400])
def test_an_id_that_is_no_double_is_refused(number: int) -> None:
    """Seen failing: the chunks of 2**53 + 1 went to 2**53."""
    with raw(services={5: lambda: iter([b"a"])}) as pair:
        pair.send(request(number))
        answer = pair.recv()
        assert (answer["responseId"], answer["error"]["name"]) == (number, "RangeError")


def test_a_stream_that_nobody_wants_is_closed() -> None:
    file = io.BytesIO(b"x")
    with raw(services={5: lambda: file}) as pair:
        pair.send(request(0, notice=True))
        eventually(lambda: file.closed)


def test_an_upload_is_not_for_a_notice() -> None:
    with raw() as pair:
        _, (name,) = offered(pair, iter([b"x"]))
        pair.send(request(0, name, notice=True), request(1, name))
        assert pair.recv_all(2) == [binary(1, b"x"), end(1)]


def test_a_call_that_is_too_big_offers_none_of_its_streams() -> None:
    with raw(max_message_size=1024) as pair:
        with pytest.raises(MessageTooBig):
            pair.peer.send("put", iter([b"x"]), "y" * 1024)
        pair.send(request(0, "$__stream$1"))
        assert pair.recv()["error"]["code"] == "UNKNOWN-SERVICE"


def test_credit_for_a_stream_that_has_ended_says_nothing() -> None:
    with raw(services={5: lambda: iter([b"a"])}) as pair:
        pair.send(request(0, window=4), {"requestId": 7, "type": "stream-credit", "bytes": 5})
        assert pair.recv_all(3)[-1] == end(0)
        assert pair.peer.stats.requests_received_invalid == 0


def test_a_stream_that_waits_holds_no_thread_and_ends_with_the_path() -> None:
    endless, closed = endless_of(b"12345")
    with raw(services={5: endless}) as pair:
        pair.send(request(0, window=5))
        assert pair.recv_all(2)[1] == binary(0, b"12345")
        pair.far.drop()
        assert closed.wait(PATIENCE)


def test_a_request_id_that_streams_already_is_refused() -> None:
    with raw(services={5: lambda: iter([b"12345", b"67890"])}) as pair:
        pair.send(request(0, window=5))
        assert pair.recv_all(2)[1] == binary(0, b"12345")
        pair.send(request(0, window=5))
        assert pair.recv()["error"]["code"] == "TOO-BUSY"


def test_streams_have_a_bound() -> None:
    with raw(services={5: lambda: iter([b"12345", b"67890"])}) as pair:
        for number in range(MAX_STREAMS):
            pair.send(request(number, window=5))
            assert pair.recv_all(2)[1] == binary(number, b"12345")
        pair.send(request(MAX_STREAMS, window=5))
        assert pair.recv() == {
            "responseId": MAX_STREAMS, "type": "error",
            "error": {"name": "TooBusy", "message": "too many streams are being sent here already", "code": "TOO-BUSY"},
        }  # fmt: skip
        pair.send(leave(0))
        assert pair.recv() == failed(0)
        pair.send(request(MAX_STREAMS, window=5))
        assert pair.recv_all(2)[1] == binary(MAX_STREAMS, b"12345")


def test_many_streams_make_no_heap_in_front_of_the_network() -> None:
    """Seen ending the path, when each stream put a piece there and that was more than may wait."""
    running = threading.Semaphore(0)

    def send() -> Iterator[bytes]:
        for _ in range(4):
            running.release()
            yield b"x" * 50_000

    with raw(services={5: send}, is_deaf=True, max_message_size=100_000, ping_interval=None) as pair:
        pair.send(*(request(number) for number in range(100)))
        for _ in range(100):
            assert running.acquire(timeout=PATIENCE)
        pair.far.listen()
        size = ends = 0
        while ends < 100:
            frame = pair.recv()
            size += len(frame) - 8 if isinstance(frame, bytes) else 0
            ends += not isinstance(frame, bytes)
        assert size == 100 * 200_000


def test_a_generator_may_call_back() -> None:
    def asking() -> Iterator[str]:
        while True:
            yield current_peer().call("name")

    with raw(services={5: asking}) as pair:
        pair.send(request(0, window=3))
        assert pair.recv() == {"responseId": 0, "type": "stream-start"}
        asked = pair.recv()
        assert asked["serviceId"] == "name"
        pair.send({"responseId": asked["requestId"], "type": "data", "data": "abc"})
        assert pair.recv()["chunk"] == "abc"


def test_a_stream_inside_a_result_is_refused() -> None:
    with raw(services={5: lambda: {"file": io.BytesIO(b"x")}}) as pair:
        pair.send(request(0))
        error = pair.recv()["error"]
        assert (error["code"], error["message"]) == (
            "WSP-ESV", 'WSP-ESV: Key "file" value [BytesIO] ("BytesIO") is not allowed',
        )  # fmt: skip


# What callers put among their arguments


def offered(pair: Raw, *args: Any, **options: Any) -> tuple[Any, list[Any]]:
    """Call with arguments some of which are streams, and return the Future and the names that stand for those."""
    future = pair.peer.send("put", *args, **options)
    sent = pair.recv()["args"]
    return future, [arg["$__stream$"] for arg in sent if isinstance(arg, dict)]


def test_an_argument_that_streams_is_pulled_by_a_service_of_its_own() -> None:
    with raw() as pair:
        future, (name,) = offered(pair, 1, iter([b"ab", b"c"]), "x")
        pair.send(request(0, name, window=100))
        assert pair.recv_all(4) == [
            {"responseId": 0, "type": "stream-start"}, binary(0, b"ab"), binary(0, b"c"), end(0),
        ]  # fmt: skip
        pair.send({"responseId": 0, "type": "data", "data": "done"})
        assert future.result(10) == "done"


def test_it_can_be_pulled_once() -> None:
    with raw() as pair:
        _, (name,) = offered(pair, iter([b"ab"]))
        pair.send(request(0, name), request(1, name))
        frames = pair.recv_all(3)
        assert [frame for frame in frames if frame in (binary(0, b"ab"), end(0))] == [
            binary(0, b"ab"),
            end(0),
        ]
        assert any(
            isinstance(f, dict) and f.get("error", {}).get("code") == "UNKNOWN-SERVICE" for f in frames
        )


def test_several_and_nested_arguments_may_stream() -> None:
    with raw() as pair:
        pair.peer.send("put", {"files": [io.BytesIO(b"a"), io.StringIO("b")]}, (c for c in ["c"]))
        first, second = pair.recv()["args"]
        names = [entry["$__stream$"] for entry in (*first["files"], second)]
        assert len(set(names)) == 3
        for number, name in enumerate(names):
            pair.send(request(number, name))
        found = set()
        for frame in pair.recv_all(6):
            found.add(frame[8:] if isinstance(frame, bytes) else frame.get("chunk"))
        assert found == {b"a", "b", "c", None}


@pytest.mark.parametrize("how", ["answer", "error", "timeout", "cancel"])
def test_what_is_offered_ends_with_the_call(how: str) -> None:
    """An upload that nobody has pulled is offered no longer, and one that is being sent is cancelled."""
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"12345"
        finally:
            closed.set()

    clock = FakeClock()
    with raw(clock=clock, ping_interval=None) as pair:
        future, (first, second) = offered(pair, endless(), iter([b"x"]), timeout=10)
        pair.send(request(0, first, window=5))
        assert pair.recv_all(2)[1] == binary(0, b"12345")
        if how == "cancel":
            future.cancel()
        elif how == "timeout":
            clock.advance(10)
            with pytest.raises(CallTimeout):
                future.result(10)
        else:
            pair.send({"responseId": 0, "type": "data" if how == "answer" else "error", "error": {}})
        assert pair.recv() == failed(0)
        assert closed.wait(PATIENCE)
        pair.send(request(1, second))
        assert pair.recv()["error"]["code"] == "UNKNOWN-SERVICE"


def test_what_is_pulled_in_the_moment_its_call_ends_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen sent on without an end: who ended the call found neither an offer nor a stream to cancel."""
    endless, _ = endless_of(b"12345")
    with raw() as pair:
        future, (name,) = offered(pair, endless())

        def make(*args: Any, **options: Any) -> Source:
            future.cancel()
            return Source(*args, **options)

        monkeypatch.setattr("connman.rpc.streams_out.Source", make)
        pair.send(request(0, name, window=5))
        assert pair.recv()["error"]["code"] == "UNKNOWN-SERVICE"


def test_what_is_offered_ends_with_the_path() -> None:
    with raw() as pair:
        future, _ = offered(pair, iter([b"x"]))
        pair.far.drop()
        with pytest.raises(PeerGone):
            future.result(10)


def test_arguments_that_cannot_travel_offer_nothing() -> None:
    with raw(services={"x": lambda: 1}) as pair:
        with pytest.raises(NotAllowed, match='Key "1" value NaN'):
            pair.peer.send("put", iter([b"x"]), float("nan"))
        pair.send(request(0, "$__stream$1"))
        assert pair.recv()["error"]["code"] == "UNKNOWN-SERVICE"
        assert pair.peer.stats.requests_sent_total == 0


def test_uploads_are_sent_though_every_worker_is_busy() -> None:
    """Each worker may be waiting for an upload to be pulled: the pulls must not wait for a worker."""
    may_end = threading.Event()
    with raw(services={5: lambda: may_end.wait(PATIENCE)}) as pair:
        for number in range(40):
            pair.send(request(number))
        _, (name,) = offered(pair, iter([b"x"]))
        pair.send(request(100, name))
        assert pair.recv_all(2) == [binary(100, b"x"), end(100)]
        may_end.set()
        eventually(lambda: pair.recv()["type"] == "data")


def test_what_a_service_gets_is_pulled_when_it_reads() -> None:
    """The other way round: an argument of a request that stands for a stream."""
    seen: list[Any] = []

    def put(before: int, upload: Any, after: dict[str, Any]) -> int:
        seen.extend((before, after))
        return sum(len(chunk) for chunk in upload)

    with raw(services={"put": put}) as pair:
        mark = {"$__stream$": "up-1"}
        pair.send(request(0, "put", 1, mark, {"a": {"$__stream$": 5}, "b": {"$__stream$": "x", "more": 1}}))
        pull = pair.recv()
        assert (pull["serviceId"], pull["args"]) == ("up-1", [])
        pair.send(binary(pull["requestId"], b"abc"), end(pull["requestId"]))
        assert pair.recv() == {"responseId": 0, "type": "data", "data": 3}
    assert seen == [1, {"a": {"$__stream$": 5}, "b": {"$__stream$": "x", "more": 1}}]


def test_a_service_that_does_not_read_its_upload_pulls_nothing() -> None:
    with raw(services={"put": lambda upload: "ignored"}) as pair:
        pair.send(request(0, "put", {"$__stream$": "up-1"}))
        assert pair.recv() == {"responseId": 0, "type": "data", "data": "ignored"}
