"""A compressed connection is like any other: many writers, reconnects, and a bomb that ends it.

Seen failing on planted bugs: the writers with messages compressed before the send lock is taken, the reconnects with one
compressor for all connections, the bomb without the look at what has come out so far. (websocket-client does not compress.)
"""

import contextlib
import gc
import ssl
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import ServerConnection, serve

import connman
from connman.errors import MessageTooBig
from tests.loopback import in_thread
from tests.promises.peers import PATIENCE
from tests.scripted import Guest
from tests.scripted import serve as serve_script

WRITERS, COUNT = 4, 300


@contextlib.contextmanager
def served(
    handler: Callable[[ServerConnection], None], context: ssl.SSLContext | None = None, **parameters: Any
) -> Iterator[int]:
    factory = ServerPerMessageDeflateFactory(**parameters)
    with serve(handler, "127.0.0.1", 0, ssl=context, compression=None, extensions=[factory]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
            # The library leaves its selector to the garbage collector.
            gc.collect()


def echo(ws: ServerConnection) -> None:
    for message in ws:
        ws.send(message)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    "parameters", [{}, {"server_max_window_bits": 10, "client_max_window_bits": 9}, {"client_no_context_takeover": True}]
)  # fmt: skip
def test_four_writers_and_a_reader(scheme: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    authority, ours = trustme.CA(), ssl.create_default_context()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    heard: dict[str, list[str]] = defaultdict(list)

    def say(name: str) -> None:
        for number in range(COUNT):
            conn.send(f"{name} {number} " + f"the text of {name}, " * (number % 50))

    with (
        served(echo, theirs if scheme == "wss" else None, **parameters) as port,
        connman.Connection(
            f"{scheme}://127.0.0.1:{port}/", compression="deflate", ssl_context=ours, proxy=None
        ) as conn,
    ):
        writers = [in_thread(say, name) for name in "abcd"]
        for _ in range(WRITERS * COUNT):
            message = conn.recv(timeout=PATIENCE)
            assert isinstance(message, str)
            heard[message[0]].append(message)
        for writer in writers:
            writer.result(PATIENCE)
        assert conn.stats.losses == 0
        assert conn.stats.bytes_out < sum(len(m) for messages in heard.values() for m in messages) / 4
    for name in "abcd":
        assert heard[name] == [f"{name} {n} " + f"the text of {name}, " * (n % 50) for n in range(COUNT)]


def test_every_reconnect_begins_anew() -> None:
    text = "the same words over and over; " * 10

    def once(ws: ServerConnection) -> None:
        ws.send(ws.recv())
        ws.close(1012)

    with served(once) as port:
        conn = connman.Connection(
            f"ws://127.0.0.1:{port}/", compression="deflate", proxy=None, stable_after=0
        )
        for _ in range(3):
            # While the server waits for a message: behind its answer it closes.
            generation = conn.wait_open(timeout=PATIENCE).generation
            conn.send(text, wait=PATIENCE)
            assert conn.recv(timeout=PATIENCE) == text
            while conn.generation == generation:
                conn.wait_open(timeout=PATIENCE)
                conn.reconnect_now()
        conn.disconnect()


@pytest.mark.slow
def test_a_bomb_ends_it_with_message_too_big() -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(256))
    bomb += deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]
    answers: list[bytes] = []

    def script(guest: Guest) -> None:
        guest.read_request()
        head = guest.upgrade_head("Sec-WebSocket-Extensions: permessage-deflate")
        guest.send(head + b"\xc2\x7f" + len(bomb).to_bytes(8, "big") + bomb)
        answers.append(guest.wait_closed())

    resets: list[connman.Reset] = []
    with serve_script(script) as server:
        conn = connman.Connection(
            server.url(), compression="deflate", proxy=None, reconnect=False, on_reset=lambda _, reset: resets.append(reset)
        )  # fmt: skip
        conn.wait_open(timeout=PATIENCE)
        with pytest.raises(MessageTooBig):
            conn.recv(timeout=PATIENCE)
        conn.disconnect()
    [reset] = resets
    assert (reset.opened, reset.code) == (True, 1009)
    [answer] = answers
    key = answer[2:6]
    assert answer[0] == 0x88
    assert bytes((answer[6] ^ key[0], answer[7] ^ key[1])) == (1009).to_bytes(2, "big")
