"""Errors: their kinship, their texts, pickling, and the one table of what is retried."""

import copy
import inspect
import pickle
from collections.abc import Iterator

import pytest

from connman import errors
from connman.errors import (
    BadUpgrade,
    CertificateError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    ConnmanError,
    Fatal,
    GaveUp,
    HandshakeFailed,
    HandshakeTimeout,
    InvalidOption,
    InvalidTarget,
    MessageTooBig,
    PingTimeout,
    PoolTimeout,
    ProtocolError,
    ProxyRefused,
    RemoteError,
    RequestRefused,
    Retry,
    SendTimeout,
    UpgradeRefused,
    WaitTimeout,
    printable,
    retry_verdict,
)
from connman.records import Step

STEPS = (Step("dns", "h", 0.5), Step("tcp", "127.0.0.1:80", 0.25, "Connection refused"))


def classes() -> list[type[ConnmanError]]:
    found = (thing for _, thing in inspect.getmembers(errors, inspect.isclass))
    return [thing for thing in found if issubclass(thing, ConnmanError)]


def examples() -> Iterator[ConnmanError]:
    """Yield one error of every class, with as many fields set as it has."""
    for kind in classes():
        if issubclass(kind, UpgradeRefused):
            yield kind(503, {"retry-after": "5"}, b"busy", endpoint="ws://h/", attempts=STEPS)
        elif kind is ProxyRefused:
            yield ProxyRefused("ws://h/", STEPS, "proxy refused", 407)
        elif issubclass(kind, ConnectError):
            yield kind("ws://h/", STEPS, "no luck")
        elif kind is ConnectionClosed:
            yield ConnectionClosed(4001, "go away")
        elif issubclass(kind, ConnectionLost):
            yield kind("Connection reset by peer", sent=3)
        elif issubclass(kind, ProtocolError):
            yield kind("bad frame", 1002)
        elif kind is RemoteError:
            yield RemoteError("ValueError", "no such row", 42)
        else:
            yield kind("what happened")


EXAMPLES = list(examples())
PARENTS = {
    "ConnmanError": (),
    "Fatal": ("ConnmanError",),
    "InvalidTarget": ("ConnmanError", "ValueError"),
    "InvalidOption": ("ConnmanError", "ValueError"),
    "ConnectError": ("ConnmanError",),
    "ConnectTimeout": ("ConnectError", "TimeoutError"),
    "CertificateError": ("ConnectError",),
    "ProxyRefused": ("ConnectError",),
    "UpgradeRefused": ("ConnectError",),
    "RequestRefused": ("UpgradeRefused",),
    "BadUpgrade": ("ConnectError", "ProtocolError"),
    "HandshakeFailed": ("ConnectError",),
    "HandshakeTimeout": ("HandshakeFailed", "TimeoutError"),
    "GaveUp": ("ConnectError",),
    "NotConnected": ("ConnmanError",),
    "ConnectionClosed": ("ConnmanError",),
    "ConnectionLost": ("ConnmanError",),
    "SessionLost": ("ConnectionLost",),
    "PingTimeout": ("ConnectionLost", "TimeoutError"),
    "SendTimeout": ("ConnectionLost", "TimeoutError"),
    "ProtocolError": ("ConnmanError",),
    "MessageTooBig": ("ProtocolError",),
    "WaitTimeout": ("ConnmanError", "TimeoutError"),
    "WouldDeadlock": ("ConnmanError",),
    "Forked": ("ConnmanError",),
    "PoolError": ("ConnmanError",),
    "PoolClosed": ("PoolError",),
    "PoolTimeout": ("PoolError", "TimeoutError"),
    "RpcError": ("ConnmanError",),
    "RemoteError": ("RpcError",),
    "CallTimeout": ("RpcError", "TimeoutError"),
    "PeerGone": ("RpcError",),
    "NoSuchService": ("RpcError",),
    "NoSuchPeer": ("RpcError",),
}


def test_the_hierarchy_is_the_documented_one() -> None:
    assert set(PARENTS) <= {kind.__name__ for kind in classes()}
    for name, parents in PARENTS.items():
        bases = {base.__name__ for base in getattr(errors, name).__mro__}
        assert set(parents) <= bases, name


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_only_timeouts_are_os_errors(kind: type[ConnmanError]) -> None:
    assert issubclass(kind, OSError) == issubclass(kind, TimeoutError) == ("Timeout" in kind.__name__)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: ConnmanError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_told(error: ConnmanError) -> None:
    again = copy.copy(error)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert str(error)


def test_a_subclass_of_a_user_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(OfAUser("no", code=7)))
    assert (type(again), str(again), again.code) == (OfAUser, "no", 7)


class OfAUser(Fatal):
    def __init__(self, text: str, *, code: int) -> None:
        self.code = code
        super().__init__(text)


def test_a_connect_error_tells_the_whole_attempt() -> None:
    error = ConnectError("ws://h/", STEPS, "refused")
    assert str(error) == (
        "ws://h/: refused [dns h (0.500 s): ok; tcp 127.0.0.1:80 (0.250 s): Connection refused]"
    )
    assert (error.endpoint, error.attempts, error.message) == ("ws://h/", STEPS, "refused")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectError("ws://h/"), "ws://h/: connecting failed"),
        (ConnectError("", (), "no"), "no"),
        (
            ConnectError("e", STEPS),
            "e: Connection refused [dns h (0.500 s): ok; tcp 127.0.0.1:80 (0.250 s): Connection refused]",
        ),
        (UpgradeRefused(404), "upgrade refused with HTTP 404"),
        (RequestRefused(404), "request refused with HTTP 404"),
        (ConnectionClosed(), "closed"),
        (ConnectionClosed(1000), "closed with code 1000"),
        (ConnectionClosed(4000, "why"), "closed with code 4000 (see .reason)"),
        (ConnectionClosed(None, "why"), "closed (see .reason)"),
        (ConnectionLost(), "connection lost"),
        (RemoteError("KeyError"), "KeyError"),
        (RemoteError("KeyError", "x"), "KeyError: x"),
    ],
)
def test_text(error: ConnmanError, text: str) -> None:
    assert str(error) == text


def test_a_log_put_in_later_replaces_the_text() -> None:
    error = ConnectTimeout("e", (), "late")
    assert error.with_log(iter(STEPS)) is error
    assert error.attempts == STEPS
    assert "Connection refused" in str(error)


def test_the_body_and_headers_of_a_refusal_are_not_shown() -> None:
    error = UpgradeRefused(401, {"set-cookie": "s=S3CR3T"}, b"S3CR3T", endpoint="ws://h/")
    assert "S3CR3T" not in str(error) + repr(error)
    assert (error.status, error.headers["set-cookie"], error.body) == (401, "s=S3CR3T", b"S3CR3T")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü", "plain ü"),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202e\ud800", r"\u202e\ud800"),
        ("x" * 201, "x" * 200 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_text_of_the_network_is_made_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


# The table

STATUSES = {
    Retry.NEVER: {*range(300, 500)} - {401, 403, 408, 425, 429},
    Retry.ONCE: {401, 403},
    Retry.AGAIN: {408, 425, 429, *range(100, 300), *range(500, 600)},
}
CODES = {
    Retry.NEVER: {1008, 1010, *range(4000, 4100), *range(4300, 5000)},
    Retry.ONCE: {3000, 3003},
    Retry.AGAIN: {
        *range(1000, 1008), 1009, *range(1011, 1016), 3001, 3002, *range(3004, 4000), *range(4100, 4300)
    },
}  # fmt: skip


def test_every_http_status_has_its_verdict() -> None:
    for verdict, statuses in STATUSES.items():
        assert {
            status for status in range(100, 600) if retry_verdict(UpgradeRefused(status)) is verdict
        } == statuses


def test_every_close_code_has_its_verdict() -> None:
    codes = [*range(1000, 1016), *range(3000, 5000)]
    for verdict, expected in CODES.items():
        assert {code for code in codes if retry_verdict(ConnectionClosed(code)) is verdict} == expected


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Fatal("no"), Retry.NEVER),
        (CertificateError("e"), Retry.NEVER),
        (InvalidTarget("t"), Retry.NEVER),
        (InvalidOption("o"), Retry.NEVER),
        (GaveUp("e"), Retry.NEVER),
        (ConnectError("e"), Retry.AGAIN),
        (ConnectTimeout("e"), Retry.AGAIN),
        (HandshakeFailed("e"), Retry.AGAIN),
        (HandshakeTimeout("e"), Retry.AGAIN),
        (BadUpgrade("e"), Retry.AGAIN),
        (ProxyRefused("e"), Retry.AGAIN),
        (ProxyRefused("e", status=407), Retry.NEVER),
        (ProxyRefused("e", status=502), Retry.AGAIN),
        (ConnectionClosed(), Retry.AGAIN),
        (ConnectionLost("reset"), Retry.AGAIN),
        (PingTimeout("silence"), Retry.AGAIN),
        (SendTimeout("slow"), Retry.AGAIN),
        (ProtocolError("frame", 1002), Retry.AGAIN),
        (MessageTooBig("big", 1009), Retry.AGAIN),
        (WaitTimeout("late"), Retry.AGAIN),
        (PoolTimeout("late"), Retry.AGAIN),
        (OSError(111, "refused"), Retry.AGAIN),
        (RuntimeError("unknown"), Retry.AGAIN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_has_its_verdict(error: Exception, verdict: Retry) -> None:
    assert retry_verdict(error) is verdict


@pytest.mark.parametrize(
    ("code", "verdict"), [(4001, Retry.NEVER), (3000, Retry.ONCE), (1008, Retry.NEVER), (1001, Retry.AGAIN)]
)
def test_a_handshake_that_the_peer_closed_is_judged_by_the_close(code: int, verdict: Retry) -> None:
    error = HandshakeFailed("e")
    error.__cause__ = ConnectionClosed(code)
    assert retry_verdict(error) is verdict
