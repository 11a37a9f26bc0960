"""One try with a deadline: headers, dial, and the login conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable

from connman.clock import Deadline
from connman.errors import (
    ConnectError,
    ConnmanError,
    Fatal,
    HandshakeFailed,
    HandshakeTimeout,
    InvalidOption,
    NotConnected,
    WaitTimeout,
)
from connman.options import Options, checked_headers
from connman.records import Data, Message
from connman.threads import is_kill
from connman.transport.base import Dial, Dialer, Transport, describe

logger = logging.getLogger("connman.attempt")


class Channel:
    """A fresh transport as a ``handshake`` sees it: one conversation under one deadline.

    Threads: the one that runs the handshake. Of no use after the handshake has returned.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport: Transport | None = transport
        self._deadline = deadline
        self._waiting: list[Message] = []

    def send(self, data: Data) -> None:
        """Send one message.

        Raises: NotConnected, ConnectionLost, SendTimeout; NotConnected after the handshake has ended.
        Threads: the handshake's.
        """
        self._open_transport().send([data], self._deadline.remaining() or 0.001)

    def recv(self, timeout: float | None = None) -> Message:
        """Return the next message, waiting for it at most ``timeout`` seconds.

        None: as long as the handshake may take; 0 and less: only what is there already.

        Raises: WaitTimeout after ``timeout`` or at the end of ``handshake_timeout``; ConnectionClosed,
        ConnectionLost or ProtocolError when the connection ends; NotConnected after the handshake has ended.
        Threads: the handshake's.
        """
        transport = self._open_transport()
        if not self._waiting:
            self._waiting = transport.receive(self._deadline.sooner(timeout))
        return self._waiting.pop(0)

    def finish(self) -> list[Message]:
        """End the conversation and return what has arrived behind the last message that was read.

        Threads: the handshake's.
        """
        self._transport = None
        return self._waiting

    def _open_transport(self) -> Transport:
        if self._transport is None:
            raise NotConnected("the handshake is over: use the connection")
        return self._transport


def open_once(
    dial: Dial, dialer: Dialer, options: Options, handshake: Callable[[Channel], object] | None
) -> tuple[Transport, list[Message]]:
    """Open one transport and hold the login conversation on it.

    Returns the transport and the messages that arrived behind the last one the handshake read. On failure nothing is
    left open. ``dial.abort`` ends it in any phase.

    Raises: ConnectError and its kin; Fatal raised by the handshake; what the dial was aborted with.
    Threads: the reader's.
    """
    dial.begin(_evaluated_headers(dial, options))
    dial.check_aborted()
    transport = _dialled(dial, dialer)
    try:
        return transport, _log_in(dial, transport, options, handshake)
    except BaseException:  # user code: the transport is closed, whatever the handshake raised
        transport.dispose()
        raise


def _dialled(dial: Dial, dialer: Dialer) -> Transport:
    try:
        return dialer.dial(dial)
    except ConnmanError:
        raise
    except BaseException as error:  # user code: what a target of the user's own raises is a failed attempt
        if is_kill(error):
            raise
        # An abort looks like whatever the target makes of it: it is the cause all the same.
        dial.check_aborted()
        logger.exception("the dial raised", extra={"conn": dial.name})
        raise ConnectError(dial.name, dial.log, f"the dial raised {type(error).__name__}") from error


def _evaluated_headers(dial: Dial, options: Options) -> list[tuple[str, str]]:
    """Return this attempt's headers: a callable is asked each time, so that tokens are fresh."""
    headers = options.headers
    if headers is None:
        return []
    if not callable(headers):
        return checked_headers(headers)
    try:
        return checked_headers(headers())
    except Fatal:
        raise
    except InvalidOption as error:
        raise ConnectError(dial.name, dial.log, f"headers: {error}") from error
    except BaseException as error:  # user callback: its failure is a failed attempt
        if is_kill(error):
            raise
        logger.exception("headers= raised", extra={"conn": dial.name})
        raise ConnectError(dial.name, dial.log, f"headers= raised {type(error).__name__}") from error


def _log_in(
    dial: Dial, transport: Transport, options: Options, handshake: Callable[[Channel], object] | None
) -> list[Message]:
    if handshake is None:
        dial.check_aborted()
        return []
    deadline = Deadline.after(dial.clock, options.handshake_timeout)
    channel = Channel(transport, deadline)

    def wake() -> None:
        transport.abort(NotConnected("the connection was ended during the handshake"))

    with dial.abortable(wake), dial.step("handshake"):
        try:
            handshake(channel)
        except Fatal:
            raise
        except BaseException as error:  # user callback: its failure is a failed attempt
            if is_kill(error):
                raise
            dial.check_aborted()
            raise _failure(dial, deadline, options, error) from error
        finally:
            first = channel.finish()
        # Nothing interrupts a handshake that sleeps, or catches its timeouts: it is judged afterwards.
        if deadline.expired:
            raise _failure(dial, deadline, options, WaitTimeout("the handshake took too long"))
        # An abort behind its last message has broken the transport without the handshake's noticing.
        dial.check_aborted()
        return first


def _failure(dial: Dial, deadline: Deadline, options: Options, error: BaseException) -> HandshakeFailed:
    if deadline.expired:
        return HandshakeTimeout(
            dial.name, dial.log, f"the handshake did not end within {options.handshake_timeout:g} s"
        )
    if not isinstance(error, ConnmanError):
        logger.warning("handshake= raised", exc_info=error, extra={"conn": dial.name})
    return HandshakeFailed(dial.name, dial.log, f"handshake: {type(error).__name__}: {describe(error)}")
