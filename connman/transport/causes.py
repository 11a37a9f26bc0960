"""Say in one line what an error from below means."""

from __future__ import annotations

import re

from connman.errors import ConnectError, printable

# Of an ssl.SSLError's reason (RFC 8446 6.2): bad, unsupported, revoked, expired, unknown or required, and unknown CA.
_ABOUT_OUR_CERTIFICATE = re.compile("ALERT_(?:.*CERTIFICATE|UNKNOWN_CA)")


def is_about_our_certificate(error: OSError) -> bool:
    """Return whether the peer ended TLS with an alert about our certificate, or because we showed none.

    With TLS 1.3 it says so only after our handshake has ended. With TLS 1.2 a server that gets none says no more than
    "handshake failure".

    Threads: any; pure.
    """
    return bool(_ABOUT_OUR_CERTIFICATE.search(getattr(error, "reason", None) or ""))


def describe(error: BaseException) -> str:
    """Return one line about an error from below, without addresses of this process or secrets, and of a bounded length.

    Threads: any; pure.
    """
    if isinstance(error, ConnectError) and error.message:
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # A handshake of the user's may raise what the peer has said.
    return printable(str(error)) or type(error).__name__
