"""The upgrade's words: what enters a request, and what an answer has to say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.endpoint import Endpoint
from connman.errors import InvalidOption, InvalidTarget
from connman.transport.upgrade import (
    Answer,
    BadAnswer,
    ChunkedBody,
    HeadReader,
    check_accepted,
    make_request,
)
from connman.version import __version__

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
ENDPOINT = Endpoint("ws", "example.com", 80, "/chat", "a=b")
GOOD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX: a\r\nx:  b \r\n\r\n"


def test_request_has_our_defaults() -> None:
    request = make_request(ENDPOINT, [], [])
    assert (request.resource, request.host) == ("/chat?a=b", "example.com")
    assert request.headers == (f"User-Agent: connman/{__version__}",)


@pytest.mark.parametrize(
    ("host", "port", "sent"),
    [("::1", 80, "[::1]"), ("fe80::1%eth0", 80, "[fe80::1]"), ("fe80::1%eth0", 81, "[fe80::1]:81")],
)
def test_the_host_names_no_interface(host: str, port: int, sent: str) -> None:
    """RFC 6874 3: it means something on this machine only."""
    assert make_request(Endpoint("ws", host, port, "/"), [], []).host == sent


def test_request_keeps_repeated_headers_and_takes_the_user_s_for_ours() -> None:
    given_ = [
        ("X-A", "1"),
        ("user-agent", "me"),
        ("X-A", "2"),
        ("HOST", "other"),
        ("authorization", "Bearer t"),
    ]
    request = make_request(Endpoint("ws", "h", 1, "/", user="u", password="p"), given_, ["chat"])
    assert request.headers == ("X-A: 1", "user-agent: me", "X-A: 2", "authorization: Bearer t")
    assert (request.host, request.subprotocols) == ("other", ("chat",))


def test_request_carries_userinfo_as_basic_authorization() -> None:
    request = make_request(Endpoint("ws", "h", 1, "/", user="Aladdin", password="open sesame"), [], [])
    assert "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" in request.headers


def test_request_hides_its_secrets() -> None:
    request = make_request(Endpoint("ws", "h", 1, "/", "t=S3CR3T", "u", "S3CR3T"), [("X", "S3CR3T")], [])
    assert "S3CR3T" not in repr(request)


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\0", "\x7f", " x"])
def test_nothing_that_ends_a_line_enters_a_request(bad: str) -> None:
    for endpoint in (
        Endpoint("ws", f"h{bad}", 1, "/"),
        Endpoint("ws", "h", 1, f"/{bad}"),
        Endpoint("ws", "h", 1, "/", bad),
    ):
        with pytest.raises(InvalidTarget):
            make_request(endpoint, [], [])
    with pytest.raises(InvalidOption):
        make_request(ENDPOINT, [], [f"chat{bad}"])
    with pytest.raises(InvalidOption):
        make_request(ENDPOINT, [(f"X{bad}", "v")], [])
    if bad != " x":
        for name in ("X", "Host", "Origin", "Cookie", "Authorization", "User-Agent"):
            with pytest.raises(InvalidOption):
                make_request(ENDPOINT, [(name, f"v{bad}")], [])


def read(*chunks: bytes) -> tuple[Answer | None, bytes]:
    reader = HeadReader()
    for number, chunk in enumerate(chunks, 1):
        if (answer := reader.feed(chunk)) is not None:
            return answer, reader.leftover + b"".join(chunks[number:])
    return None, b""


def test_a_line_may_be_as_long_as_the_limit_however_it_is_cut() -> None:
    """Cut before the last byte of its end, the first one counted as one of the line's own: it was refused then."""
    line = b"X-Long: " + b"x" * (8192 - len("X-Long: "))
    head = b"HTTP/1.1 200 OK\r\n" + line + b"\r"
    assert read(head, b"\n\r\n") == read(head + b"\n\r\n")
    with pytest.raises(BadAnswer):
        read(head.replace(b"X-", b"XX-"), b"\n\r\n")


def test_head_is_read_with_what_comes_behind() -> None:
    answer, leftover = read(GOOD + b"\x81\x00\r\n\r\n")
    assert answer == Answer("1.1", 101, (("upgrade", "websocket"), ("x", "a"), ("x", "b")))
    assert leftover == b"\x81\x00\r\n\r\n"
    assert answer.joined() == {"upgrade": "websocket", "x": "a, b"}


@given(st.lists(st.integers(1, len(GOOD) - 1), unique=True).map(sorted))
def test_head_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    chunks = [GOOD[a:b] for a, b in zip([0, *cuts], [*cuts, len(GOOD)], strict=True)]
    assert read(*chunks) == read(GOOD)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=3),
    st.integers(1, len(GOOD)),
)
def test_a_damaged_head_is_an_answer_or_a_bad_one(damage: list[tuple[int, int]], place: int) -> None:
    data = bytearray(GOOD + b"\x81\x00")
    for where, byte in damage:
        data[where] = byte

    def outcome(*chunks: bytes) -> object:
        try:
            return read(*chunks)
        except BadAnswer as error:
            return str(error)

    assert outcome(bytes(data)) == outcome(bytes(data[:place]), bytes(data[place:]))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"garbage",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/2 101\r\n",
        b"HTTP/1.1 abc\r\n",
        b"HTTP/1.1 1012 x\r\n",
        b"HTTP/1.1  101 x\r\n",
        b"HTTP/1.1 000 x\r\n",
        b"HTTP/1.1 101 x\r\nno colon\r\n",
        b"HTTP/1.1 101 x\r\nA : b\r\n",
        b"HTTP/1.1 101 x\r\n: b\r\n",
        b"HTTP/1.1 101 x\r\nA: b\r\n folded\r\n",
        b"HTTP/1.1 101 x\r\nA: b\0c\r\n",
        b"HTTP/1.1 101 x\r\nA: b\nB: c\r\n",
        b"HTTP/1.1 101 x\r\nA: b\rB: c\r\n",
        b"HTTP/1.1 " + b"1" * 8200,
        b"HTTP/1.1 101 x\r\nA: " + b"x" * 8200,
        b"HTTP/1.1 101 x\r\nA: " + b"x" * 8200 + b"\r\n",
        b"HTTP/1.1 101 x\r\n" + b"A: b\r\n" * 129,
    ],
)
def test_bad_heads_are_refused_at_once(data: bytes) -> None:
    for chunks in ((data,), [bytes((byte,)) for byte in data]):
        with pytest.raises(BadAnswer) as caught:
            read(*chunks)
        assert "SSH" not in str(caught.value)  # an echo server would send our own secrets back


def test_limits_allow_what_they_should() -> None:
    line = b"A: " + b"x" * 8189
    answer, _ = read(b"HTTP/1.1 200\r\n" + (line + b"\r\n") * 128 + b"\r\n")
    assert answer is not None
    assert len(answer.headers) == 128


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 101 x\r\nUpgr"])
def test_end_of_file_in_the_head_is_told(begin: bytes) -> None:
    with pytest.raises(BadAnswer, match="closed the connection"):
        read(*([begin] if begin else []), b"")


def answered(version: str = "1.1", **changes: str | list[str] | None) -> Answer:
    headers: dict[str, str | list[str] | None] = {
        "upgrade": "WebSocket", "connection": "keep-alive, Upgrade", "sec-websocket-accept": ACCEPT
    }  # fmt: skip
    headers |= {
        f"sec-websocket-{name}" if name[0] not in "uc" else name: value for name, value in changes.items()
    }
    pairs = [
        (n, v)
        for n, values in headers.items()
        for v in ([values] if isinstance(values, str) else values or [])
    ]
    return Answer(version, 101, tuple(pairs))


def test_a_good_answer_passes() -> None:
    assert check_accepted(answered(), KEY, []) is None
    assert check_accepted(answered(connection=["keep-alive", "upgrade"]), KEY, []) is None
    assert check_accepted(answered(protocol="b"), KEY, ["a", "b"]) == "b"


@pytest.mark.parametrize(
    ("answer", "offered"),
    [
        (answered(version="1.0"), []),
        (answered(upgrade=None), []),
        (answered(upgrade="h2c"), []),
        (answered(upgrade=["websocket", "websocket"]), []),
        (answered(connection=None), []),
        (answered(connection="keep-alive"), []),
        # What Python takes for white space is not all white space in HTTP.
        (answered(connection="\xa0Upgrade"), []),
        (answered(accept=None), []),
        (answered(accept="AAAA"), []),
        (answered(accept=ACCEPT.lower()), []),
        (answered(accept=ACCEPT.swapcase()), []),
        (answered(accept=[ACCEPT, ACCEPT]), []),
        (answered(protocol="chat"), []),
        (answered(protocol="chat"), ["other"]),
        (answered(protocol="CHAT"), ["chat"]),
        (answered(protocol=["chat", "chat"]), ["chat"]),
        (answered(), ["chat"]),
    ],
)
def test_a_lying_answer_is_refused(answer: Answer, offered: list[str]) -> None:
    with pytest.raises(BadAnswer):
        check_accepted(answer, KEY, offered)


def unchunked(*pieces: bytes) -> tuple[bytes, bool]:
    body = ChunkedBody()
    for piece in pieces:
        body.feed(piece)
    return body.content(), body.is_complete


@pytest.mark.parametrize(
    ("body", "content", "is_complete"),
    [
        (b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", True),
        (b"5\r\nab", b"ab", False),
        (b"2\r\nab\r\n3\r", b"ab", False),
        (b"zz\r\nab", b"", False),
        # Its content looks like the end of a body; what looked only at the last bytes that had come, as connman did,
        # stopped there when they were the last of a segment.
        (b"7\r\n0\r\n\r\nhi\r\n0\r\nTrailer: x\r\n\r\n", b"0\r\n\r\nhi", True),
        (b"00;last\r\nTrailer: x\r\n", b"", True),
    ],
)
def test_chunked_bodies_are_put_together_however_they_are_cut(
    body: bytes, content: bytes, is_complete: bool
) -> None:
    assert unchunked(body) == (content, is_complete)
    assert unchunked(*(body[i : i + 1] for i in range(len(body)))) == (content, is_complete)
