"""A dial: its deadline, its log, and the ways it can be aborted."""

import random
import socket
import threading

import pytest

from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectionClosed, ConnectTimeout, ConnmanError, Fatal
from connman.options import Options
from connman.testing import FakeClock
from connman.transport.base import Dial
from tests.loopback import in_thread

PATIENCE = 10.0
ENDPOINT = Endpoint.parse("ws://u:S3CR3T@h/p?S3CR3T")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def dial(clock: FakeClock) -> Dial:
    return Dial(ENDPOINT, Options(open_timeout=5), clock)


def test_a_dial_is_named_after_its_endpoint_without_secrets(dial: Dial) -> None:
    assert dial.name == "ws://h/p?…"
    assert Dial(ENDPOINT, Options(), dial.clock, name="mine").name == "mine"


def test_the_deadline_begins_anew_with_the_attempt(dial: Dial, clock: FakeClock) -> None:
    clock.advance(4)
    dial.begin([("A", "1")])
    assert list(dial.headers) == [("A", "1")]
    clock.advance(4)
    dial.check()
    clock.advance(1)
    with pytest.raises(ConnectTimeout, match=r"no connection within 5 s"):
        dial.check()


def test_an_abort_wakes_what_is_registered_and_is_raised(dial: Dial) -> None:
    woken: list[str] = []
    with dial.abortable(lambda: woken.append("gone")):
        pass
    dial.add_abortable(lambda: woken.append("one"))
    dial.add_abortable(lambda: woken.append("two"))
    error = ConnectionClosed(1000)
    dial.abort(error)
    assert woken == ["one", "two"]
    for check in (dial.check, dial.check_aborted, lambda: dial.add_abortable(lambda: woken.append("late"))):
        with pytest.raises(ConnectionClosed) as caught:
            check()
        assert caught.value is error
    assert woken == ["one", "two"]


def test_each_abort_wakes_again_and_the_first_error_counts(dial: Dial) -> None:
    """One that a Ctrl-C cut short had set its error, and the next did nothing: whatever was not woken hung on."""
    woken: list[str] = []

    def interrupted() -> None:
        woken.append("interrupted")
        if len(woken) == 1:
            raise KeyboardInterrupt

    dial.add_abortable(interrupted)
    dial.add_abortable(lambda: woken.append("other"))
    error = ConnectionClosed(1000)
    with pytest.raises(KeyboardInterrupt):
        dial.abort(error)
    dial.abort(Fatal("second"))
    assert woken == ["interrupted", "interrupted", "other"]
    with pytest.raises(ConnectionClosed) as caught:
        dial.check()
    assert caught.value is error


def test_the_block_of_an_aborted_dial_is_not_entered(dial: Dial) -> None:
    dial.abort(ConnectionClosed())
    entered = False
    with pytest.raises(ConnectionClosed), dial.abortable(lambda: None):
        entered = True
    assert not entered


def test_what_raises_is_unregistered(dial: Dial) -> None:
    woken: list[str] = []
    with pytest.raises(ZeroDivisionError), dial.abortable(lambda: woken.append("x")):
        raise ZeroDivisionError
    dial.abort(ConnectionClosed())
    assert woken == []
    dial.remove_abortable(dial.check)  # never registered


def test_an_abort_counts_more_than_the_deadline(dial: Dial, clock: FakeClock) -> None:
    clock.advance(6)
    dial.abort(ConnectionClosed())
    with pytest.raises(ConnectionClosed):
        dial.check()


def test_a_wait_of_a_dial_ends_when_its_condition_is_true(dial: Dial) -> None:
    condition, is_true = threading.Condition(), threading.Event()
    waiting = in_thread(dial.wait_for, condition, is_true.is_set)
    dial.clock.wait_until_waiting()  # type: ignore[attr-defined]
    with condition:
        is_true.set()
        condition.notify_all()
    assert waiting.result(PATIENCE) is None
    dial.abort(ConnectionClosed())  # is no longer for what has ended


def test_a_wait_of_a_dial_ends_with_its_time(dial: Dial, clock: FakeClock) -> None:
    waiting = in_thread(dial.wait_for, threading.Condition(), lambda: False, 4)
    clock.wait_until_waiting()
    clock.advance(4)
    assert waiting.result(PATIENCE) is None
    waiting = in_thread(dial.wait_for, threading.Condition(), lambda: False, 4)
    clock.wait_until_waiting()
    clock.advance(1)
    with pytest.raises(ConnectTimeout):
        waiting.result(PATIENCE)


def test_a_wait_of_a_dial_ends_with_its_abort(dial: Dial, clock: FakeClock) -> None:
    waiting = in_thread(dial.wait_for, threading.Condition(), lambda: False)
    clock.wait_until_waiting()
    error = ConnectionClosed()
    dial.abort(error)
    for outcome in (waiting, in_thread(dial.wait_for, threading.Condition(), lambda: False)):
        assert outcome.exception(PATIENCE) is error


def test_a_step_is_logged(dial: Dial, clock: FakeClock) -> None:
    with dial.step("dns", "h"):
        clock.advance(0.5)
    assert [str(step) for step in dial.log] == ["dns h (0.500 s): ok"]


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), ConnectError, "tcp: Connection refused"),
        (TimeoutError(110, "Connection timed out"), ConnectTimeout, "tcp: Connection timed out"),
        (socket.gaierror(-2, "Name or service not known"), ConnectError, "tcp: Name or service not known"),
        (OSError("odd"), ConnectError, "tcp: odd"),
        (OSError(), ConnectError, "tcp: OSError"),
    ],
)
def test_an_os_error_is_translated_and_never_leaves(
    dial: Dial, raised: OSError, kind: type[ConnmanError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught, dial.step("tcp", "h:1"):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.__cause__ is raised
    assert isinstance(caught.value, ConnectError)
    assert [step.phase for step in caught.value.attempts] == ["tcp"]
    assert "S3CR3T" not in str(caught.value)


def test_an_os_error_behind_the_deadline_is_the_deadline(dial: Dial, clock: FakeClock) -> None:
    with pytest.raises(ConnectTimeout, match="no connection within 5 s"), dial.step("tcp"):
        clock.advance(5)
        raise ConnectionResetError


def test_whatever_breaks_because_of_an_abort_is_the_abort(dial: Dial) -> None:
    for raised in (ConnectionResetError(), ConnectError("e"), ConnectTimeout("e")):
        with pytest.raises(ConnectionClosed) as caught, dial.step("tcp"):
            dial.abort(ConnectionClosed(1000, "mine"))
            raise raised
        assert caught.value.reason == "mine"


def test_errors_of_connman_pass_and_get_the_log(dial: Dial) -> None:
    error = ConnectError("e", (), "no")
    with pytest.raises(ConnectError) as caught, dial.step("dns", "h"), dial.step("inner"):
        raise error
    assert caught.value is error
    assert [step.phase for step in error.attempts] == ["inner", "dns"]
    fatal = Fatal("no")
    with pytest.raises(Fatal) as other, dial.step("handshake"):
        raise fatal
    assert other.value is fatal


def test_what_is_no_error_of_the_network_passes_unlogged(dial: Dial) -> None:
    with pytest.raises(ZeroDivisionError), dial.step("dns"):
        raise ZeroDivisionError
    assert dial.log == []


def test_stress_an_abort_reaches_whoever_is_registered(clock: FakeClock, seed: int) -> None:
    """Whatever the order, an abort either wakes what was registered or is raised at registering: never neither."""
    rng = random.Random(seed)
    for _ in range(300):
        dial = Dial(ENDPOINT, Options(), clock)
        barrier = threading.Barrier(2)
        woken = threading.Event()
        aborter = threading.Thread(
            target=lambda d=dial, b=barrier: (b.wait(PATIENCE), d.abort(ConnectionClosed()))
        )
        aborter.start()
        barrier.wait(PATIENCE)
        for _ in range(rng.randrange(40)):
            pass
        try:
            with dial.abortable(woken.set):
                assert woken.wait(PATIENCE)
        except ConnectionClosed:
            assert not woken.is_set()
        aborter.join(PATIENCE)
