"""A server that floods whoever opens a WebSocket with what its path says, until they are gone; `/echo` echoes.

Prints its port when it listens, and ends when stdin does.
"""

import contextlib
import socket
import sys
import threading

from tests.hostile.acts import flood
from tests.promises.peers import frame, frames
from tests.scripted import Guest
from tests.servers import BINARY, CLOSE, PING, PONG, TEXT, server_frame

SIZE = 1 << 20
ONE = {
    "/pings": server_frame(PING),
    "/long-pings": server_frame(PING, b"x" * 125),
    "/pongs": server_frame(PONG, b"x"),
    "/empty-texts": server_frame(TEXT),
    "/texts": server_frame(TEXT, b"xy"),
    "/fragments": server_frame(TEXT, b"x", fin=False) + server_frame(0, b"x", fin=False) * 60 + server_frame(0, b"x"),
    "/big": server_frame(BINARY, bytes(SIZE)),
}  # fmt: skip


def serve(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError, AttributeError):
        guest = Guest(sock)
        path = guest.read_request().split(" ")[1]
        guest.send(guest.upgrade_head())
        if path != "/echo":
            one = ONE[path]
            flood(guest, one * max(1, SIZE // len(one)))
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for opcode, payload in frames(sock):
            sock.sendall(frame(payload, PONG if opcode == PING else opcode))
            if opcode == CLOSE:
                return


def accept_loop(listener: socket.socket) -> None:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_loop, args=(listener,), daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()


main()
