"""Requests on their way through the workers, and what their services can do."""

import threading
from typing import Any

import pytest

from connman.rpc import Peer, Services, current_peer
from connman.testing import ScriptedDialer
from tests.rpc.rig import PATIENCE, Pair, Wired
from tests.waiting import eventually


def request(number: int, service: object, *args: Any, **fields: Any) -> dict[str, Any]:
    return {"requestId": number, "type": "request", "serviceId": service, "args": list(args), **fields}


def test_services_run_on_workers_never_on_the_reader() -> None:
    with Wired({1: lambda: threading.current_thread().name}) as wire:
        assert wire.ask(1)["data"] == "connman-worker-services"


def test_a_service_calls_back() -> None:
    with Pair({"ask": lambda x: current_peer().call("answer", x + 1)}) as pair:
        pair.here.add_service("answer", lambda x: x * 10)
        assert pair.here.call("ask", 4) == 50


def test_services_that_call_back_and_forth() -> None:
    def count(n: int) -> int:
        return n if n <= 0 else 1 + int(current_peer().call("count", n - 1))

    with Pair({"count": count}) as pair:
        pair.here.add_service("count", count)
        assert pair.here.call("count", 20) == 20


def test_there_is_no_peer_outside_of_a_service() -> None:
    with pytest.raises(LookupError):
        current_peer()


def test_each_service_sees_its_own_peer() -> None:
    services = Services({"who": lambda: current_peer().conn.name})
    with Wired(services, name="one") as one, Wired(services, name="two") as two:  # type: ignore[arg-type]
        assert one.ask("who")["data"] == "one"
        assert two.ask("who")["data"] == "two"


def test_too_many_calls_are_refused_at_once() -> None:
    may_return = threading.Event()
    services = Services(
        {1: lambda: may_return.wait(PATIENCE), 2: lambda: "fine"}, max_workers=2, max_waiting=3
    )
    with Wired(services) as wire:  # type: ignore[arg-type]
        wire.say(*[request(number, 1) for number in range(5)])
        answer = wire.ask(1, number=5)
        assert answer == {
            "responseId": 5, "type": "error",
            "error": {"name": "TooBusy", "message": "too many calls are waiting here already", "code": "TOO-BUSY"},
        }  # fmt: skip
        assert wire.peer.stats.refused_busy == 1
        may_return.set()
        assert sorted(wire.hear()["responseId"] for _ in range(5)) == [0, 1, 2, 3, 4]
        assert wire.ask(2, number=6)["data"] == "fine"


def test_a_call_that_comes_again_is_run_once() -> None:
    ran: list[int] = []

    def service(x: int) -> int:
        ran.append(x)
        return x * 2

    with Wired({1: service}) as wire:
        assert wire.ask(1, 21, number=0, callId="a")["data"] == 42
        assert wire.ask(1, 21, number=1, callId="a") == {"responseId": 1, "type": "data", "data": 42}
        assert wire.ask(1, 4, number=2, callId="b")["data"] == 8
        assert ran == [21, 4]


def test_a_call_that_comes_again_while_it_runs_gets_the_same_answer() -> None:
    ran, may_return = list[int](), threading.Event()

    def service() -> str:
        ran.append(1)
        may_return.wait(PATIENCE)
        return "once"

    with Wired({1: service}) as wire:
        wire.say(request(0, 1, callId="a"), request(1, 1, callId="a"), request(2, 1, callId="a"))
        wire.mark()
        may_return.set()
        answers = sorted((wire.hear() for _ in range(3)), key=lambda answer: int(answer["responseId"]))
        assert answers == [{"responseId": number, "type": "data", "data": "once"} for number in range(3)]
        assert ran == [1]


def test_a_call_that_comes_again_over_another_path_is_run_once() -> None:
    """The peers of one provider share what has run: whichever spare the second one comes by."""
    ran, is_running, may_return = list[int](), threading.Event(), threading.Event()

    def service() -> str:
        ran.append(1)
        is_running.set()
        may_return.wait(PATIENCE)
        return "once"

    services = Services({1: service})
    with Wired(services) as first, Wired(services) as second:  # type: ignore[arg-type]
        first.say(request(0, 1, callId="a"))
        assert is_running.wait(PATIENCE)
        first.far.drop()
        eventually(first.peer.closed.done, PATIENCE)
        second.say(request(0, 1, callId="a"))
        second.mark()
        may_return.set()
        assert second.hear()["data"] == "once"
        assert ran == [1]


def test_a_failure_is_kept_as_well() -> None:
    ran: list[int] = []

    def service() -> None:
        ran.append(1)
        raise ValueError("no")

    with Wired({1: service}) as wire:
        assert wire.ask(1, number=0, callId="a")["error"] == wire.ask(1, number=1, callId="a")["error"]
        assert ran == [1]


def test_a_refused_call_may_come_again() -> None:
    may_return = threading.Event()
    services = Services(
        {1: lambda: may_return.wait(PATIENCE), 2: lambda: "ran"}, max_workers=1, max_waiting=0
    )
    with Wired(services) as wire:  # type: ignore[arg-type]
        wire.say(request(0, 1))
        assert wire.ask(2, number=1, callId="a")["error"]["code"] == "TOO-BUSY"
        may_return.set()
        assert wire.hear()["responseId"] == 0
        eventually(lambda: services.workers.idle == 1, PATIENCE)
        assert wire.ask(2, number=2, callId="a")["data"] == "ran"


@pytest.mark.parametrize("call_id", ["", "x" * 129, 5, None, [], {}])
def test_what_is_no_call_id_is_ignored(call_id: object) -> None:
    ran: list[int] = []
    with Wired({1: lambda: ran.append(1)}) as wire:
        wire.ask(1, callId=call_id)
        wire.ask(1, callId=call_id)
        assert ran == [1, 1]


def test_retry_safe_calls_run_once_through_losses() -> None:
    """End to end: the caller's path breaks while the service runs; the answer comes by the next one, and it ran once."""
    ran, is_running, may_return = list[int](), threading.Event(), threading.Event()

    def service(x: int) -> int:
        ran.append(x)
        is_running.set()
        may_return.wait(PATIENCE)
        return x + 1

    services = Services({"add one": service})
    server = Wired(services, script=[ScriptedDialer.OPEN] * 2, reconnect=True, wait=lambda _: 0.0)  # type: ignore[arg-type]
    with server, Wired(script=[ScriptedDialer.OPEN] * 2, reconnect=True, wait=lambda _: 0.0) as caller:
        future = caller.peer.send("add one", 1, retry_safe=True)
        server.say(caller.hear())
        assert is_running.wait(PATIENCE)
        caller.far.drop()
        server.far.drop()
        caller.far, server.far = caller.dialer.next_peer(), server.dialer.next_peer()
        server.say(caller.hear())
        server.mark()
        may_return.set()
        caller.say(server.hear())
        assert future.result(PATIENCE) == 2
        assert ran == [1]


def test_what_was_asked_for_by_a_path_that_is_gone_is_not_begun() -> None:
    ran, may_return, is_running = list[str](), threading.Event(), threading.Event()

    def first() -> None:
        is_running.set()
        may_return.wait(PATIENCE)

    services = Services(
        {1: first, 2: lambda: ran.append("plain"), 3: lambda: ran.append("noted")}, max_workers=1
    )
    with Wired(services) as wire:  # type: ignore[arg-type]
        wire.say(request(0, 1), request(1, 2), request(2, 3, notice=True))
        assert is_running.wait(PATIENCE)
        wire.mark()
        wire.far.drop()
        eventually(wire.peer.closed.done, PATIENCE)
        may_return.set()
        eventually(lambda: ran, PATIENCE)
        assert ran == ["noted"]


def test_a_thousand_answers_go_out_with_few_sends() -> None:
    with Wired({1: lambda x: x}, peer={}) as wire:
        wire.say(*[request(number, 1, number) for number in range(1000)])
        assert sorted(wire.hear()["data"] for _ in range(1000)) == list(range(1000))
        assert isinstance(wire.peer, Peer)


def test_an_id_that_came_with_other_arguments_is_another_call() -> None:
    with Wired({1: lambda x: x * 2}) as wire:
        assert wire.ask(1, "mine", number=0, callId="a")["data"] == "minemine"
        assert wire.ask(1, "yours", number=1, callId="a")["data"] == "yoursyours"
        assert wire.ask(1, number=2, callId="a")["type"] == "error"
        wire.say('{"requestId":3,"type":"request","serviceId":1,"args":[1e999],"callId":"a"}')
        assert wire.hear()["error"]["code"] == "WSP-ESV"


@pytest.mark.slow
def test_large_requests_that_wait_are_bounded_together() -> None:
    """Their number alone would let one peer fill the memory."""
    may_return = threading.Event()
    services = Services({1: lambda _: may_return.wait(PATIENCE), 2: len}, max_workers=1)
    with Wired(services) as wire:  # type: ignore[arg-type]
        wire.say(request(0, 1, ""))
        eventually(lambda: services.workers.idle == 0, PATIENCE)
        large = "x" * (8 << 20)
        wire.say(*[request(number, 2, large) for number in range(1, 11)])
        refused = [wire.hear() for _ in range(3)]
        assert [answer["responseId"] for answer in refused] == [8, 9, 10]
        assert {answer["error"]["code"] for answer in refused} == {"TOO-BUSY"}
        wire.say(request(11, 2, "small"))
        may_return.set()
        assert [wire.hear()["responseId"] for _ in range(9)] == [*range(8), 11]
        assert wire.ask(2, large, number=12)["data"] == len(large)  # there is room again


def test_a_notice_that_is_refused_is_not_answered() -> None:
    may_return = threading.Event()
    services = Services({1: lambda: may_return.wait(PATIENCE)}, max_workers=1, max_waiting=0)
    with Wired(services) as wire:  # type: ignore[arg-type]
        wire.say(request(0, 1), request(1, 1, notice=True), request(2, 1))
        assert wire.hear()["responseId"] == 2
        may_return.set()
        assert wire.hear()["responseId"] == 0
        assert wire.peer.stats.refused_busy == 2


def test_the_streams_among_the_arguments_are_bounded() -> None:
    with Wired({1: len}) as wire:
        assert wire.ask(1, [{"$__stream$": "x"}] * 1000)["data"] == 1000
        assert "1000 streams" in wire.ask(1, [{"$__stream$": "x"}] * 1001)["error"]["message"]


def test_a_peer_that_does_not_read_takes_no_worker_from_the_others() -> None:
    services = Services({1: lambda text: text}, max_workers=2)
    script = [ScriptedDialer.DEAF]
    with (
        Wired(services, script=script, send_timeout=60.0) as deaf,  # type: ignore[arg-type]
        Wired(services) as other,  # type: ignore[arg-type]
    ):
        deaf.say(*[request(number, 1, "x" * 10_000) for number in range(300)])
        deaf.mark()
        assert [other.ask(1, "fine", number=number)["data"] for number in range(3)] == ["fine"] * 3
        deaf.far.listen()
        assert {deaf.hear()["responseId"] for _ in range(300)} == set(range(300))
