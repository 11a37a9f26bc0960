"""What one process offers."""

import threading
from collections.abc import Iterator

import pytest

from connman.errors import InvalidOption
from connman.rpc import Services
from connman.rpc.workers import Workers
from tests.rpc.rig import PATIENCE, Wired
from tests.waiting import eventually


def test_offering() -> None:
    services = Services({1: len, "two": max})
    assert services.get(1) is len
    assert services.get("two") is max
    assert services.get("1") is None
    services.add(1, min)
    assert services.get(1) is min
    services.remove(1)
    services.remove(1)
    assert services.get(1) is None
    services.clear()
    assert services.get("two") is None


@pytest.mark.parametrize("service", [0, -1, 1.0, "", None, True])
def test_ids(service: object) -> None:
    with pytest.raises(ValueError, match="service id"):
        Services({service: len})  # type: ignore[dict-item]


def test_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="callable"):
        Services({1: "x"})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "options", [{"max_workers": 0}, {"max_workers": 1.5}, {"max_waiting": -1}, {"max_workers": True}]
)
def test_numbers(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption):
        Services(**options)


def test_the_threads_end_with_the_last_path() -> None:
    services = Services({1: lambda: 1})

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "connman-worker-services"]

    with Wired(services) as one:  # type: ignore[arg-type]
        with Wired(services) as two:  # type: ignore[arg-type]
            one.ask(1)
            two.ask(1)
        assert threads()
    eventually(lambda: not threads(), 5.0)


def test_the_threads_that_send_streams_are_bounded_for_all_peers_together() -> None:
    """A stream takes one while what gives its chunks blocks; the others wait for their turn, and all come to their end."""
    begun, may_go_on = list[int](), threading.Event()

    def blocked() -> Iterator[str]:
        begun.append(1)
        may_go_on.wait(PATIENCE)
        yield "chunk"

    services = Services({1: blocked, 2: lambda: "fine"})
    services.senders = Workers("streams", 2, 100)
    with Wired(services) as one, Wired(services) as two:  # type: ignore[arg-type]
        for number in range(3):
            for wire in (one, two):
                wire.say({"requestId": number, "type": "request", "serviceId": 1})
        eventually(lambda: len(begun) == 2, PATIENCE)
        assert [wire.ask(2, number=9)["data"] for wire in (one, two)] == ["fine", "fine"]
        assert len(begun) == 2
        may_go_on.set()
        for wire in (one, two):
            ended = 0
            while ended < 3:
                ended += wire.hear()["type"] == "stream-end"
    assert len(begun) == 6
