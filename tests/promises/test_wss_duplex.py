"""One reader and four writers on one TLS connection: nothing is dropped, nothing is damaged."""

import random
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator

import pytest
import trustme

import connman
from tests.loopback import in_thread
from tests.promises.peers import connection
from tests.servers import WebSocketProcess, ws_server

WRITERS = 4
PATIENCE = 30.0

Secure = tuple[WebSocketProcess, ssl.SSLContext]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    authority.configure_trust(context)
    with ws_server(path, path) as process:
        yield process, context


class Conversation:
    """Four threads that send, each its own numbered messages, and what came back."""

    def __init__(self, secure: Secure, seed: int, messages: int, is_shared: bool = False) -> None:
        server, context = secure
        self._dice = random.Random(seed)
        self._count = messages // WRITERS
        self._expected = WRITERS * self._count
        self._heard: dict[str, list[str]] = defaultdict(list)
        self._total = 0
        self._is_complete = threading.Event()
        self.resets: list[connman.Reset] = []
        self.conn = connection(
            is_shared,
            server.url("/echo"),
            ssl_context=context,
            proxy=None,
            on_data=self._hear,
            on_reset=self._reset,
        )

    def _hear(self, _: connman.Connection, message: object) -> None:
        assert isinstance(message, str)
        self._heard[message[0]].append(message)
        self._total += 1
        if self._total == self._expected:
            self._is_complete.set()

    def _reset(self, _: connman.Connection, reset: connman.Reset) -> None:
        self.resets.append(reset)
        self._is_complete.set()

    def hold(self) -> None:
        """Say everything and hear everything, each writer's messages whole and in its order."""
        said = {str(writer): self._texts(writer) for writer in range(WRITERS)}
        with self.conn:
            barrier = threading.Barrier(WRITERS)

            def write(texts: list[str]) -> None:
                barrier.wait(PATIENCE)
                for text in texts:
                    self.conn.send(text)

            for writing in [in_thread(write, texts) for texts in said.values()]:
                writing.result(PATIENCE)
            assert self._is_complete.wait(PATIENCE), f"{self._total} of {self._expected} came back"
            assert self.resets == []
            assert self._heard == said

    def _texts(self, writer: int) -> list[str]:
        sizes = [self._dice.choice((10, 100, 100, 1000, 5000)) for _ in range(self._count)]
        return [f"{writer} {number} ".ljust(size, "x") for number, size in enumerate(sizes)]


SHARED = pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader"])


@SHARED
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("conversations", "messages"), [(3, 2000), pytest.param(50, 4000, marks=pytest.mark.slow)]
)
def test_one_reader_and_four_writers(
    secure: Secure, seed: int, conversations: int, messages: int, is_shared: bool
) -> None:
    for number in range(conversations):
        Conversation(secure, seed + number, messages, is_shared).hold()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_several_conversations_at_once(secure: Secure, seed: int) -> None:
    for holding in [in_thread(Conversation(secure, seed + n, 4000).hold) for n in range(8)]:
        holding.result(100)


@SHARED
def test_long_messages_both_ways_at_once(secure: Secure, is_shared: bool) -> None:
    """Neither side can take what the other sends before it has got rid of its own: no deadlock."""
    server, context = secure
    heard: list[object] = []
    is_complete = threading.Event()
    messages = [bytes([number]) * 4_000_000 for number in range(8)]

    def on_data(_: connman.Connection, data: object) -> None:
        heard.append(data)
        if len(heard) == len(messages):
            is_complete.set()

    with connection(is_shared, server.url("/echo"), ssl_context=context, proxy=None, on_data=on_data) as conn:
        for sending in [in_thread(conn.send, message) for message in messages]:
            sending.result(PATIENCE)
        assert is_complete.wait(PATIENCE)
    assert sorted(heard) == messages  # type: ignore[type-var]
