"""Targets: what is taken, what it becomes, what is refused, and that nothing secret is ever shown."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.endpoint import Endpoint
from connman.errors import ConnmanError, InvalidTarget

SECRET = "hunter2-S3CR3T"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("ws://example.com", Endpoint("ws", "example.com", 80, "/")),
        ("ws://example.com:", Endpoint("ws", "example.com", 80, "/")),
        ("wss://example.com/a/b", Endpoint("wss", "example.com", 443, "/a/b")),
        ("WSS://EXAMPLE.Com:443/A", Endpoint("wss", "example.com", 443, "/A")),
        ("ws://h?x=1", Endpoint("ws", "h", 80, "/", "x=1")),
        ("ws://h/p;v=1?a=b&c=%20d", Endpoint("ws", "h", 80, "/p;v=1", "a=b&c=%20d")),
        ("ws://h/ü?é", Endpoint("ws", "h", 80, "/%C3%BC", "%C3%A9")),
        ("ws://h/a\\b", Endpoint("ws", "h", 80, "/a%5Cb")),
        ('ws://h/"<>', Endpoint("ws", "h", 80, "/%22%3C%3E")),
        ("ws://bücher.example/", Endpoint("ws", "xn--bcher-kva.example", 80, "/")),
        ("ws://BÜCHER.example/", Endpoint("ws", "xn--bcher-kva.example", 80, "/")),
        ("ws://[::1]:9/", Endpoint("ws", "::1", 9, "/")),
        ("ws://[0:0:0:0:0:0:0:0001]/", Endpoint("ws", "::1", 80, "/")),
        ("ws://[2001:DB8::A]/", Endpoint("ws", "2001:db8::a", 80, "/")),
        ("tcp://[fe80::1%25Eth0]:5", Endpoint("tcp", "fe80::1%Eth0", 5)),
        ("tcp://[fe80::1%eth0]:5", Endpoint("tcp", "fe80::1%eth0", 5)),
        ("ws://under_score.x/", Endpoint("ws", "under_score.x", 80, "/")),
        ("ws://example.com./", Endpoint("ws", "example.com.", 80, "/")),
        ("tcp://127.0.0.1:1", Endpoint("tcp", "127.0.0.1", 1)),
        ("tcp://h:65535/", Endpoint("tcp", "h", 65535)),
        ("tls://h:6697", Endpoint("tls", "h", 6697)),
        ("ws://u:p@h/", Endpoint("ws", "h", 80, "/", "", "u", "p")),
        ("ws://u%40x:p%3Aq%2F@h/", Endpoint("ws", "h", 80, "/", "", "u@x", "p:q/")),
        ("ws://u@h/", Endpoint("ws", "h", 80, "/", "", "u", None)),
        ("ws://u@v@h/", Endpoint("ws", "h", 80, "/", "", "u@v", None)),
        ("unix:///run/x.sock", Endpoint("unix", path="/run/x.sock")),
        ("unix:///run/a%20b", Endpoint("unix", path="/run/a b")),
        ("unix:///run/a?b#c", Endpoint("unix", path="/run/a?b#c")),
        ("memory://name", Endpoint("memory", path="name")),
        (("Example.com", 80), Endpoint("tcp", "example.com", 80)),
        (("::1", 80), Endpoint("tcp", "::1", 80)),
        (("[::1]", 80), Endpoint("tcp", "::1", 80)),
        (Endpoint("tcp", "h", 1), Endpoint("tcp", "h", 1)),
    ],
)
def test_a_target_becomes_a_normalised_endpoint(target: object, expected: Endpoint) -> None:
    assert Endpoint.parse(target) == expected
    assert hash(Endpoint.parse(target)) == hash(expected)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "example.com",
        "example.com:80",
        "//example.com",
        "://example.com",
        "http://example.com/",
        "ws:/example.com",
        "ws:example.com",
        "ws://",
        "ws:///path",
        "ws://:80/",
        "ws://u:p@/",
        "ws://h:0/",
        "ws://h:65536/",
        "ws://h:99999999999999999999/",
        "ws://h:abc/",
        "ws://h:-1/",
        "ws://h:+1/",
        "ws://h:8_0/",
        "ws://h:٣/",
        "ws://h:80:80/",
        "ws://h/#fragment",
        "ws://h/#",
        "ws://h#",
        " ws://h/",
        "ws://h/ ",
        "ws://h/a b",
        "ws://h/\r\nX: y",
        "ws://h/\n",
        "ws://h\r/",
        "ws://h/\0",
        "ws://h/\x1f",
        "ws://h/\x7f",
        "ws://h/\x85",
        "ws://h/\u2028",
        "ws://h/\ud800",
        "ws://h/\u00a0",
        "ws://good.example\\@evil.example/",
        "ws://good.example\\.evil.example/",
        "ws://h%41/",
        "ws://a,b/",
        "ws://a;b/",
        'ws://a"b/',
        "ws://a<b>/",
        "ws://.example.com/",
        "ws://a..b/",
        "ws://a../",
        "ws://./",
        "ws://" + "a" * 64 + ".example/",
        "ws://" + "ü" * 64 + ".example/",
        "ws://[::1/",
        "ws://[fe80::1%25a/b]/",
        "ws://[fe80::1%25é]/",  # was refused only by the dial, which makes a request of it
        "ws://::1]/",
        "ws://::1/",
        "ws://[::1]x/",
        "ws://[::1]x:80/",
        "ws://x[::1]:80/",
        "ws://[]/",
        "ws://[foo]/",
        "ws://[::g]/",
        "ws://[1.2.3.4]/",
        "ws://\u2100.example/",
        "tcp://h",
        "tcp://h:",
        "tls://h",
        "tcp://h:1/path",
        "tcp://h:1?q",
        "tcp://u@h:1",
        "tls://u:p@h:1",
        "unix://",
        "unix://relative/path",
        "unix:///a%00b",
        "unix:///a%0Ab",
        "memory://",
        "memory://a\tb",
        ("h", 0),
        ("h", 65536),
        ("h", "80"),
        ("h", 80.0),
        ("h", True),
        ("h", None),
        ("", 80),
        (b"h", 80),
        (None, 80),
        ("h x", 80),
        ("h\r\n", 80),
        ("h\0", 80),
        ("u@h", 80),
        ("h/p", 80),
        ("h:80", 80),
        ("h\\", 80),
        ("[h", 80),
        ("a\u2100b", 80),
        ("h",),
        ("h", 80, 0),
        ["h", 80],
        b"ws://h/",
        None,
        80,
        object(),
    ],
)
def test_a_malformed_target_is_refused(target: object) -> None:
    with pytest.raises(InvalidTarget) as caught:
        Endpoint.parse(target)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ConnmanError)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ws://H", "WS://h:80/"),
        ("wss://h/", "wss://h:443"),
        ("tcp://h:5", ("H", 5)),
        ("tcp://[::1]:5", ("0::1", 5)),
        ("ws://ü.example", "ws://xn--tda.example/"),
        ("ws://h/%20", "ws://h/%20"),
    ],
)
def test_two_ways_to_say_the_same_are_equal(one: object, other: object) -> None:
    assert Endpoint.parse(one) == Endpoint.parse(other)
    assert len({Endpoint.parse(one), Endpoint.parse(other)}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ws://h/", "wss://h/"),
        ("ws://h/", "ws://h:81/"),
        ("ws://h/a", "ws://h/A"),
        ("ws://h/?a", "ws://h/?b"),
        ("ws://u:p@h/", "ws://u:q@h/"),
        ("ws://u@h/", "ws://h/"),
        ("unix:///a", "unix:///A"),
        ("memory://a", "memory://A"),
        ("tcp://h:1", "tls://h:1"),
    ],
)
def test_what_differs_is_not_equal(one: object, other: object) -> None:
    assert Endpoint.parse(one) != Endpoint.parse(other)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("ws://h:80/a", "ws://h/a"),
        ("wss://h:443", "wss://h/"),
        ("wss://h:80", "wss://h:80/"),
        ("ws://h/?token=x", "ws://h/?…"),
        ("ws://u:p@h:5/x", "ws://h:5/x"),
        ("ws://[::1]:5", "ws://[::1]:5/"),
        (("h", 5), "tcp://h:5"),
        ("tls://[::1]:5", "tls://[::1]:5"),
        ("unix:///run/x", "unix:///run/x"),
        ("memory://x", "memory://x"),
    ],
)
def test_text(target: object, text: str) -> None:
    assert str(Endpoint.parse(target)) == text


def test_resource_is_path_and_query() -> None:
    assert Endpoint.parse("ws://h/a?b=c").resource == "/a?b=c"
    assert Endpoint.parse("ws://h").resource == "/"


def test_what_is_secure_and_what_is_a_websocket() -> None:
    kinds = {
        scheme: (endpoint.is_secure, endpoint.is_websocket)
        for scheme in ("tcp", "tls", "ws", "wss", "xhr-polling+http", "xhr-streaming+https")
        for endpoint in [Endpoint.parse(f"{scheme}://h:1")]
    }
    assert kinds == {
        "tcp": (False, False),
        "tls": (True, False),
        "ws": (False, True),
        "wss": (True, True),
        "xhr-polling+http": (False, False),
        "xhr-streaming+https": (True, False),
    }


@pytest.mark.parametrize("kind", ["streaming", "polling"])
@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_transports_over_http(kind: str, scheme: str, port: int) -> None:
    endpoint = Endpoint.parse(f"XHR-{kind}+{scheme}://u:p@Host/base/?{SECRET}")
    assert (endpoint.host, endpoint.port, endpoint.path, endpoint.is_http) == ("host", port, "/base/", True)
    assert (endpoint.user, endpoint.password, endpoint.query) == ("u", "p", SECRET)
    assert str(endpoint) == f"xhr-{kind}+{scheme}://host/base/?…"
    assert endpoint != Endpoint.parse(f"xhr-{kind}+{scheme}://Host/base/?{SECRET}")
    assert not Endpoint.parse(f"ws://h:{port}").is_http
    with pytest.raises(InvalidTarget):
        Endpoint.parse(f"{scheme}://host/base")


def test_no_secret_is_shown() -> None:
    endpoint = Endpoint.parse(f"wss://{SECRET}:{SECRET}@h/p?token={SECRET}")
    for text in (str(endpoint), repr(endpoint), f"{endpoint}", f"{[endpoint]}"):
        assert SECRET not in text
    assert SECRET in endpoint.resource


@pytest.mark.parametrize(
    "url",
    [
        f"wss://u:{SECRET}@h:port/",
        f"wss://u:{SECRET}@/",
        f"wss://u:{SECRET}@h:0/",
        f"wss://u:{SECRET}@h/#x",
        f"wss://u:{SECRET}@[::1/",
        f"wss://u:{SECRET}@\u2100/",
        f"wss://u:{SECRET}#@h/",
        f"wss://h/?token={SECRET} ",
        f"wss://h:{SECRET}/",
        f"tcp://u:{SECRET}@h:1",
        f"{SECRET}",
        f"u:{SECRET}@h://",
        f"{SECRET} wss://h",
    ],
)
def test_no_secret_is_in_a_refusal(url: str) -> None:
    with pytest.raises(InvalidTarget) as caught:
        Endpoint.parse(url)
    assert SECRET.lower() not in str(caught.value).lower()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_endpoint_is_a_value() -> None:
    endpoint = Endpoint.parse(f"wss://u:{SECRET}@h/p?q")
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint
    with pytest.raises(AttributeError):
        endpoint.host = "x"  # type: ignore[misc]


@given(st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"ws://{text}", f"ws://h/{text}", f"unix:///{text}", f"tcp://{text}:1"):
        try:
            endpoint = Endpoint.parse(url)
        except InvalidTarget:
            continue
        for shown in (endpoint.resource, str(endpoint), endpoint.authority):
            assert shown.isprintable()
        if endpoint.is_websocket:
            assert endpoint.resource.isascii()
            assert endpoint.authority.isascii()


@given(st.text(), st.integers())
def test_any_pair_is_taken_or_refused(host: str, port: int) -> None:
    try:
        endpoint = Endpoint.parse((host, port))
    except InvalidTarget:
        return
    assert endpoint.authority.isascii()
    assert not set(endpoint.host) & set("\r\n\0 /?#@\\")


@given(
    st.sampled_from(["ws", "wss"]),
    st.from_regex(r"\A[a-z0-9-]{1,9}(\.[a-z0-9]{1,5})?\Z"),
    st.integers(1, 65535),
)
def test_what_is_printed_is_read_back(scheme: str, host: str, port: int) -> None:
    endpoint = Endpoint.parse(f"{scheme}://{host}:{port}/a%20b")
    assert Endpoint.parse(str(endpoint)) == endpoint
