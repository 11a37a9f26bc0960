"""Who wants to hear of which event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from connman.connection import fork
from connman.integrations.pusher.wire import Event

Listener = Callable[[Any], object]
EventListener = Callable[[Event], object]


class Listeners:
    """Functions bound to events by name, and functions bound to all events.

    Each is called with the event's data; those bound to all are called with the whole `Event`. A listener that raises
    is logged and stops nothing. They run one at a time, in the order of what they are told.

    Threads: every method from any thread, listeners included.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may bind, too.
        self._lock = threading.RLock()
        # Guarded by _lock: both are replaced, never changed, so whoever calls listeners needs no lock.
        self._by_name: dict[str, tuple[Listener, ...]] = {}
        self._of_all: tuple[EventListener, ...] = ()
        fork.register(self)

    def bind(self, event: str, listener: Listener) -> Self:
        """Have ``listener(data)`` called for each event of that name; return this object.

        Raises: TypeError when it is no function.
        Threads: any; never blocks.
        """
        _check(listener)
        with self._lock:
            self._by_name = self._by_name | {event: (*self._by_name.get(event, ()), listener)}
        return self

    def unbind(self, event: str | None = None, listener: Listener | None = None) -> Self:
        """Forget ``listener`` for that event; None for any event, and for all of its listeners. Idempotent.

        Threads: any; never blocks. One that is being called may still run.
        """
        with self._lock:
            kept = {
                name: bound
                if event not in (None, name)
                else tuple(one for one in bound if listener not in (None, one))
                for name, bound in self._by_name.items()
            }
            self._by_name = {name: bound for name, bound in kept.items() if bound}
        return self

    def bind_all(self, listener: EventListener) -> Self:
        """Have ``listener(event)`` called for each event, of whatever name; return this object.

        Raises: TypeError when it is no function.
        Threads: any; never blocks.
        """
        _check(listener)
        with self._lock:
            self._of_all = (*self._of_all, listener)
        return self

    def unbind_all(self, listener: EventListener | None = None) -> Self:
        """Forget ``listener``, or with None every one, that was bound by `bind_all`. Idempotent.

        Threads: any; never blocks.
        """
        with self._lock:
            self._of_all = tuple(one for one in self._of_all if listener not in (None, one))
        return self

    def calls(self, event: Event) -> list[Callable[[], object]]:
        """Return the calls that tell of ``event``, those bound by its name first.

        Threads: any.
        """
        named = [partial(one, event.data) for one in self._by_name.get(event.name, ())]
        return [*named, *(partial(one, event) for one in self._of_all)]

    def after_fork(self) -> None:
        """Become usable in a child process: the lock may have been held when it forked.

        Threads: the first one of the child that uses connman.
        """
        self._lock = threading.RLock()


def _check(listener: object) -> None:
    if not callable(listener):
        raise TypeError("a listener is a function of one argument")
