"""What every fresh transport goes through: dialled, asked for nothing but ConnmanErrors, and logged in on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from connman.clock import Deadline
from connman.errors import (
    ConnectError,
    ConnectionLost,
    ConnmanError,
    Fatal,
    HandshakeFailed,
    HandshakeTimeout,
    InvalidOption,
    NotConnected,
    ProtocolError,
    WaitTimeout,
)
from connman.options import Headers, checked_headers
from connman.records import Data, Message
from connman.threads import is_kill
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.causes import describe

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
        self.peek(timeout)
        return self._waiting.pop(0)

    def peek(self, timeout: float | None = None) -> Message:
        """Return the next message as `recv` does, and leave it to be read: by the next `recv`, or by ``on_data``.

        Raises: as `recv`.
        Threads: the handshake's.
        """
        transport = self._open_transport()
        if not self._waiting:
            self._waiting = transport.receive(self._deadline.sooner(timeout))
        return self._waiting[0]

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


def open_target(dial: Dial, dialer: Dialer) -> Transport:
    """Return what ``dialer`` opens; whatever else it raises is a failed attempt.

    Raises: ConnectError and its kin; what the dial was aborted with.
    Threads: the dialling thread.
    """
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


def evaluated_headers(dial: Dial, headers: Headers | Callable[[], Headers] | None) -> list[tuple[str, str]]:
    """Return this attempt's headers: a callable is asked each time, so that tokens are fresh.

    Raises: ConnectError when it raises or returns what no header may be; Fatal as it is.
    Threads: the dialling thread.
    """
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


def log_in(dial: Dial, transport: Transport) -> list[Message]:
    """Hold the dial's login conversation; return the messages that arrived behind the last one it read.

    ``dial.abort`` ends it. The transport stays as it is, whatever comes of it.

    Raises: HandshakeFailed, HandshakeTimeout; Fatal raised by the handshake; what the dial was aborted with.
    Threads: the dialling thread.
    """
    if dial.handshake is None:
        dial.check_aborted()
        return []
    deadline = Deadline.after(dial.clock, dial.options.handshake_timeout)
    channel = Channel(transport, deadline)

    def wake() -> None:
        transport.abort(NotConnected("the connection was ended during the handshake"))

    with dial.abortable(wake), dial.step("handshake"):
        try:
            dial.handshake(channel)
        except Fatal:
            raise
        except BaseException as error:  # user callback: its failure is a failed attempt
            if is_kill(error):
                raise
            dial.check_aborted()
            raise _failure(dial, deadline, error) from error
        finally:
            first = channel.finish()
        # Nothing interrupts a handshake that sleeps, or catches its timeouts: it is judged afterwards.
        if deadline.expired:
            raise _failure(dial, deadline, WaitTimeout("the handshake took too long"))
        # An abort behind its last message has broken the transport without the handshake's noticing.
        dial.check_aborted()
        return first


def _failure(dial: Dial, deadline: Deadline, error: BaseException) -> HandshakeFailed:
    if deadline.expired:
        seconds = dial.options.handshake_timeout
        return HandshakeTimeout(dial.name, dial.log, f"the handshake did not end within {seconds:g} s")
    if not isinstance(error, ConnmanError):
        logger.warning("handshake= raised", exc_info=error, extra={"conn": dial.name})
    return HandshakeFailed(dial.name, dial.log, f"handshake: {type(error).__name__}: {describe(error)}")


def is_answer(error: ConnmanError) -> bool:
    """Return whether a login that failed with ``error`` has shown that the path to the peer works.

    It does when the peer closed, or the handshake raised what is its own business: it has judged what the peer said.
    Timeouts, losses and broken frames tell of the path: some networks let an upgrade through and swallow what follows.

    Threads: any; pure.
    """
    if isinstance(error, Fatal):
        return True
    cause = error.__cause__
    if not isinstance(error, HandshakeFailed) or isinstance(error, HandshakeTimeout) or cause is None:
        return False
    return not isinstance(cause, TimeoutError | ConnectionLost | NotConnected | ProtocolError)
