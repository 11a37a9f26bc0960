"""What comes of a strategy: one error out of several, and a transport that nobody wants."""

import threading

import pytest

from connman.errors import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    NotConnected,
    Retry,
    UpgradeRefused,
    retry_verdict,
)
from connman.strategy.results import combined, discard, too_low
from connman.transport.base import Transport
from tests.strategy.rig import Rig
from tests.waiting import eventually

CERTIFICATE, FORBIDDEN, MISSING, REFUSED = (
    CertificateError("h"), UpgradeRefused(403), UpgradeRefused(404), ConnectError("h", (), "tcp: refused"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "verdict", "stands_for_all"),
    [
        ([REFUSED], Retry.AGAIN, REFUSED),
        ([CERTIFICATE], Retry.NEVER, CERTIFICATE),
        ([CERTIFICATE, MISSING], Retry.NEVER, MISSING),
        ([FORBIDDEN, CERTIFICATE], Retry.ONCE, FORBIDDEN),
        ([CERTIFICATE, FORBIDDEN], Retry.ONCE, FORBIDDEN),
        ([CERTIFICATE, REFUSED, FORBIDDEN], Retry.AGAIN, None),
        ([REFUSED, REFUSED], Retry.AGAIN, None),
        ([], Retry.AGAIN, None),
    ],
)
def test_another_attempt_is_worth_it_when_it_is_on_any_way(
    rig: Rig, errors: list[ConnectError], verdict: Retry, stands_for_all: ConnectError | None
) -> None:
    error = combined(rig.dial(), errors)
    assert retry_verdict(error) is verdict
    if stands_for_all is not None:
        assert error is stands_for_all
    else:
        assert str(error).startswith(f"rig: none of {len(errors)} ways opened")
        assert error.__cause__ is (errors[-1] if errors else None)


def test_the_error_of_several_tells_of_the_last_and_shows_the_log(rig: Rig) -> None:
    dial = rig.dial()
    dial.note("tcp", "127.0.0.1:1", 0.0, "Connection refused")
    text = str(combined(dial, [MISSING, REFUSED]))
    assert text == (
        "rig: none of 2 ways opened: tcp: refused [tcp 127.0.0.1:1 (0.000 s): Connection refused]"
    )


class Slow(Transport):
    """A transport whose end may block."""

    is_slow_to_dispose = True  # type: ignore[assignment]

    def __init__(self, is_slow: bool = True) -> None:
        self.is_slow_to_dispose = is_slow  # type: ignore[misc]
        self.error = None
        self.ended_on: threading.Thread | None = None

    def abort(self, error: object) -> None:
        self.error = self.error or error  # type: ignore[assignment]

    def dispose(self) -> None:
        self.ended_on = threading.current_thread()


def test_what_nobody_wants_ends_through_no_fault_of_its_own() -> None:
    transport = Slow(is_slow=False)
    discard(transport)
    assert isinstance(transport.error, NotConnected)
    assert transport.ended_on is threading.current_thread()
    broken = Slow(is_slow=False)
    broken.error = ConnectionLost("already")
    discard(broken)
    assert isinstance(broken.error, ConnectionLost)


def test_what_takes_a_moment_to_end_holds_nobody_up() -> None:
    transport = Slow()
    discard(transport)
    thread = eventually(lambda: transport.ended_on)
    assert thread is not threading.current_thread()
    assert thread.name == "connman-discard"


def test_a_priority_that_is_too_low_is_explained() -> None:
    assert too_low("xhr_polling", 1, 3) == "xhr_polling has priority 1, and 3 is there"
