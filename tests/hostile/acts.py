"""What a bad server does, as a value, and the acts that bad behaviours are made of."""

import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connman.errors import BadUpgrade, ConnectTimeout, ConnmanError, ProtocolError, Retry
from tests.scripted import Guest
from tests.servers import reset, server_frame

# What the client is told; every other deadline follows from these.
OPEN_TIMEOUT = 0.4
PING = 0.25  # both ping_interval and ping_timeout
BODY_PATIENCE = 1.0  # for the body of a refusal, see connman/transport/websocket.py
LINGER = 0.5  # while a peer that broke the rules goes on sending, see connman/transport/pipe.py
MOST = 1 << 20  # max_message_size

PACE = 0.02  # seconds between two bytes of a drip

Act = Callable[[Guest], bytes]
"""What the server does with one connection; returns what it heard from the client once that was upgraded."""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad behaviour of a server, and what connman owes its user for it.

    ``error``: the type, exactly. ``text``: a regular expression for its cause. ``stage``: the step of the dial that
    failed, or "open". ``within``: seconds that the client may take, beside the half second that every row has.
    ``code``: of the close frame with which the client answers. ``through``: the scheme of a proxy that the server plays.
    ``is_secure``: it does the TLS handshake first; ``scheme``: "wss" also when it does not.
    """

    name: str
    act: Act
    error: type[ConnmanError] | tuple[type[ConnmanError], ...]
    text: str
    stage: str
    retry: Retry = Retry.AGAIN
    within: float = 0.0
    code: int | None = None
    through: str = ""
    is_secure: bool = False
    scheme: str = "ws"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


# Acts


def nothing(guest: Guest) -> bytes:
    """Read, and never say anything."""
    return listen(guest)


def listen(guest: Guest) -> bytes:
    """Return what the client sends until it is gone."""
    heard = b""
    try:
        while chunk := guest.sock.recv(65536):
            heard += chunk
    except OSError:
        pass
    return heard


def leave(guest: Guest) -> bytes:
    """End our side in order, and listen."""
    guest.sock.shutdown(socket.SHUT_WR)
    return listen(guest)


def reset_now(guest: Guest) -> bytes:
    """Have the close, which comes now, be a reset."""
    reset(guest.sock)
    return b""


def drip(guest: Guest, data: bytes) -> bytes:
    """Send byte by byte, round and round, until the client is gone."""
    heard = b""
    while True:
        for byte in data:
            guest.sock.sendall(bytes((byte,)))
            if select.select([guest.sock], [], [], PACE)[0]:
                chunk = guest.sock.recv(65536)
                if not chunk:
                    return heard
                heard += chunk


def flood(guest: Guest, data: bytes) -> bytes:
    """Send as fast as the client takes it, round and round, and listen, until the client is gone."""
    heard, view = b"", memoryview(data)
    try:
        while True:
            readable, writable, _ = select.select([guest.sock], [guest.sock], [], None)
            if readable:
                chunk = guest.sock.recv(65536)
                if not chunk:
                    return heard
                heard += chunk
            if writable:
                view = view[guest.sock.send(view, socket.MSG_DONTWAIT) :] or memoryview(data)
    except OSError:
        return heard


def reads_first(act: Act) -> Act:
    """Make an act that reads the request before."""

    def read_and_act(guest: Guest) -> bytes:
        guest.read_request()
        return act(guest)

    return read_and_act


def says(data: bytes, act: Act = leave) -> Act:
    """Make an act that reads the request, answers with exactly ``data``, and goes on with ``act``."""

    def say(guest: Guest) -> bytes:
        guest.read_request()
        guest.send(data)
        return act(guest)

    return say


def says_dripping(data: bytes, first: bytes = b"") -> Act:
    return says(first, lambda guest: drip(guest, data))


def says_endlessly(data: bytes, first: bytes = b"") -> Act:
    return says(first, lambda guest: flood(guest, data))


def upgraded(*lines: str, accept: Callable[[str], str] | None = None, act: Act = leave) -> Act:
    """Make an act that agrees to the upgrade, with further header lines or another accept key."""

    def agree(guest: Guest) -> bytes:
        guest.read_request()
        key = None if accept is None else accept(guest.accept_key())
        guest.send(guest.upgrade_head(*lines, accept=key))
        return act(guest)

    return agree


def edited(edit: Callable[[str], str]) -> Act:
    """Make an act that agrees to the upgrade with an answer that was changed."""

    def agree(guest: Guest) -> bytes:
        guest.read_request()
        guest.send(edit(guest.upgrade_head().decode()).encode("latin-1"))
        return leave(guest)

    return agree


HELLO = server_frame(1, b"hello")


def opened(data: bytes, act: Act = listen, *, extension: str = "") -> Act:
    """Make an act that opens, says "hello", then ``data``, and goes on with ``act``."""

    def open_up(guest: Guest) -> bytes:
        guest.read_request()
        lines = [f"Sec-WebSocket-Extensions: {extension}"] if extension else []
        guest.send(guest.upgrade_head(*lines) + HELLO + data)
        return act(guest)

    return open_up


# Rows


def bad_answer(name: str, act: Act, text: str, **fields: Any) -> Bad:
    """Return a row for an answer to the upgrade that is no valid one."""
    return Bad(name=name, act=act, text=text, **{"error": BadUpgrade, "stage": "upgrade", **fields})


def late(name: str, act: Act, stage: str, **fields: Any) -> Bad:
    """Return a row for a dial that its deadline ends."""
    text = rf"no connection within {OPEN_TIMEOUT:g} s"
    return Bad(
        name=name, act=act, error=ConnectTimeout, text=text, stage=stage, within=OPEN_TIMEOUT, **fields
    )


def violation(name: str, data: bytes, text: str, code: int = 1002, **fields: Any) -> Bad:
    """Return a row for frames that break the protocol, once it is open."""
    fields = {"act": opened(data), "error": ProtocolError, **fields}
    return Bad(name=name, text=text, stage="open", code=code, **fields)
