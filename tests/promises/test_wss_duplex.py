"""One reader and four writers on one TLS connection: nothing is dropped, nothing is damaged, nothing waits for itself.

Seen failing with connman's lock around the TLS object taken out, and over bare websocket-client, by the same rig:
`scripts/rig duplex --without-lock` and `scripts/rig duplex --client websocket-client`; docs/reliability.md has the figures. A few
conversations prove nothing, they survive without the lock as well: what tells at once is the test that watches the object.
"""

import contextlib
import select
import ssl
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import trustme

import connman
from tests.loopback import in_thread
from tests.promises.peers import connection
from tests.rigs.duplex.ledger import Ledger
from tests.rigs.duplex.talking import TALKS
from tests.servers import WebSocketProcess, ws_server

PATIENCE = 60.0
MIB = 1 << 20
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Each kind of reader and each version once in the quick part.
KINDS = pytest.mark.parametrize(
    ("reader", "version"),
    [
        ("own reader", "1.2"),
        ("shared reader", "1.3"),
        pytest.param("own reader", "1.3", marks=pytest.mark.slow),
        pytest.param("shared reader", "1.2", marks=pytest.mark.slow),
    ],
)

Secure = tuple[WebSocketProcess, dict[str, ssl.SSLContext]]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    path, authority = tmp_path_factory.mktemp("tls") / "server.pem", trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    contexts = {}
    for name, version in VERSIONS.items():
        contexts[name] = context = ssl.create_default_context()
        context.minimum_version = context.maximum_version = version
        authority.configure_trust(context)
    with ws_server(path, path) as process:
        yield process, contexts


class Watched(ssl.SSLSocket):
    """A TLS object that notices when two threads are in it at once, and makes that likely."""

    overlaps: ClassVar[list[str]] = []

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        mine = vars(self).setdefault("inside", threading.Lock())
        if not mine.acquire(blocking=False):
            self.overlaps.append(threading.current_thread().name)
            yield
            return
        try:
            select.select([], [], [], 0.0002)  # time for others to come in
            yield
        finally:
            mine.release()

    def recv(self, *args: Any) -> bytes:
        with self._alone():
            return super().recv(*args)

    def send(self, *args: Any) -> int:
        with self._alone():
            return super().send(*args)

    def unwrap(self) -> Any:
        with self._alone():
            return super().unwrap()


def hold(secure: Secure, reader: str, version: str, seed: int, messages: int) -> None:
    """Hold a conversation: each writer's messages have to come back whole and in their order."""
    server, contexts = secure
    outcome = TALKS[reader](server.url("/echo"), contexts[version], Ledger(seed, messages))
    assert (outcome.drop, outcome.damage, outcome.heard) == (None, [], messages)


@KINDS
def test_one_reader_and_four_writers(secure: Secure, seed: int, reader: str, version: str) -> None:
    hold(secure, reader, version, seed, 4000)


@KINDS
def test_no_two_threads_are_in_the_tls_object_at_once(
    secure: Secure, seed: int, reader: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: without the lock all four kinds failed."""
    server, contexts = secure
    monkeypatch.setattr(contexts[version], "sslsocket_class", Watched)
    Watched.overlaps.clear()
    outcome = TALKS[reader](server.url("/echo"), contexts[version], Ledger(seed, 400))
    assert (outcome.drop, outcome.damage, outcome.heard) == (None, [], 400)
    assert Watched.overlaps == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("reader", ["own reader", "shared reader"])
def test_many_conversations(secure: Secure, seed: int, reader: str, version: str) -> None:
    """A quarter of a hundred of each kind, two at a time; `scripts/rig duplex` holds three hundred."""

    def some(begin: int) -> None:
        for number in range(begin, 25, 2):
            hold(secure, reader, version, seed + number, 4000)

    for holding in [in_thread(some, begin) for begin in range(2)]:
        holding.result(250)


@pytest.mark.parametrize(
    "size", [24 * MIB, pytest.param(128 * MIB, marks=pytest.mark.slow)], ids=lambda n: f"{n >> 20} MiB"
)
@KINDS
def test_much_both_ways_at_once(secure: Secure, reader: str, version: str, size: int) -> None:
    """Neither side can take what the other sends before it has got rid of its own: a reader that waits for a sender is a deadlock.

    Planted: with a `TlsStream.send_some` that waits for the network inside the lock this never ended.
    """
    server, contexts = secure
    pushed, told = bytearray(), []
    is_over = threading.Event()

    def on_data(_: connman.Connection, data: object) -> None:
        if isinstance(data, str):  # how much has arrived there, and its checksum: the last thing it sends
            told.append(data)
            is_over.set()
        else:
            assert isinstance(data, bytes)
            pushed.extend(data[:1] + data[-1:])
            assert data == data[:1] * MIB

    count = size // MIB
    with connection(
        reader == "shared reader",
        server.url(f"/both?count={count}&size={MIB}&lead={count // 2}"),
        ssl_context=contexts[version],
        proxy=None,
        on_data=on_data,
        send_timeout=PATIENCE,
    ) as conn:

        def write(writer: int) -> None:
            for number in range(writer, count, 4):
                conn.send(bytes([number]) * MIB)

        for writing in [in_thread(write, writer) for writer in range(4)]:
            writing.result(PATIENCE)
        assert is_over.wait(PATIENCE)
    assert told == [f"{count} {sum(range(count)) * MIB}"]
    assert pushed == bytes(number for number in range(count) for _ in range(2))
