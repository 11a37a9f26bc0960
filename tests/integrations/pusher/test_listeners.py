"""Who wants to hear of which event."""

import threading
from typing import Any

import pytest

from connman.integrations.pusher.listeners import Listeners
from connman.integrations.pusher.wire import Event


def tell(listeners: Listeners, name: str, data: Any = None) -> None:
    for call in listeners.calls(Event(name, data)):
        call()


def test_by_name_first_and_then_all_in_order() -> None:
    told: list[Any] = []
    listeners = Listeners()
    listeners.bind_all(lambda event: told.append(("all", event.name)))
    listeners.bind("a", lambda data: told.append(("first", data))).bind(
        "a", lambda data: told.append(("second", data))
    )
    tell(listeners, "a", 1)
    tell(listeners, "b", 2)
    assert told == [("first", 1), ("second", 1), ("all", "a"), ("all", "b")]


def test_unbinding() -> None:
    told: list[str] = []

    def one(_: Any) -> None:
        told.append("one")

    def two(_: Any) -> None:
        told.append("two")

    def bound() -> Listeners:
        told.clear()
        return Listeners().bind("a", one).bind("a", two).bind("b", one).bind_all(two)

    for forget, left in (
        (lambda found: found.unbind("a", one), ["two", "two", "one", "two"]),
        (lambda found: found.unbind("a"), ["two", "one", "two"]),
        (lambda found: found.unbind(listener=one), ["two", "two", "two"]),
        (lambda found: found.unbind(), ["two", "two"]),
        (lambda found: found.unbind_all(two), ["one", "two", "one"]),
        (lambda found: found.unbind_all(), ["one", "two", "one"]),
        (
            lambda found: found.unbind("c").unbind("a", print).unbind_all(print),
            ["one", "two", "two", "one", "two"],
        ),
    ):
        listeners = bound()
        forget(listeners)
        tell(listeners, "a")
        tell(listeners, "b")
        assert told == left


def test_only_functions() -> None:
    for bind in (lambda: Listeners().bind("a", None), lambda: Listeners().bind_all("x")):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            bind()


def test_many_threads_bind_at_once() -> None:
    listeners = Listeners()
    threads = [
        threading.Thread(target=lambda: [listeners.bind("a", print) for _ in range(100)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listeners.calls(Event("a"))) == 800
