"""What users give: targets, proxies, options, the command line, its input, and what it prints."""

import base64
import contextlib
import io
import json
import pickle
from collections.abc import Callable
from random import Random
from urllib.parse import quote

from connman.cli.arguments import UsageError, parse
from connman.cli.lines import LineSplitter
from connman.cli.render import Change, JsonRenderer, Note, TextRenderer
from connman.cli.session import Settings
from connman.connection.connection import Connection
from connman.endpoint import Endpoint
from connman.errors import InvalidOption, InvalidTarget
from connman.options import checked_headers, make_options
from connman.records import Message, State
from connman.transport.proxy import usable_proxy
from connman.transport.upgrade import Request, make_request
from tests.rigs.fuzz.script import Script, cut, piece
from tests.rigs.fuzz.target import Target, expect
from tests.rigs.fuzz.targets.streams import check_framing_options

_SECRET = "S3CR3T"

# Targets

_PORTS = (80, 0, 65535, 65536, -1, True, None, "80", 80.0, 10**400)


def check_target(case: bytes) -> None:
    """Take anything for a target or for a proxy: an address, or an error that shows no secret."""
    script = Script(case)
    kind = script.byte()
    if kind < 8:
        target: object = script.choose(
            (None, 7, b"ws://h", ("h",), ("h", 1, 2), (1, 2), ["h", 1], object(), Endpoint("x"))
        )
    elif kind < 32:
        target = (script.text(), script.choose(_PORTS))
    else:
        target = script.rest().decode(errors="surrogateescape")
    if kind >= 208 and isinstance(target, str):
        _check_proxy_url(target)
        return
    try:
        endpoint = Endpoint.parse(target)
    except InvalidTarget as error:
        _check_complaint(error)
        return
    expect(endpoint is target or kind >= 8, "not a target", target)
    if endpoint is not target:
        _check_endpoint(endpoint)
    if kind % 16 == 0 and endpoint is not target:
        Connection(target)  # type: ignore[arg-type]


def _check_complaint(error: Exception) -> None:
    expect(_SECRET not in f"{error} {error!r} {error.__cause__!r}", "an error that shows a secret", error)
    expect(str(error).isprintable(), "a text that is no line for a log", error)
    expect(str(pickle.loads(pickle.dumps(error))) == str(error), "not the same after pickling", error)


def _check_endpoint(endpoint: Endpoint) -> None:
    if _SECRET not in endpoint.path + endpoint.host:
        shown = f"{endpoint} {endpoint!r}"
        expect(_SECRET not in shown, "an address that shows a secret", endpoint)
    expect(
        Endpoint.parse(_url(endpoint)) == endpoint,
        "another address the second time",
        endpoint,
        _url(endpoint),
    )
    expect(
        hash(endpoint) == hash(pickle.loads(pickle.dumps(endpoint))), "another one after pickling", endpoint
    )
    expect(str(endpoint).isprintable(), "a text that is no line for a log", endpoint)
    if endpoint.is_websocket:
        _check_request(make_request(endpoint, [], []))


def _url(endpoint: Endpoint) -> str:
    """Write an endpoint out as a URL, secrets included."""
    if endpoint.scheme == "memory":
        return f"memory://{endpoint.path}"
    if endpoint.scheme == "unix":
        return f"unix://{quote(endpoint.path)}"
    user = ""
    if endpoint.user is not None:
        password = "" if endpoint.password is None else ":" + quote(endpoint.password, safe="")
        user = f"{quote(endpoint.user, safe='')}{password}@"
    # RFC 6874: the "%" before an interface's name is written as "%25".
    host = f"[{endpoint.host.replace('%', '%25', 1)}]" if ":" in endpoint.host else endpoint.host
    return f"{endpoint.scheme}://{user}{host}:{endpoint.port}{endpoint.resource if endpoint.is_websocket else ''}"


def _check_request(request: Request) -> None:
    first = f"GET {request.resource} HTTP/1.1"
    expect(first.isascii() and first.isprintable() and first.count(" ") == 2, "a broken first line", first)
    for line in (f"Host: {request.host}", *request.headers):
        line.encode("latin-1")
        controls = [c for c in line if (c < " " and c != "\t") or c == "\x7f"]
        expect(not controls and ": " in line, "a header of several lines", line)


def _check_proxy_url(url: str) -> None:
    try:
        proxy = usable_proxy(url)
    except InvalidOption as error:
        _check_complaint(error)
        return
    if _SECRET.lower() not in proxy.host.lower():
        expect(_SECRET not in f"{proxy} {proxy!r}", "a proxy that shows a secret", proxy)
    # Taken now and refused at each dial would be too late.
    expect(Endpoint.parse((proxy.host, proxy.port)).host == proxy.host, "a host that is none", proxy)


_URLS = (
    "ws://example.com/", "wss://user:S3CR3T@example.com:8443/a/b?token=S3CR3T", "tcp://10.0.0.1:5000", "tls://[::1]:443",
    "unix:///run/x.sock", "memory://name", "ws://[fe80::1%25eth0]/x", "wss://bücher.example/ü?ö", "ws://h:0/", "ws://h:65536",
    "ws://h#f", "ws://a@b@c/", "ws://h/%zz%00%0d%0a", "ws://[::1", "ws://[::1]x", "ws://h:\u0663", "ws://xn--/", "ws://-.-./",
    "WS://H:80/?", "ws://%41.example/", "ws://h\\@evil/", "http://h", "ws:/h", "//h", "ws://" + "a." * 127 + "a", "ws://\uff11.\uff11",
)  # fmt: skip
_PARTS = (
    "ws://", "wss://", "tcp://", "tls://", "unix://", "memory://", "http://", "socks5h://", "socks4://", "user:S3CR3T@", "@", ":",
    "/", "?", "#", "[", "]", "[::1]", "::", "%25", "%", "%2f", "\r\n", "\0", " ", "\t", "\\", "é", "ß", "İ", "。", "\u200b",
    "\ud800", "xn--", ".", "..", "example", "127.0.0.1", "0x7f.1", ":80", ":99999", "S3CR3T", "?token=S3CR3T", "ǅ", "\u2488",
)  # fmt: skip


def make_target(random: Random) -> bytes:
    kind = random.randrange(256)
    roll = random.random()
    text = random.choice(_URLS) if roll < 0.4 else "".join(random.choices(_PARTS, k=random.randrange(1, 8)))
    if 8 <= kind < 32:
        return bytes((kind,)) + piece(text) + bytes((random.randrange(256),))
    if kind >= 208 and roll < 0.4:
        text = (
            random.choice(("http://", "socks5h://", ""))
            + random.choice(("", "u:S3CR3T@"))
            + random.choice(_PARTS)
            + ":1080"
        )
    return bytes((kind,)) + _bytes(text)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


# Options

_NUMBERS = (
    0, 1, -1, 0.5, 1e-9, float("nan"), float("inf"), 10**400, -(10**400), True, None, "5", 315360000.1, 2**63, b"1", [], 1j,
)  # fmt: skip
_THINGS = (
    None,
    True,
    False,
    0,
    "",
    "reader",
    "thread",
    "deflate",
    b"x",
    [],
    {},
    (),
    object,
    len,
    1.5,
    "\ud800",
    ...,
    {1: 2},
)
_NAMES = (
    "reconnect", "wait", "stop", "retry_if", "ssl_context", "framing", "dispatch", "compression", "proxy", "headers",
    "subprotocols", "open_timeout", "handshake_timeout", "close_timeout", "send_timeout", "ping_interval", "ping_timeout",
    "stable_after", "max_message_size", "no_such_option", "name",
)  # fmt: skip
_ENDPOINT = Endpoint.parse("ws://example.com/")


def check_options(case: bytes) -> None:
    """Give any values to options: they are taken, or an InvalidOption; unknown names are a TypeError."""
    script = Script(case)
    values: dict[str, object] = {}
    for _ in range(1 + script.below(4)):
        name = script.choose(_NAMES)
        values[name] = _value(name, script)
    check_framing_options(script)
    try:
        options = make_options(values)
    except InvalidOption as error:
        expect(_SECRET not in str(error) and str(error).isprintable(), "a complaint with a secret", error)
        return
    except TypeError:
        expect(not values.keys() <= set(_NAMES[:-2]), "a TypeError for known options", values)
        return
    expect(_SECRET not in repr(options), "options that show a secret", options)
    for name in ("open_timeout", "handshake_timeout", "close_timeout", "send_timeout", "ping_timeout"):
        expect(0 < getattr(options, name) < 1e9, "no number of seconds", name, getattr(options, name))
    expect(
        0 <= options.stable_after < 1e9 and 0 < (options.ping_interval or 1) < 1e9,
        "no number of seconds",
        options,
    )
    if options.headers is not None and not callable(options.headers):
        _check_request(make_request(_ENDPOINT, checked_headers(options.headers), options.subprotocols))
    with contextlib.suppress(InvalidOption):
        Connection(_ENDPOINT, **values)  # type: ignore[arg-type]


def _value(name: str, script: Script) -> object:
    if name.endswith(("timeout", "interval", "after", "size")):
        return script.choose(_NUMBERS)
    form = script.below(8)
    if form == 0 or name not in ("headers", "subprotocols", "proxy"):
        return script.choose(_THINGS)
    if name == "proxy":
        return script.text()
    words = [script.text(40) for _ in range(script.below(5))]
    if name == "subprotocols":
        return (words, tuple(words), set(words), iter(words), "".join(words))[form % 5]
    # A complaint says which header it means: a name is no secret.
    names = (word.replace(_SECRET, "") for word in words[::2])
    pairs = list(zip(names, words[1::2], strict=False))
    return (
        pairs,
        dict(pairs),
        iter(pairs),
        words,
        [list(p) for p in pairs],
        tuple(pairs),
        [(w,) for w in words],
    )[form % 7]


_HEADER_WORDS = (
    "X-A", "Authorization", "Bearer S3CR3T", "Host", "a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f", "é", "€", "Upgrade", "", " x ",
    "Cookie", "a=S3CR3T", "X-B\r\nEvil: 1", "x y", "\ud800", "chat", "mqtt", "a,b", "Sec-WebSocket-Protocol", "\t", "\x85", "\u2028",
)  # fmt: skip


def make_options_case(random: Random) -> bytes:
    count = random.randrange(4)
    case = bytes((count,))
    for _ in range(count + 1):
        name = random.randrange(len(_NAMES)) if random.random() < 0.6 else random.choice((9, 10, 8))
        case += bytes((name,))
        if name in (8, 9, 10):
            words = random.choices(_HEADER_WORDS, k=random.randrange(5))
            case += bytes((random.randrange(1, 8),)) + (b"" if name == 8 else bytes((len(words),)))
            case += b"".join(piece(_bytes(word)) for word in words)
        else:
            case += random.randbytes(2)
    return case + piece(random.choice((b"\n", b"", b"\r\n"))) + random.randbytes(1)


# The command line

_WORDS = (
    "connect", "ws://example.com/?t=S3CR3T", "wss://u:S3CR3T@h/", "tcp://h:1", "unix:///x", "--once", "--json", "--binary", "hex",
    "--count", "5", "0", "-1", "--eof-wait", "inf", "nan", "1e400", "-v", "-vvv", "-H", "Authorization: Bearer S3CR3T", "X: a\r\nb",
    "-HX: S3CR3T", "@no-such-file", "@", "-s", "chat", "a b", "--proxy", "http://u:S3CR3T@p:1", "socks5h://p", "none", "--open-timeout",
    "2", "--ping-interval", "--ca", "no-such-file", "--", "-", "--S3CR3T", "-S3CR3T", "S3CR3T", "--binary=S3CR3T", "--count=S3CR3T",
    "--once=S3CR3T", "--json=S3CR3T", "--ping-interval=S3CR3T", "", " ", "\ud800", "é", "9" * 200, "--open-timeout=0", "a\nb",
    "doctor", "--strategy", "default", "--strategy=S3CR3T", "--wss", "--http", "https://u:S3CR3T@h/b?k=S3CR3T", "http://h", "ws://h",
    "--http=S3CR3T", "--http=http://S3CR3T", "--wss=wss://u:S3CR3T@h", "--expect-message",
    "--ca=a\udc00", "--ca=", "--proxy=S3CR3T", "--eof-wait=S3CR3T", "--verbose", "--verb", "\u0663",
)  # fmt: skip


def check_command(case: bytes) -> None:
    """Parse any command line: settings, or one line of complaint that quotes nothing."""
    script, words = Script(case), []
    while script and len(words) < 16:
        words.append(script.text())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            settings, verbosity = parse(words)
    except UsageError as error:
        text = str(error)
        expect(_SECRET not in text, "a complaint with a secret", words, error)
        expect(text.isprintable() and len(text) < 1000, "more than a line of complaint", words, error)
        return
    except SystemExit:
        expect(any(word.startswith(("-h", "--h", "--v", "-v")) for word in words), "an exit", words)
        return
    expect(verbosity >= 0 and printed.getvalue() == "", "something was printed", printed.getvalue())
    endpoints = (
        [settings.endpoint] if isinstance(settings, Settings) else [way.endpoint for way in settings.ways]
    )
    # A path is shown, and so is a host.
    is_shown = any(_SECRET in each.path + each.host.upper() for each in endpoints if each)
    expect(_SECRET not in repr(settings) or is_shown, "settings with a secret", settings)
    make_options(settings.options)


def make_command(random: Random) -> bytes:
    words = random.choices(_WORDS, k=random.randrange(7))
    if random.random() < 0.8:
        words = [random.choice(("connect", "doctor")), *words]
        if random.random() < 0.8:
            words.insert(random.randrange(1, len(words) + 1), random.choice(_WORDS[1:5]))
    return b"".join(piece(_bytes(word)) for word in words)


# What it reads and prints

_RENDERERS: tuple[Callable[[], TextRenderer], ...] = (
    lambda: TextRenderer(binary="hex", is_terminal=True, has_colour=False),
    lambda: TextRenderer(binary="base64", is_terminal=False, has_colour=False),
)


def check_lines(case: bytes) -> None:
    """Cut input into lines, whole and in pieces; show what came as lines of text and of JSON."""
    script = Script(case)
    seed, longest, rest = script.byte(), script.choose((1000, 1, 5, 0)), script.rest()
    whole, pieces = LineSplitter(longest), LineSplitter(longest)
    found = whole.feed(rest) + whole.rest()
    split = [line for chunk in cut(rest, seed) for line in pieces.feed(chunk)] + pieces.rest()
    expect(found == split, "a split makes a difference", found, split)
    *lines, last = rest.split(b"\n")
    expected = [
        line.removesuffix(b"\r") if len(line) <= longest else None for line in lines + [last] * bool(last)
    ]
    expect(found == expected, "other lines", found, expected)
    _check_shown(rest[:200], rest[:200].decode(errors="surrogateescape"))


def _check_shown(data: bytes, text: str) -> None:
    message: Message
    for message in (data, data.decode(errors="replace")):
        line = json.loads(_line(JsonRenderer().message(message)))
        said = base64.b64decode(line["data"]) if line["format"] == "base64" else line["data"]
        expect(said == message, "JSON of something else", line, message)
        for make_renderer in _RENDERERS:
            shown = make_renderer().message(message)
            expect(shown.endswith(b"\n"), "no end of the line", shown)
            is_text = isinstance(message, str)
            controls = [c for c in shown.decode() if (c < " " and c not in "\t\n") or "\x7f" <= c <= "\x9f"]
            expect(
                (is_text and make_renderer is _RENDERERS[1]) or not controls, "what a terminal obeys", shown
            )
    for renderer in (JsonRenderer(), _RENDERERS[0]()):
        note = _line(renderer.note(Note("warning", text)))
        change = _line(
            renderer.change(Change(State.WAITING, text, cause=text, reason=text, subprotocol=text))
        )
        if isinstance(renderer, JsonRenderer):
            expect(
                json.loads(note)["type"] == "note" and json.loads(change)["type"] == "state",
                "no JSON",
                note,
                change,
            )
        else:
            expect(
                note.decode().isprintable() and change.decode().isprintable(),
                "what a terminal obeys",
                note,
                change,
            )


def _line(data: bytes) -> bytes:
    expect(data.count(b"\n") == 1 and data.endswith(b"\n"), "not one line", data)
    return data[:-1]


_LINE_PARTS = (
    b"\n", b"\r\n", b"\r", b"hello", b"", b"x" * 5, b"x" * 6, "é".encode(), b"\xff", b"\x1b[31m", b"\0", "\u2028".encode(), b"\x9b",
    "\x85".encode(), b'"', b"\\", b"\xed\xa0\x80", "\U0001f600".encode(), b"\x7f", "\u202e".encode(), b"{}",
)  # fmt: skip


def make_lines(random: Random) -> bytes:
    return random.randbytes(2) + b"".join(random.choices(_LINE_PARTS, k=random.randrange(9)))


TARGETS = Target(
    "targets", "targets and proxies as users write them: Endpoint.parse, usable_proxy", 100_000, check_target, make_target,
    tuple(_bytes(part) for part in _PARTS),
)  # fmt: skip
OPTIONS = Target(
    "options", "options, headers and subprotocols: make_options, Connection", 100_000, check_options, make_options_case,
    tuple(piece(_bytes(word)) for word in _HEADER_WORDS),
)  # fmt: skip
COMMAND = Target(
    "command", "command lines: connman.cli.arguments.parse", 20_000, check_command, make_command,
    tuple(piece(_bytes(word)) for word in _WORDS),
)  # fmt: skip
LINES = Target(
    "lines", "standard input and what is printed: LineSplitter, the renderers", 100_000, check_lines, make_lines, _LINE_PARTS
)  # fmt: skip
