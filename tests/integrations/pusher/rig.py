"""A Pusher client on a fake clock, whose server is in memory, and a record of what its listeners are told."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, Self

from connman.integrations.pusher import Event, Pusher, SecretAuth, StateChange
from connman.manager import Manager
from connman.strategy import Transport, TransportManager
from connman.testing import FakeClock, ScriptedDialer
from connman.testing.dialer import Outcome
from tests.pusher_server import KEY, SECRET, Guest, PusherServer
from tests.waiting import eventually

USER = {"user_id": "7", "user_info": {"name": "Seven"}}


class Told:
    """What listeners were told, in order, as the events' names and their data; and on which threads."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.threads: list[str] = []
        self.hooks: dict[str, Callable[[Any], object]] = {}
        self.inside = self.overlaps = 0

    def __call__(self, event: Event) -> None:
        self.overlaps += self.inside
        self.inside += 1
        self.threads.append(threading.current_thread().name)
        self.events.append((event.name, event.data))  # last: who waits for it finds the rest
        try:
            self.hooks.get(event.name, lambda _: None)(event.data)
        finally:
            self.inside -= 1

    def of(self, name: str) -> list[Any]:
        return [data for event, data in list(self.events) if event == name]

    def wait(self, name: str, count: int = 1) -> Any:
        """Wait for the `count`-th event of that name, and return its data."""
        eventually(lambda: len(self.of(name)) >= count, message=lambda: f"{name} in {self.events}")
        return self.of(name)[count - 1]

    @property
    def states(self) -> list[str]:
        return [change.current.value for change in self.of("state_change") if isinstance(change, StateChange)]


class Rig:
    """A client of `server`; `script` replaces outcomes of the first dials. Leaving the with-block ends it.

    `is_watched`: a `TransportManager` looks after its transports, as it does on the client's own routes.
    """

    def __init__(
        self, server: PusherServer | None = None, *script: Outcome, is_watched: bool = False, **options: Any
    ) -> None:
        self.server = server or PusherServer()
        self.clock = FakeClock()
        self.dialer = ScriptedDialer(itertools.chain(script, itertools.repeat(self.server.serve)))
        self.manager = Manager()
        watcher = TransportManager(max_ping_delay=120.0, clock=self.clock)
        defaults = {
            "strategy": Transport(self.dialer, manager=watcher) if is_watched else self.dialer,
            "secret_auth": SecretAuth(KEY, SECRET, user=USER),
            "ping_interval": None,
            "manager": self.manager,
            "name": "rig",
        }
        self.pusher = Pusher(KEY, clock=self.clock, **{**defaults, **options})
        self.told = Told()
        self.pusher.connection.bind_all(self.told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.pusher.disconnect(timeout=1.0)

    def open(self, number: int = 1) -> Guest:
        """Connect, wait until it is, and return the server's side of it."""
        self.pusher.connect()
        return self.opened(number)

    def opened(self, number: int) -> Guest:
        """Wait until it is connected for the `number`-th time."""
        self.told.wait("connected", number)
        return self.server.guests[-1]

    def wait_pause(self) -> None:
        """Wait until it waits between two attempts."""
        self.clock.wait_until_waiting()
