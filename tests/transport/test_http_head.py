"""What is a head, what is left out before it, and what is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.transport.http_head import read_head
from connman.transport.upgrade import BadAnswer
from tests.transport.streams import PLACES, cut

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


def head(*pieces: bytes) -> bytes:
    """Return what is read of these pieces, behind which the file ends."""
    chunks = filter(None, pieces)
    return read_head(lambda _: next(chunks, b""))


def with_header(*lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", b""))


@pytest.mark.parametrize(
    "form", [LENGTH, CHUNKED, b"HTTP/1.0 404 \r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n"]
)
@given(places=PLACES)
def test_interim_answers_are_left_out_however_it_is_cut(form: bytes, places: list[int]) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert head(form + b"hello") == form + b"hello"
    assert head(*cut(interim + form, places)) == form


def test_an_end_of_file_before_it_is_told_from_half_of_it() -> None:
    assert head() == b""
    assert head(b"HTTP/1.1 100 Continue\r\n\r\n") == b""
    for size in range(1, len(LENGTH)):
        with pytest.raises(OSError, match="cut short"):
            head(LENGTH[:size])


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: -5"],
        [b"Content-Length: +5"],
        [b"Content-Length: 0_5"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length:"],
        [b"Content-Length: " + b"9" * 19],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"no header"],
        [b"A : b"],
        [b"A: b\rC: d"],
        [b"A: \0"],
    ],
)
def test_what_leaves_in_doubt_where_it_ends_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(BadAnswer):
        head(with_header(*lines) + b"hello")


def test_a_length_may_be_told_twice() -> None:
    form = with_header(b"Content-Length: 5", b"content-length: 5")
    assert head(form) == form


@pytest.mark.parametrize(
    "chunk", [b"HTTP/1.1 103 E\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"a: " + b"b" * 8000 + b"\r\n", b"x"]
)
def test_nothing_is_endless(chunk: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_head(lambda _: chunk)
    reading = iter([b"HTTP/1.1 200 OK\r\n"])
    with pytest.raises(BadAnswer):
        read_head(lambda _: next(reading, chunk))


@given(st.lists(st.binary(max_size=60)))
def test_anything_is_a_head_or_an_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(OSError, BadAnswer):
        head(b"HTTP/1.1 ", *pieces)
