"""What an error from below means, in one line."""

import ssl

import pytest

from connman.errors import ConnectError, ConnectionClosed
from connman.transport.causes import describe, is_about_our_certificate


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectError("e", (), "the message"), "the message"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (ValueError("x"), "x"),
        (ValueError(), "ValueError"),
        (ValueError("no\nlogin \x1b[2J"), r"no\nlogin \x1b[2J"),
        (ValueError("x" * 10_000), "x" * 200 + "…"),
        (ConnectionClosed(1001), "closed with code 1001"),
    ],
)
def test_an_error_is_described_in_one_line(error: BaseException, text: str) -> None:
    assert describe(error) == text


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True),
        ("SSLV3_ALERT_BAD_CERTIFICATE", True),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", True),
        ("TLSV1_ALERT_UNKNOWN_CA", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", False),
        ("TLSV1_ALERT_PROTOCOL_VERSION", False),
        ("CERTIFICATE_VERIFY_FAILED", False),
        (None, False),
    ],
)
def test_an_alert_about_our_certificate_is_told_from_others(reason: str | None, expected: bool) -> None:
    error = ssl.SSLError(1, "x")
    error.reason = reason  # type: ignore[assignment]
    assert is_about_our_certificate(error) is expected
    assert not is_about_our_certificate(OSError(5, "x"))
