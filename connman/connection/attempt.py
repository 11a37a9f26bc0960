"""One try with a deadline: headers, dial, and the login conversation."""

from __future__ import annotations

from collections.abc import Callable

from connman.options import Options
from connman.records import Message
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.login import Channel, evaluated_headers, log_in, open_target


def open_once(
    dial: Dial, dialer: Dialer, options: Options, handshake: Callable[[Channel], object] | None
) -> tuple[Transport, list[Message]]:
    """Open one transport and hold the login conversation on it.

    Returns the transport and the messages that arrived behind the last one the handshake read. On failure nothing is
    left open. ``dial.abort`` ends it in any phase.

    Raises: ConnectError and its kin; Fatal raised by the handshake; what the dial was aborted with.
    Threads: the reader's.
    """
    dial.begin(evaluated_headers(dial, options.headers))
    dial.check_aborted()
    dial.handshake = handshake
    transport = open_target(dial, dialer)
    try:
        # A target that knows several ways has logged in already, since a way is good only when that works.
        return transport, log_in(dial, transport) if dial.first is None else dial.first
    except BaseException:  # user code: the transport is closed, whatever the handshake raised
        transport.dispose()
        raise
