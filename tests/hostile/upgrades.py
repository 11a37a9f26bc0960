"""Bad answers to the upgrade: no HTTP, lies, drips, stalls, and answers without an end."""

import gzip

from connman.errors import BadUpgrade, ConnectError, Retry, UpgradeRefused
from tests.hostile.acts import (
    BODY_PATIENCE,
    Act,
    Bad,
    bad_answer,
    edited,
    flood,
    late,
    leave,
    nothing,
    reads_first,
    reset_now,
    says,
    says_dripping,
    says_endlessly,
    upgraded,
)
from tests.scripted import Guest

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
STATUS_LINE = "no valid HTTP/1.1 status line"
NOT_HTTP = "does not speak HTTP/1.1"
HEADER = "no valid header"
ACCEPT = "Sec-WebSocket-Accept is missing, wrong or repeated"
ARABIC = "\N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT ZERO}\N{ARABIC-INDIC DIGIT ONE}"
KEY_OF_ANOTHER = "c2hvdWxkIGJlIGFub3RoZXIga2V5"


def close_at_once(_: Guest) -> bytes:
    return b""


def without(name: str) -> Act:
    return edited(lambda head: "\r\n".join(line for line in head.split("\r\n") if not line.startswith(name)))


def replaced(old: str, new: str) -> Act:
    return edited(lambda head: head.replace(old, new))


NO_ANSWER = [
    Bad(
        name="closes right after accept",
        act=close_at_once,
        error=(BadUpgrade, ConnectError),
        text="closed the connection|reset|Broken pipe",
        stage="upgrade",
    ),
    Bad(
        name="resets right after accept",
        act=reset_now,
        error=ConnectError,
        text="reset|Broken pipe",
        stage="tcp|upgrade",
    ),
    bad_answer("reads the request and closes", reads_first(leave), "closed the connection without an answer"),
    Bad(
        name="reads the request and resets",
        act=reads_first(reset_now),
        error=ConnectError,
        text="reset",
        stage="upgrade",
    ),
    late("never answers", nothing, "upgrade"),
    late("answers half and stalls", says(SWITCHING + b"Upgrade: webs", nothing), "upgrade"),
    bad_answer(
        "answers half and closes", says(SWITCHING + b"Upgrade: webs"), "closed the connection within its answer"
    ),
    late("drips its status line", says_dripping(SWITCHING[:-2]), "upgrade"),
    late("drips headers", says_dripping(b"X-Drip: drop\r\n", SWITCHING), "upgrade"),
    late("sends 128 long headers and stalls", says(SWITCHING + (b"X: " + b"x" * 8000 + b"\r\n") * 128, nothing), "upgrade"),
]  # fmt: skip

ENDLESS = [
    bad_answer("an endless status line", says_endlessly(b"x" * 65536, b"HTTP/1.1 101 "), "a line of more than 8192 bytes"),
    bad_answer("an endless header line", says_endlessly(b"x" * 65536, SWITCHING + b"X: "), "a line of more than 8192 bytes"),
    bad_answer("an endless header name", says_endlessly(b"x" * 65536, SWITCHING), "a line of more than 8192 bytes"),
    bad_answer("endless headers", says_endlessly(b"X: x\r\n" * 10_000, SWITCHING), "more than 128 headers"),
    bad_answer("endless long headers", says_endlessly(b"X: " + b"x" * 8000 + b"\r\n", SWITCHING), "more than 128 headers"),
    bad_answer("endless empty lines", says_endlessly(b"\r\n" * 10_000), NOT_HTTP),
    bad_answer("endless zeros", says_endlessly(bytes(65536)), NOT_HTTP),
]  # fmt: skip

NO_HTTP = [
    bad_answer("garbage", says(bytes(range(256)) * 4), NOT_HTTP),
    bad_answer("another protocol", says(b"SSH-2.0-OpenSSH_9.2\r\n"), NOT_HTTP),
    bad_answer("a TLS alert", says(b"\x15\x03\x03\x00\x02\x02\x46"), NOT_HTTP),
    bad_answer("frames without an upgrade", says(b"\x81\x05hello" * 10), NOT_HTTP),
    bad_answer("a page without a head", says(b"<html><body>hello</body></html>"), NOT_HTTP),
    bad_answer("HTTP/2", says(b"HTTP/2 101\r\n\r\n"), STATUS_LINE),
    bad_answer("HTTP/1.0", replaced("HTTP/1.1", "HTTP/1.0"), "answered with HTTP/1.0"),
    bad_answer("a protocol in small letters", replaced("HTTP/1.1", "http/1.1"), NOT_HTTP),
    bad_answer("a status that is no number", says(b"HTTP/1.1 1x1 OK\r\n\r\n"), STATUS_LINE),
    bad_answer("a status of two digits", says(b"HTTP/1.1 99 OK\r\n\r\n"), STATUS_LINE),
    bad_answer("a status of four digits", replaced(" 101 ", " 1011 "), STATUS_LINE),
    bad_answer("a status in Arabic digits", says(f"HTTP/1.1 {ARABIC} OK\r\n\r\n".encode()), STATUS_LINE),
    bad_answer("a status line with a NUL", replaced("Switching", "Swit\0ching"), STATUS_LINE),
    bad_answer("lines that end with LF only", edited(lambda head: head.replace("\r\n", "\n")), "closed the connection within|no valid"),
]  # fmt: skip

HEADERS = [
    bad_answer("a header without a colon", upgraded("nonsense"), HEADER),
    bad_answer("a folded header", upgraded("X: a", " b"), HEADER),
    bad_answer("a blank before a colon", replaced("Upgrade: w", "Upgrade : w"), HEADER),
    bad_answer("a header without a name", upgraded(": x"), HEADER),
    bad_answer("a header with a NUL", upgraded("X: a\0b"), HEADER),
    bad_answer("a header with a CR", upgraded("X: a\rUpgrade: websocket"), HEADER),
    bad_answer("a header with a LF", upgraded("X: a\nY: b"), HEADER),
    bad_answer("no Upgrade", without("Upgrade"), "lacks 'Upgrade: websocket'"),
    bad_answer("an Upgrade to another protocol", replaced("websocket", "h2c"), "lacks 'Upgrade: websocket'"),
    bad_answer("two Upgrades", upgraded("Upgrade: h2c"), "lacks 'Upgrade: websocket'"),
    bad_answer("no Connection", without("Connection"), "lacks 'Connection: Upgrade'"),
    bad_answer("Connection: close", replaced(": Upgrade", ": close"), "lacks 'Connection: Upgrade'"),
    bad_answer("no accept key", without("Sec-WebSocket-Accept"), ACCEPT),
    bad_answer("a wrong accept key", upgraded(accept=lambda _: KEY_OF_ANOTHER), ACCEPT),
    bad_answer("an empty accept key", upgraded(accept=lambda _: ""), ACCEPT),
    bad_answer("an accept key in the wrong case", upgraded(accept=str.swapcase), ACCEPT),
    bad_answer("two accept keys", upgraded(f"Sec-WebSocket-Accept: {KEY_OF_ANOTHER}"), ACCEPT),
    bad_answer("the right accept key twice", upgraded(accept=lambda key: f"{key}, {key}"), ACCEPT),
]  # fmt: skip

CHOICES = [
    bad_answer("a subprotocol nobody asked for", upgraded("Sec-WebSocket-Protocol: chat"), "subprotocol that was not offered"),
    bad_answer(
        "another subprotocol than asked for",
        upgraded("Sec-WebSocket-Protocol: chat"),
        "subprotocol that was not offered",
        options={"subprotocols": ["other"]},
    ),
    bad_answer(
        "a subprotocol in the wrong case",
        upgraded("Sec-WebSocket-Protocol: CHAT"),
        "subprotocol that was not offered",
        options={"subprotocols": ["chat"]},
    ),
    bad_answer(
        "two subprotocols",
        upgraded("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: other"),
        "subprotocol that was not offered",
        options={"subprotocols": ["chat", "other"]},
    ),
    bad_answer("none of the subprotocols", upgraded(), "chose none of the subprotocols", options={"subprotocols": ["chat"]}),
    bad_answer(
        "an extension nobody asked for",
        upgraded("Sec-WebSocket-Extensions: permessage-deflate"),
        "extension that was not offered",
    ),
    *(
        bad_answer(name, upgraded(f"Sec-WebSocket-Extensions: {value}"), text, options={"compression": "deflate"})
        for name, value, text in (
            ("another extension than asked for", "x-webkit-deflate-frame", "extension that was not offered"),
            ("the same extension twice", "permessage-deflate, permessage-deflate", "extension that was not offered"),
            ("an unknown parameter of compression", "permessage-deflate; x=1", "unknown or invalid"),
            ("a window of 16 bits", "permessage-deflate; server_max_window_bits=16", "unknown or invalid"),
            (
                "a parameter of compression twice",
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                "twice",
            ),
        )
    ),
]  # fmt: skip


def refusal(name: str, act: Act, status: int, retry: Retry = Retry.AGAIN, within: float = 0.0) -> Bad:
    """Return a row for an answer that is in order, but no upgrade."""
    text = f"upgrade refused with HTTP {status}"
    return Bad(
        name=name, act=act, error=UpgradeRefused, text=text, stage="upgrade", retry=retry, within=within
    )


def answered(status: str, *lines: str, body: bytes = b"", act: Act = leave) -> Act:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, ""))
    return says(head.encode() + body, act)


def redirected(location: str) -> Act:
    return answered("302 Found", f"Location: {location}", "Content-Length: 0")


# 60 KiB that inflate to 60 MiB: a body is never unpacked.
BOMB = gzip.compress(bytes(1 << 20)) * 60  # of several parts, as gzip has it: made at once

REFUSALS = [
    refusal("an ordinary page", answered("200 OK", "Content-Length: 5", body=b"hello"), 200),
    refusal("nothing at all", answered("204 No Content"), 204),
    refusal("not found", answered("404 Not Found", "Content-Length: 0"), 404, Retry.NEVER),
    refusal("unauthorized", answered("401 Unauthorized", "Content-Length: 0"), 401, Retry.ONCE),
    refusal("forbidden", answered("403 Forbidden", "Content-Length: 0"), 403, Retry.ONCE),
    refusal("upgrade required", answered("426 Upgrade Required", "Content-Length: 0"), 426, Retry.NEVER),
    refusal("too many requests", answered("429 Slow", "Retry-After: 1", "Content-Length: 0"), 429),
    refusal("busy for ever", answered("503 Busy", "Retry-After: 99999999999", "Content-Length: 0"), 503),
    refusal("a status nobody knows", answered("999 What", "Content-Length: 0"), 999),
    refusal("continue, and continue, …", says_endlessly(b"HTTP/1.1 100 Continue\r\n\r\n"), 100),
    refusal("early hints without an end", says_endlessly(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), 103),
    refusal("a redirect to another host", redirected("ws://192.0.2.1/"), 302, Retry.NEVER),
    refusal("a redirect without a place", answered("302 Found", "Content-Length: 0"), 302, Retry.NEVER),
    refusal("a redirect to itself", redirected("/"), 302, Retry.NEVER),
    refusal("a redirect to a file", redirected("file:///etc/passwd"), 302, Retry.NEVER),
    refusal("a redirect to an inner service", redirected("http://169.254.169.254/latest/"), 302, Retry.NEVER),
    refusal("an endless error body", says_endlessly(b"x" * 65536, b"HTTP/1.1 500 Oops\r\n\r\n"), 500),
    refusal("an error body of 100 GB", says_endlessly(b"x" * 65536, b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n"), 500),
    refusal("an error body of 100 GB that never comes", answered("500 Oops", "Content-Length: 99999999999", act=nothing), 500, within=BODY_PATIENCE),
    refusal("an error body that drips", says_dripping(b"x", b"HTTP/1.1 503 Busy\r\nContent-Length: 60000\r\n\r\n"), 503, within=BODY_PATIENCE),
    refusal("an endless chunked error body", says_endlessly(b"400\r\n" + b"x" * 1024 + b"\r\n", b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n"), 500),
    refusal("a chunk of 16 exabytes", answered("500 Oops", "Transfer-Encoding: chunked", body=b"ffffffffffffffff\r\nx"), 500),
    refusal("a body of a negative length", answered("500 Oops", "Content-Length: -1", body=b"x"), 500),
    refusal("a body with a length of endless digits", answered("500 Oops", f"Content-Length: {'9' * 8000}", act=lambda guest: flood(guest, b"x" * 65536)), 500),
    refusal("a body of two lengths", answered("500 Oops", "Content-Length: 1", "Content-Length: 99999", body=b"x"), 500),
    refusal("a gzip bomb in an error body", answered("500 Oops", "Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB), 500),
]  # fmt: skip

UPGRADES = [*NO_ANSWER, *ENDLESS, *NO_HTTP, *HEADERS, *CHOICES, *REFUSALS]
