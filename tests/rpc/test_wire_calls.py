"""The model's rules of calling and serving, row by row, as raw frames."""

import math
import threading
from concurrent.futures import CancelledError

import pytest

from connman.errors import NoSuchService, PeerGone, RemoteError
from tests.rpc.rig import PATIENCE, Wired
from tests.waiting import eventually


@pytest.mark.parametrize("service", [0, -1, 1.5, "", math.nan, None, True, [1]])
def test_send_checks_the_id(service: object) -> None:
    """Send id check: an int above 0 (or, beyond the model, a text); else it rejects and nothing is sent."""
    with Wired() as wire:
        for call in (wire.peer.send, wire.peer.call, wire.peer.notify, wire.peer.stream):
            with pytest.raises(ValueError, match="WSP-SN3"):
                call(service)  # type: ignore[operator]
        assert wire.peer.stats.requests_sent_total == 0


def test_adding_a_service_twice() -> None:
    """AddService twice: the last wins silently; removing an unknown one is silent."""
    with Wired() as wire:
        wire.peer.add_service(1, lambda: "old")
        wire.peer.add_service(1, lambda: "new")
        assert wire.ask(1)["data"] == "new"
        wire.peer.remove_service(99)
        wire.peer.remove_service(1)
        assert wire.ask(1)["error"]["code"] == "UNKNOWN-SERVICE"


def test_ids_are_compared_strictly() -> None:
    """Ids are compared strictly: "2" is not 2."""
    with Wired({2: lambda: "number", "2": lambda: "text"}) as wire:
        assert wire.ask(2)["data"] == "number"
        assert wire.ask("2")["data"] == "text"
        assert wire.ask(2.0)["data"] == "number"  # a whole number is one in JavaScript
        wire.peer.clear_services()
        assert wire.ask("2")["type"] == "error"


def test_a_service_must_be_callable() -> None:
    with Wired() as wire:
        with pytest.raises(TypeError):
            wire.peer.add_service(1, "no function")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="WSP-SN3"):
            wire.peer.add_service(-1, print)


def test_unknown_service() -> None:
    """Unknown service: TypeError, UNKNOWN-SERVICE, and the model's text, its slip included."""
    with Wired() as wire:
        assert wire.ask(99, number=4) == {
            "responseId": 4,
            "type": "error",
            "error": {
                "name": "TypeError",
                "message": "Not a function: Servcie ID 99 [number]",
                "code": "UNKNOWN-SERVICE",
            },
        }
        assert wire.ask("x")["error"]["message"] == "Not a function: Servcie ID x [string]"
        assert wire.peer.stats.requests_received_total == 2


def test_unknown_service_at_the_caller() -> None:
    """The caller can tell it from what a service raises: it may be registered later."""
    with Wired() as wire:
        future = wire.peer.send(99)
        wire.hear()
        wire.say(
            {"responseId": 0, "type": "error", "error": {"name": "TypeError", "code": "UNKNOWN-SERVICE"}}
        )
        assert isinstance(future.exception(PATIENCE), NoSuchService)


def test_error_at_the_caller() -> None:
    """Error at the caller: remote name, message and code; no stack is transferred."""
    with Wired() as wire:
        future = wire.peer.send(1)
        wire.hear()
        wire.say({"responseId": 0, "type": "error", "error": {"name": "Bad", "message": "worse", "code": 7}})
        with pytest.raises(RemoteError, match="Bad: worse") as caught:
            future.result(PATIENCE)
        assert (caught.value.name, caught.value.message, caught.value.code) == ("Bad", "worse", 7)


def test_what_is_no_error_at_the_caller() -> None:
    """Non-Error thrown: name, message and code are undefined: name "Error", empty message."""
    with Wired() as wire:
        futures = [wire.peer.send(1) for _ in range(4)]
        wire.say({"responseId": 0, "type": "error", "error": {"name": "$__undefined$"}})
        wire.say({"responseId": 1, "type": "error", "error": "text"})
        wire.say({"responseId": 2, "type": "error", "error": {"name": 1, "message": [], "code": {}}})
        wire.say({"responseId": 3, "type": "error", "error": None})
        for future in futures:
            error = future.exception(PATIENCE)
            assert isinstance(error, RemoteError)
            assert (error.name, error.message, error.code) == ("Error", "", None)


class Worst(BaseException):
    """What only a bug raises."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def code(self) -> str:
        raise RuntimeError("no code")


@pytest.mark.parametrize(
    "error", [Worst("x"), SystemExit(3), KeyboardInterrupt(), Unprintable(), StopIteration()]
)
def test_whatever_is_raised_is_answered(error: BaseException) -> None:
    """Throw null: in the model the caller hangs. Here whatever a service raises is answered, and the next call works."""

    def service() -> None:
        raise error

    with Wired({1: service, 2: lambda: "fine"}) as wire:
        answer = wire.ask(1)
        assert answer["type"] == "error"
        assert answer["error"]["name"] == type(error).__name__
        assert wire.ask(2)["data"] == "fine"


def test_an_endless_message_is_cut() -> None:
    def service() -> None:
        raise ValueError("x" * 10**6)

    with Wired({1: service}) as wire:
        assert len(wire.ask(1)["error"]["message"]) < 20_000


def test_an_awaitable_is_no_result() -> None:
    """Thenable without catch: in the model the connection is closed. Here a coroutine is an error to its caller alone."""

    async def service() -> int:
        return 1

    def awaitable() -> object:
        coroutine = service()
        coroutine.close()
        return coroutine

    with Wired({1: awaitable, 2: lambda: "fine"}) as wire:
        assert wire.ask(1)["error"]["code"] == "WSP-ESV"
        assert wire.ask(2)["data"] == "fine"


def test_raw_bytes_as_a_result() -> None:
    """Raw bytes as result: an error with the model's text."""
    with Wired({1: lambda: b"raw"}) as wire:
        assert wire.ask(1)["error"] == {
            "name": "TypeError", "message": "Binary data must be sent from a SimpleReadStream",
        }  # fmt: skip


def test_a_result_after_the_close() -> None:
    """Service answers after close: dropped; the thread lives on, and so does what else it serves."""
    is_running, may_return = threading.Event(), threading.Event()

    def service() -> str:
        is_running.set()
        may_return.wait(PATIENCE)
        return "too late"

    with Wired({1: service}) as wire:
        wire.say({"requestId": 0, "type": "request", "serviceId": 1})
        assert is_running.wait(PATIENCE)
        wire.far.close()
        wire.far.wait_closed(PATIENCE)
        may_return.set()


@pytest.mark.parametrize("args", [{}, None, 5, True])
def test_args_that_are_no_list(args: object) -> None:
    """Args not a list: an object, null or a number is answered with a TypeError."""
    with Wired({1: lambda *args: len(args)}) as wire:
        answer = wire.ask_raw(requestId=0, serviceId=1, args=args)
        assert answer["error"]["name"] == "TypeError"
        assert wire.ask(1)["data"] == 0


def test_args_that_are_a_text() -> None:
    """A string is spread into characters."""
    with Wired({1: lambda *args: list(args)}) as wire:
        assert wire.ask_raw(requestId=0, serviceId=1, args="abc")["data"] == ["a", "b", "c"]


def test_too_many_args_are_the_callers_error() -> None:
    with Wired({1: lambda: None}) as wire:
        assert wire.ask(1, 1, 2)["error"]["name"] == "TypeError"


def test_answers_out_of_order() -> None:
    """Out-of-order answers are matched by id only."""
    with Wired() as wire:
        futures = [wire.peer.send(1, number) for number in range(20)]
        for number in (7, *range(19, 7, -1), *range(7)):
            wire.say({"responseId": number, "type": "data", "data": f"answer {number}"})
        assert [future.result(PATIENCE) for future in futures] == [f"answer {n}" for n in range(20)]


def test_services_answer_out_of_order() -> None:
    """A slow service delays no other one."""
    may_return = threading.Event()
    with Wired({1: lambda: may_return.wait(PATIENCE), 2: lambda: "quick"}) as wire:
        wire.say({"requestId": 0, "type": "request", "serviceId": 1})
        assert wire.ask(2, number=1) == {"responseId": 1, "type": "data", "data": "quick"}
        may_return.set()
        assert wire.hear() == {"responseId": 0, "type": "data", "data": True}


def test_a_second_answer() -> None:
    """Each response removes its entry; a second one to the same id is only counted."""
    with Wired() as wire:
        future = wire.peer.send(1)
        wire.say({"responseId": 0, "type": "data", "data": 1}, {"responseId": 0, "type": "data", "data": 2})
        assert future.result(PATIENCE) == 1
        stats = wire.mark()
        assert (stats.late_answers, stats.calls_in_flight) == (1, 0)


@pytest.mark.parametrize("number", [5, -1, 0.5, "0", True, None, [], {}, 1e300])
def test_an_answer_to_an_unknown_id(number: object) -> None:
    """Response to unknown id: noted, no counter of requests changes, the connection stays."""
    with Wired({1: lambda: 1}) as wire:
        future = wire.peer.send(1)
        wire.hear()
        for kind in ("data", "error", "stream", "stream-end", "stream-error"):
            wire.say({"responseId": number, "type": kind, "data": 1, "chunk": "x"})
        stats = wire.mark()
        assert stats.unknown_answers + stats.late_answers >= 3
        assert stats.requests_received_invalid == stats.requests_received_total == 0
        assert not future.done()
        wire.say({"responseId": 0, "type": "data", "data": 1})
        assert future.result(PATIENCE) == 1


def test_an_answer_after_a_cancel() -> None:
    with Wired() as wire:
        future = wire.peer.send(1)
        wire.hear()
        assert future.cancel()
        wire.say({"responseId": 0, "type": "data", "data": 1})
        assert wire.mark().late_answers == 1
        with pytest.raises(CancelledError):
            future.result(0)
        assert not wire.peer.stats.calls_in_flight


def test_notice() -> None:
    """Beyond the model: a request with "notice" is run and not answered, not even when it fails."""
    done = []

    def fail() -> None:
        done.append("failed")
        raise ValueError

    with Wired({1: done.append, 2: fail, 3: lambda: "end"}) as wire:
        wire.say({"requestId": 0, "type": "request", "serviceId": 1, "args": ["noted"], "notice": True})
        wire.say({"requestId": 1, "type": "request", "serviceId": 2, "notice": True})
        wire.say({"requestId": 2, "type": "request", "serviceId": 99, "notice": True})
        eventually(lambda: len(done) == 2, PATIENCE)
        assert wire.ask(3, number=3)["responseId"] == 3
        assert sorted(done) == ["failed", "noted"]


def test_notify() -> None:
    """A notice is a request to the model's peers, which answer it; the answer is dropped."""
    with Wired() as wire:
        wire.peer.notify(1, "x")
        assert wire.hear() == {
            "requestId": 0,
            "type": "request",
            "serviceId": 1,
            "args": ["x"],
            "notice": True,
        }
        wire.say({"responseId": 0, "type": "data", "data": None})
        stats = wire.mark()
        assert (stats.requests_sent_total, stats.calls_in_flight) == (1, 0)


def test_notify_without_a_path() -> None:
    wire = Wired()
    with pytest.raises(PeerGone) as caught:
        wire.peer.notify(1)
    assert caught.value.sent is False
    wire.peer.close()
