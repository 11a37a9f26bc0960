"""A server that behaves badly, by the table, and how to get to it."""

import dataclasses
import ssl
import threading
from collections.abc import Callable
from typing import Any

import trustme

from connman.errors import ConnectTimeout
from tests.hostile.acts import OPEN_TIMEOUT, Bad
from tests.promises.peers import PATIENCE, frames
from tests.scripted import Guest
from tests.servers import RawServer


@dataclasses.dataclass(frozen=True)
class Secure:
    """A certificate for 127.0.0.1 and who trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: bytes

    @classmethod
    def fresh(cls) -> "Secure":
        authority = trustme.CA()
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        authority.issue_cert("127.0.0.1").configure_cert(server)
        authority.configure_trust(client)
        return cls(server, client, authority.cert_pem.bytes())


class BadServer(RawServer):
    """Does to each connection what a row of the table says. `heard`: what each client sent once it was upgraded."""

    def __init__(self, bad: Bad, secure: Secure | None) -> None:
        super().__init__(self._behave)
        self._bad = bad
        self._secure = secure
        self.heard: list[bytes] = []
        self.is_over = threading.Event()

    def _behave(self, sock: Any, _number: int) -> None:
        try:
            if self._bad.is_secure:
                assert self._secure is not None
                # What is left unsaid, a goodbye for instance, is what some rows are about.
                sock = self._secure.server.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
            self.heard.append(self._bad.act(Guest(sock)))
        finally:
            self.is_over.set()
            if self._bad.is_secure:
                sock.close()

    def target(self) -> tuple[str, dict[str, Any]]:
        """Return the target that leads here, and the options that it takes."""
        bad = self._bad
        # Who does not need the deadline to be found out has none that a slow machine could reach before.
        open_timeout = OPEN_TIMEOUT if bad.error is ConnectTimeout else PATIENCE
        options: dict[str, Any] = {"proxy": None, "open_timeout": open_timeout, "ping_interval": None}
        if bad.scheme == "wss":
            assert self._secure is not None
            options["ssl_context"] = self._secure.client
        options |= bad.options
        if not bad.through:
            return f"{bad.scheme}://127.0.0.1:{self.port}/", options
        return "ws://192.0.2.1/", {**options, "proxy": f"{bad.through}://127.0.0.1:{self.port}"}


def close_codes(heard: bytes) -> list[int | None]:
    """Return the code of each close frame in what a client sent, None for one without."""

    source: Any = type("Heard", (), {"recv": staticmethod(_once(heard))})()
    return [int.from_bytes(body[:2]) if body else None for opcode, body in frames(source) if opcode == 8]


def _once(data: bytes) -> Callable[[int], bytes]:
    pieces = iter((data,))
    return lambda _size: next(pieces, b"")
