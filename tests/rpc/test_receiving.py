"""A stream on its way in: kept within its window, in order, and never more of it than the reader allowed."""

import base64
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.clock import Deadline, SystemClock
from connman.errors import CallTimeout, MessageTooBig, PeerGone, ProtocolError
from connman.rpc.receiving import WINDOW, Buffer, Collector, StreamTooFast
from tests.loopback import in_thread
from tests.waiting import eventually

CLOCK = SystemClock()
NOW = Deadline.after(CLOCK, 0)
SOON = Deadline.after(CLOCK, 3600)


class FakeCall:
    """Notes how it ended."""

    def __init__(self) -> None:
        self.id = 7
        self.ends: list[Any] = []

    def settle(self, value: Any) -> bool:
        self.ends.append(value)
        return True

    def fail(self, error: BaseException) -> bool:
        self.ends.append(error)
        return True


left: list[Any] = []


@pytest.fixture(autouse=True)
def nobody_has_left() -> None:
    left.clear()


def make_buffer(limit: int = 1000) -> Buffer:
    return Buffer(CLOCK, limit, left.append)


def collect(limit: int = 1000) -> tuple[Collector, FakeCall]:
    call = FakeCall()
    return Collector(limit, call, left.append), call  # type: ignore[arg-type]


def rest_of(buffer: Buffer) -> list[Any]:
    found = []
    try:
        while True:
            found.append(buffer.take(NOW))
    except StopIteration:
        return found


# A call's collector


def test_a_call_gets_what_was_streamed_as_one() -> None:
    for chunks, whole in (([b"a", b"b"], b"ab"), (["ä", "b"], "äb"), ([], b"")):
        collector, call = collect()
        for chunk in chunks:
            if isinstance(chunk, str):
                collector.text(chunk, "utf8")
            else:
                collector.binary(chunk)
        collector.finish()
        assert call.ends == [whole]


def test_a_result_larger_than_a_message_may_be_is_refused() -> None:
    collector, _ = collect(limit=10)
    collector.binary(b"x" * 10)
    with pytest.raises(MessageTooBig):
        collector.binary(b"x")
    collector, _ = collect(limit=10)
    collector.text("é" * 5, None)
    with pytest.raises(MessageTooBig):
        collector.text("e", None)


def test_a_collector_that_fails_fails_its_call() -> None:
    collector, call = collect()
    error = PeerGone("gone")
    collector.fail(error)
    assert call.ends == [error]
    collector.dropped(call)  # type: ignore[arg-type]
    assert left == [call]


# Text, base64, bytes


@given(st.binary(), st.randoms())
def test_base64_may_be_split_anywhere(data: bytes, rng: random.Random) -> None:
    text = base64.b64encode(data).decode()
    collector, call = collect(1 << 20)
    first: object = "base64"
    while text or first:
        size = rng.randint(0, 6)
        collector.text(text[:size], first)
        text, first = text[size:], None
    collector.finish()
    assert call.ends == [data]


@pytest.mark.parametrize("chunks", [["a"], ["abc"], ["ab=c"], ["ab!c"], ["äöüß"], ["YQ==YQ=="]])
def test_what_is_no_base64_is_refused(chunks: list[str]) -> None:
    collector, call = collect()
    with pytest.raises(ProtocolError):
        for chunk in chunks:
            collector.text(chunk, "base64")
        collector.finish()
    assert call.ends == []


def test_text_and_bytes_do_not_mix() -> None:
    collector, _ = collect()
    collector.text("a", None)
    with pytest.raises(ProtocolError):
        collector.binary(b"b")


@pytest.mark.parametrize("encoding", ["latin1", "hex", 1, [], {}, True])
def test_an_unknown_encoding_is_refused(encoding: object) -> None:
    with pytest.raises(ProtocolError):
        collect()[0].text("a", encoding)


# A reader's buffer


def test_a_reader_gets_the_chunks_and_the_end() -> None:
    buffer = make_buffer()
    buffer.binary(b"a")
    buffer.binary(b"")
    buffer.binary(b"b")
    buffer.end()
    assert rest_of(buffer) == [b"a", b"b"]
    assert rest_of(buffer) == []


def test_what_came_before_a_failure_is_read_first() -> None:
    buffer = make_buffer()
    buffer.binary(b"a")
    error = PeerGone("gone")
    buffer.fail(error)
    buffer.fail(ValueError("second"))
    assert buffer.take(NOW) == b"a"
    for _ in range(2):
        with pytest.raises(PeerGone):
            buffer.take(NOW)


def test_a_service_that_does_not_stream_gives_one_item() -> None:
    buffer = make_buffer()
    buffer.settle({"a": 1})
    buffer.settle("second")
    assert rest_of(buffer) == [{"a": 1}]


def test_no_chunk_in_time() -> None:
    with pytest.raises(CallTimeout):
        make_buffer().take(NOW)


def test_a_reader_waits_until_a_chunk_comes_or_it_is_left() -> None:
    buffer = make_buffer()
    first = in_thread(buffer.take, SOON)
    buffer.binary(b"a")
    assert first.result(10) == b"a"
    second = in_thread(rest_of, SimpleNamespace(take=lambda _now: buffer.take(SOON)))
    assert buffer.leave() is True
    assert second.result(10) == []
    assert buffer.leave() is False


def test_what_comes_behind_a_leave_is_dropped() -> None:
    buffer = make_buffer()
    buffer.binary(b"a")
    buffer.leave()
    buffer.binary(b"b" * 5000)
    buffer.settle("item")
    assert rest_of(buffer) == []


def test_a_sender_without_windows_may_bring_as_much_as_a_message_may_hold() -> None:
    buffer = make_buffer(limit=10)
    buffer.binary(b"x" * 10)
    with pytest.raises(StreamTooFast):
        buffer.binary(b"x")
    assert buffer.take(NOW) == b"x" * 10
    buffer.binary(b"x" * 10)


def test_a_sender_that_knows_of_windows_is_held_to_ours() -> None:
    buffer = make_buffer(limit=1 << 30)
    buffer.start()
    buffer.binary(b"x" * WINDOW)
    with pytest.raises(StreamTooFast):
        buffer.binary(b"x")


def test_what_was_read_is_acknowledged_by_the_quarter() -> None:
    buffer = make_buffer()
    credits: list[int] = []
    buffer.acknowledge = credits.append
    buffer.start()
    eighth = WINDOW // 8
    for _ in range(8):
        buffer.binary(b"x" * eighth)
    for _ in range(5):
        buffer.take(NOW)
    assert credits == [2 * eighth] * 2
    buffer.end()
    rest_of(buffer)
    assert credits == [2 * eighth] * 2  # nobody sends any more


def test_text_is_acknowledged_by_its_bytes() -> None:
    buffer = make_buffer()
    credits: list[int] = []
    buffer.acknowledge = credits.append
    buffer.start()
    buffer.text("€" * (WINDOW // 12 + 1), "utf8")
    buffer.take(NOW)
    assert credits == [3 * (WINDOW // 12 + 1)]


def test_a_sender_without_windows_is_acknowledged_nothing() -> None:
    buffer = make_buffer(limit=2 * WINDOW)
    buffer.acknowledge = left.append
    buffer.binary(b"x" * WINDOW)
    buffer.take(NOW)
    assert left == []


class Closed:
    def __init__(self) -> None:
        self.count = 0

    def close(self) -> None:
        self.count += 1


@pytest.mark.parametrize("how", ["end", "fail", "leave", "settle"])
def test_what_the_call_sends_ends_with_it(how: str) -> None:
    buffer, upload = make_buffer(), Closed()
    buffer.keep_upload(upload)
    arguments: dict[str, tuple[Any, ...]] = {"fail": (PeerGone("gone"),), "settle": (1,)}
    getattr(buffer, how)(*arguments.get(how, ()))
    buffer.end()
    assert upload.count == 1


def test_what_is_kept_too_late_ends_at_once() -> None:
    buffer, upload = make_buffer(), Closed()
    buffer.end()
    buffer.keep_upload(upload)
    assert upload.count == 1


def test_of_several_readers_each_chunk_comes_to_one() -> None:
    buffer = make_buffer(1 << 20)
    found: list[Any] = []
    readers = [
        threading.Thread(target=lambda: found.extend(rest_of(SimpleNamespace(take=lambda _now: buffer.take(SOON)))))  # type: ignore[arg-type]
        for _ in range(4)
    ]  # fmt: skip
    for reader in readers:
        reader.start()
    for number in range(1000):
        buffer.binary(number.to_bytes(2, "big"))
    buffer.end()
    for reader in readers:
        reader.join(10)
    eventually(lambda: len(found) == 1000)
    assert sorted(found) == [number.to_bytes(2, "big") for number in range(1000)]
