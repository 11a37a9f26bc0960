"""A stream on its way out, frame by frame: no faster than it is read, and closed whatever happens."""

import contextvars
import io
import json
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import PeerGone
from connman.rpc.sending import FAILED, PIECE, Sending, Source, is_stream
from connman.rpc.wire import size_of

Frame = str | bytes


class Session:
    """Keeps what is sent, until it is broken."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.is_broken = False

    def write(self, frame: Frame) -> None:
        if self.is_broken:
            raise PeerGone("gone")
        self.frames.append(frame)

    def post(self, frame: Frame) -> bool:
        if not self.is_broken:
            self.frames.append(frame)
        return not self.is_broken

    @property
    def messages(self) -> list[Any]:
        return [json.loads(frame) if isinstance(frame, str) else frame for frame in self.frames]

    @property
    def chunks(self) -> list[Frame]:
        """The chunks of the frames, without their ids."""
        found: list[Frame] = []
        for message in self.messages:
            if isinstance(message, bytes):
                found.append(message[8:])
            elif message["type"] == "stream":
                found.append(message["chunk"])
        return found


class Sent:
    """A `Sending` of a value over a `Session`, and whether it is over."""

    def __init__(self, value: Any, window: int | None = None, *, is_ours: bool = True) -> None:
        self.session = Session()
        self.is_over = False
        self.frames_before = -1  # that had gone out when it was over
        self.resumed = 0
        self.sending = Sending(
            self.session.write, self.session.post, 3, window, Source(value, is_ours=is_ours),
            context=contextvars.copy_context(), resume=self._resume, over=self._over,
        )  # fmt: skip

    def _resume(self, sending: Sending) -> None:
        self.resumed += 1

    def _over(self, sending: Sending) -> None:
        if not self.is_over:
            self.frames_before = len(self.session.frames)
        self.is_over = True

    def run(self) -> "Sent":
        self.sending.run()
        return self


def binary(chunk: bytes, number: int = 3) -> bytes:
    return struct.pack("<d", number) + chunk


END = {"responseId": 3, "type": "stream-end"}
ERROR = {"responseId": 3, "type": "stream-error", "error": FAILED}
START = {"responseId": 3, "type": "stream-start"}


def broken_off() -> Iterator[bytes]:
    yield b"ab"
    raise ValueError("no more")


# Frames


@pytest.mark.parametrize("make", [lambda: iter([b"ab"]), broken_off])
def test_it_is_over_before_its_end_is_told(make: Callable[[], Iterator[bytes]]) -> None:
    """Who hears of it may ask for the next at once; seen refused as one too many."""
    sent = Sent(make()).run()
    assert len(sent.session.frames) == 2
    assert sent.frames_before == 1


def test_bytes_go_out_as_binary_frames() -> None:
    """Row `binary frame`: the id as a double, little-endian, and the chunk."""
    sent = Sent(iter([b"ab", bytearray(b"c"), memoryview(b"d")])).run()
    assert sent.session.messages == [binary(b"ab"), binary(b"c"), binary(b"d"), END]
    assert sent.is_over


def test_text_goes_out_as_json_with_the_encoding_on_the_first_chunk() -> None:
    """Row `string stream chunk`."""
    sent = Sent(iter(["ä", 'b"'])).run()
    assert sent.session.messages == [
        {"responseId": 3, "type": "stream", "chunk": "ä", "encoding": "utf8"},
        {"responseId": 3, "type": "stream", "chunk": 'b"'},
        END,
    ]
    assert sent.session.frames[0] == '{"responseId":3,"type":"stream","chunk":"ä","encoding":"utf8"}'


def test_no_chunk_is_an_end_alone() -> None:
    assert Sent(iter([])).run().session.messages == [END]
    assert Sent(iter([b"", ""])).run().session.messages == [ERROR]  # of two kinds
    assert Sent(iter([b"", b""])).run().session.messages == [END]


def test_a_sender_that_is_given_a_window_says_that_it_knows_of_windows() -> None:
    assert Sent(iter([b"a"]), 100).run().session.messages == [START, binary(b"a"), END]


def test_large_chunks_go_out_in_pieces() -> None:
    data = bytes(range(256)) * 1000
    sent = Sent(iter([data])).run()
    assert b"".join(sent.session.chunks) == data  # type: ignore[arg-type]
    assert all(len(chunk) <= PIECE for chunk in sent.session.chunks)


@pytest.mark.parametrize("make", [lambda: io.BytesIO(b"x" * 100_000), lambda: io.StringIO("ü" * 100_000)])
def test_a_file_is_read_to_its_end_and_closed(make: Callable[[], Any]) -> None:
    file = make()
    whole = file.getvalue()
    sent = Sent(file).run()
    assert type(whole)().join(sent.session.chunks) == whole
    assert sent.session.messages[-1] == END
    assert file.closed


def test_what_a_caller_has_put_up_is_his_to_close() -> None:
    file = io.BytesIO(b"x")
    Sent(file, is_ours=False).run()
    assert not file.closed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (iter([]), True), ((x for x in ()), True), (map(str, []), True), (io.StringIO(), True),
        ([1], False), (range(3), False), ("text", False), (b"bytes", False), (None, False), ({}, False),
    ],
)  # fmt: skip
def test_what_is_a_stream(value: Any, expected: bool) -> None:
    assert is_stream(value) is expected


# Windows


@given(
    st.lists(st.binary(max_size=300), max_size=8) | st.lists(st.text(max_size=100), max_size=8),
    st.integers(1, 400),
    st.lists(st.integers(1, 200), max_size=50),
)
def test_no_more_goes_out_than_was_allowed(chunks: list[Any], window: int, credits: list[int]) -> None:
    sent = Sent(iter(chunks), window).run()
    allowed = max(window, 4)
    for credit in [*credits, 1 << 20]:
        assert sum(map(size_of, sent.session.chunks)) <= allowed
        sent.sending.add_credit(credit)
        allowed += credit
        if sent.resumed:
            sent.resumed = 0
            sent.run()
    assert sent.is_over
    assert sent.session.messages[-1] == END
    kind: Any = str if chunks and isinstance(chunks[0], str) else bytes
    assert kind().join(sent.session.chunks) == kind().join(chunks)


def test_a_chunk_is_cut_only_where_it_is_larger_than_half_a_window() -> None:
    sent = Sent(iter([b"12345", b"6789", b"abcdefgh"]), 8).run()
    assert sent.session.chunks == [b"12345"]
    for credit in (1, 4, 3):
        sent.sending.add_credit(credit)
        if sent.resumed:
            sent.run()
    assert sent.session.chunks == [b"12345", b"6789", b"abcd"]
    sent.sending.add_credit(100)
    sent.run()
    assert b"".join(sent.session.chunks) == b"123456789abcdefgh"  # type: ignore[arg-type]


def test_nothing_more_is_asked_of_a_generator_than_may_go_out() -> None:
    asked = []

    def generate() -> Iterator[bytes]:
        for number in range(100):
            asked.append(number)
            yield b"12345"

    sent = Sent(generate(), 10).run()
    assert asked == [0, 1]
    sent.sending.add_credit(1)
    assert sent.resumed == 1
    sent.run()
    assert asked == [0, 1, 2]
    sent.sending.cancel()
    sent.run()


def test_credit_that_comes_while_it_runs_is_used_at_once() -> None:
    def generate() -> Iterator[bytes]:
        for _ in range(3):
            sent.sending.add_credit(5)
            yield b"12345"

    sent = Sent(generate(), 5)
    sent.run()
    assert sent.resumed == 0
    assert sent.session.messages[-1] == END


# Ends


def test_a_generator_that_raises_is_a_failure_with_the_text_of_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row `stream failure`: always that generic text, and nothing else on the model's wire."""

    def generate() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("what went wrong")

    with caplog.at_level(logging.WARNING, "connman.rpc"):
        assert Sent(generate()).run().session.messages == [binary(b"a"), ERROR]
    assert "what went wrong" in caplog.text
    cause = {"name": "ValueError", "message": "what went wrong"}
    assert Sent(generate(), 100).run().session.messages[-1] == {**ERROR, "cause": cause}


@pytest.mark.parametrize("chunks", [[1], [b"a", "b"], ["a", b"b"], [None], [["a"]]])
def test_what_is_no_chunk_fails_the_stream(chunks: list[Any]) -> None:
    assert Sent(iter(chunks)).run().session.messages[-1] == ERROR


class Watched:
    """A generator that notes when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def generate(self, during: Callable[[], object] = lambda: None) -> Iterator[bytes]:
        try:
            while True:
                during()
                yield b"12345"
        finally:
            self.is_closed = True


def test_a_stream_that_is_cancelled_while_it_waits_is_closed_and_tells_the_reader() -> None:
    watched = Watched()
    sent = Sent(watched.generate(), 5).run()
    assert not sent.is_over
    sent.sending.cancel()
    sent.sending.cancel()
    assert sent.resumed == 1
    sent.run()
    assert sent.is_over
    assert watched.is_closed
    assert sent.session.messages == [START, binary(b"12345"), ERROR]


def test_a_stream_that_is_cancelled_while_a_chunk_is_made_sends_no_more_than_that() -> None:
    watched = Watched()
    sent: Sent

    def cancel() -> None:
        sent.sending.cancel()

    sent = Sent(watched.generate(cancel))
    sent.run()
    assert watched.is_closed
    assert sent.session.messages == [binary(b"12345"), ERROR]


def test_a_stream_that_is_cancelled_before_it_runs_asks_for_no_chunk() -> None:
    watched = Watched()
    sent = Sent(watched.generate())
    sent.sending.cancel()
    sent.run()
    assert sent.session.messages == [ERROR]
    assert sent.is_over


def test_a_path_that_is_gone_ends_it() -> None:
    watched = Watched()
    sent = Sent(watched.generate(lambda: setattr(sent.session, "is_broken", True)))
    sent.run()
    assert sent.is_over
    assert watched.is_closed
    assert sent.session.messages == []


def test_a_generator_that_raises_when_it_is_closed_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def generate() -> Iterator[bytes]:
        try:
            while True:
                yield b"12345"
        finally:
            raise ValueError("at the end")

    sent = Sent(generate(), 5).run()
    sent.sending.cancel()
    sent.run()
    assert sent.is_over
    assert "at the end" in caplog.text


def test_no_thread_for_it_closes_it() -> None:
    file = io.BytesIO(b"x")
    sent = Sent(file)
    sent.sending.drop()
    assert sent.is_over
    assert file.closed


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


def test_a_generator_runs_in_the_context_of_its_service() -> None:
    def generate() -> Iterator[str]:
        yield variable.get()
        variable.set("changed")
        yield variable.get()

    token = variable.set("inside")
    sent = Sent(generate(), 6)
    variable.reset(token)
    sent.run()
    sent.sending.add_credit(100)
    sent.run()
    assert sent.session.chunks == ["inside", "changed"]
    assert variable.get() == "outside"
