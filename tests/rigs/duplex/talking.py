"""One conversation over wss: one reader and four writers on one connection to an echo, by connman or by others."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import websocket

import connman
from connman.transport.tls import TlsStream
from tests.loopback import in_thread
from tests.promises.peers import connection
from tests.rigs.duplex.ledger import WRITERS, Ledger

PATIENCE = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a conversation went. ``drop``: why it ended before its end, None if it did not."""

    heard: int
    drop: str | None
    damage: list[str]

    @property
    def is_whole(self) -> bool:
        return self.drop is None and not self.damage


Talk = Callable[[str, ssl.SSLContext, Ledger], Outcome]


def _write_all(ledger: Ledger, send: Callable[[str], object]) -> None:
    """Have four threads send what the ledger says, all of them begun before the first sends."""
    begin = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        begin.wait(PATIENCE)
        for text in ledger.said(writer):
            send(text)

    for writing in [in_thread(write, writer) for writer in range(WRITERS)]:
        writing.result(PATIENCE)


def talk_connman(url: str, context: ssl.SSLContext, ledger: Ledger, *, is_shared: bool = False) -> Outcome:
    """Hold a conversation by a `connman.Connection`, with a reader of its own or a shared one."""
    is_over, resets = threading.Event(), []

    def on_data(_: connman.Connection, message: object) -> None:
        if ledger.hear(message):
            is_over.set()

    def on_reset(_: connman.Connection, reset: connman.Reset) -> None:
        resets.append(str(reset.error))
        is_over.set()

    conn = connection(
        is_shared, url, ssl_context=context, proxy=None, on_data=on_data, on_reset=on_reset, reconnect=False
    )
    with conn:
        try:
            _write_all(ledger, conn.send)
        except connman.ConnmanError as error:
            resets.append(str(error))
            is_over.set()
        if not is_over.wait(PATIENCE):
            resets.append("it stalled")
        drop = resets[0] if resets else None  # behind this comes the reset of our own goodbye
    return Outcome(ledger.heard, drop, ledger.damage)


def talk_shared(url: str, context: ssl.SSLContext, ledger: Ledger) -> Outcome:
    """Hold a conversation by a `connman.Connection` on a shared reader."""
    return talk_connman(url, context, ledger, is_shared=True)


def talk_websocket_client(url: str, context: ssl.SSLContext, ledger: Ledger) -> Outcome:
    """Hold a conversation by bare websocket-client, which locks its sends among each other only."""
    client = websocket.create_connection(url, sslopt={"context": context}, timeout=PATIENCE)

    def read() -> None:
        while not ledger.hear(client.recv()):
            pass

    reading, drop = in_thread(read), None
    try:
        _write_all(ledger, client.send)
        reading.result(PATIENCE)
    except Exception as error:  # noqa: BLE001 (whatever it raises is how the conversation went)
        drop = f"{type(error).__name__}: {error}"
    finally:
        # Its close() may wait for ever for a reader.
        with contextlib.suppress(OSError, AttributeError):
            client.sock.close()
    return Outcome(ledger.heard, drop, ledger.damage)


class _NoLock(contextlib.nullcontext):  # type: ignore[type-arg]
    """Let everybody in."""


def take_the_lock_out() -> None:
    """Plant the bug that all this is about: any thread may use the TLS object at any time."""
    make = TlsStream.__init__

    def make_without(stream: TlsStream, guard: object) -> None:
        make(stream, guard)  # type: ignore[arg-type]
        stream._lock = _NoLock()  # type: ignore[assignment]  # noqa: SLF001 (a bug planted on purpose)

    TlsStream.__init__ = make_without  # type: ignore[method-assign, assignment]


TALKS: dict[str, Talk] = {
    "own reader": talk_connman,
    "shared reader": talk_shared,
    "websocket-client": talk_websocket_client,
}
