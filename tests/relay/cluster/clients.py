"""Clients of a relay, by websocket-client: what they hear, word by word."""

import contextlib
import json
import select
from collections.abc import Iterator
from typing import Any, Self

import websocket

from connman.relay import RedisBroker, Relay
from connman.relay.limits import Limits
from tests.waiting import eventually

PATIENCE = 10.0


class Client:
    """A websocket to a relay."""

    def __init__(self, relay: Relay | str, first: dict[str, Any]) -> None:
        url = relay if isinstance(relay, str) else relay.url
        self._ws = websocket.create_connection(url, timeout=PATIENCE)
        self.sock = self._ws.sock
        self.send(json.dumps(first))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.drop()

    def send(self, data: str | bytes) -> None:
        self._ws.send(
            data, websocket.ABNF.OPCODE_TEXT if isinstance(data, str) else websocket.ABNF.OPCODE_BINARY
        )

    def hear(self) -> str | bytes | tuple[int, str]:
        """Return the next message, or code and reason of the close."""
        opcode, data = self._ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big"), data[2:].decode()
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def close(self, code: int, reason: str) -> None:
        self._ws.send_close(code, reason.encode())

    def drop(self) -> None:
        """Go without a word."""
        self._ws.shutdown()


def provide(relay: Relay | str, name: str) -> Client:
    client = Client(relay, {"command": "provide", "name": name})
    assert client.hear() == '{"command":"provided"}'
    return client


def reach(relay: Relay | str, name: str) -> Client:
    return Client(relay, {"command": "reach", "name": name})


def get_ready(provider: Client) -> None:
    """Be handed over."""
    assert provider.hear() == '{"command":"handover"}'
    provider.send('{"command":"ready"}')


@contextlib.contextmanager
def cluster(url: str, count: int = 2, limits: Limits | None = None, **options: Any) -> Iterator[list[Relay]]:
    """Start relays that share a broker, and wait until each knows of all."""
    options = {"beat": 0.1} | options
    with contextlib.ExitStack() as stack:
        relays = [
            stack.enter_context(Relay(port=0, limits=limits, broker=RedisBroker(url, **options)))
            for _ in range(count)
        ]
        wait_for_all(relays)
        yield relays


def wait_for_all(relays: list[Relay]) -> None:
    eventually(lambda: all(len(relay.snapshot().relays) == len(relays) for relay in relays))


@contextlib.contextmanager
def pair(callers: Relay | str, owners: Relay | str, name: str) -> Iterator[tuple[Client, Client]]:
    """Join a caller with a provider."""
    with provide(owners, name) as provider, reach_when_known(callers, name, provider) as caller:
        yield caller, provider


def reach_when_known(relay: Relay | str, name: str, provider: Client) -> Client:
    """Reach a provider that another relay has only just got."""

    def attempt() -> Client | None:
        caller = reach(relay, name)
        # A provider says nothing unasked: either it is asked now, or the caller is sent away.
        heard = caller_or_provider(caller, provider)
        if heard is provider:
            get_ready(provider)
            assert caller.hear() == '{"command":"reached"}'
            return caller
        caller.drop()
        return None

    return eventually(attempt, message="the other relay to know the name")


def caller_or_provider(caller: Client, provider: Client) -> Client:
    """Wait for the first of two that hears something."""
    ready, _, _ = select.select([caller.sock, provider.sock], [], [], PATIENCE)
    return provider if provider.sock in ready else caller
