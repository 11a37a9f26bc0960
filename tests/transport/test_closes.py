"""Close frames: which codes may travel, and how a reason is cut."""

import pytest

from connman.errors import ProtocolError
from connman.transport.closes import close_payload, told_close

TRAVEL = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999]
NEVER = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]


@pytest.mark.parametrize("code", TRAVEL)
def test_what_is_said_is_heard(code: int) -> None:
    closed = told_close(close_payload(code, "why \N{GRINNING FACE}"))
    assert (closed.code, closed.reason) == (code, "why \N{GRINNING FACE}")


@pytest.mark.parametrize("code", NEVER)
def test_a_code_that_never_travels_is_neither_said_nor_heard(code: int) -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        close_payload(code, "")
    with pytest.raises(ProtocolError) as caught:
        told_close(code.to_bytes(2, "big"))
    assert caught.value.code == 1002


def test_nothing_is_1005_and_half_a_code_is_a_violation() -> None:
    assert told_close(b"").code == 1005
    with pytest.raises(ProtocolError):
        told_close(b"\x03")


@pytest.mark.parametrize("cut", range(1, 4))
def test_a_reason_is_cut_between_two_characters(cut: int) -> None:
    reason = "x" * (123 - cut) + "\N{GRINNING FACE}"
    assert close_payload(1000, reason) == b"\x03\xe8" + b"x" * (123 - cut)


def test_a_reason_that_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        told_close(b"\x03\xe8\xff")
    with pytest.raises(ValueError, match="surrogates"):
        close_payload(1000, "\ud800")
