"""Many put messages in, one sends them all."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from connman.clock import Deadline, SystemClock
from connman.errors import ConnectionLost, ConnmanError, NotConnected
from connman.records import Data
from connman.rpc.counters import Counters
from connman.rpc.outbox import FULL, Outbox
from connman.rpc.wire import size_of
from connman.transport.base import Transport
from tests.loopback import in_thread
from tests.waiting import eventually

PATIENCE = 10.0


class Network:
    """Takes batches, or the beginning of one, or fails."""

    def __init__(self) -> None:
        self.batches: list[list[Data]] = []
        self.aborted: list[ConnmanError] = []
        self.error: ConnmanError | None = None
        self.is_slow = False
        self.on_send: list[Callable[[], object]] = []
        self.may_go_on = threading.Event()

    def send_now(self, messages: Sequence[Data]) -> Callable[[float], None] | None:
        if self.error is not None:
            raise self.error
        self.batches.append(list(messages))
        if self.on_send:
            self.on_send.pop(0)()
        return self._wait if self.is_slow else None

    def _wait(self, timeout: float) -> None:
        assert self.may_go_on.wait(PATIENCE)
        if self.error is not None:
            raise self.error

    def abort(self, error: ConnmanError) -> None:
        self.aborted.append(error)


def make(network: Network, most: int = 4 * FULL, run_apart: Any = None) -> tuple[Outbox, threading.RLock]:
    lock = threading.RLock()

    def apart(job: Callable[[], None]) -> bool:
        threading.Thread(target=job, daemon=True).start()
        return True

    box = Outbox(
        cast(Transport, network), lock, Counters(), run_apart or apart, send_timeout=PATIENCE, most=most
    )
    return box, lock


def put(box: Outbox, lock: threading.RLock, *messages: Data, owed: bool = False) -> None:
    with lock:
        for message in messages:
            (box.owe_locked if owed else box.put_locked)(message)


def test_what_waits_goes_out_together() -> None:
    network = Network()
    box, lock = make(network)
    put(box, lock, "a", "b", b"c")
    box.flush()
    box.flush()
    assert network.batches == [["a", "b", b"c"]]


def test_what_comes_while_somebody_sends_goes_out_next_and_nobody_waits() -> None:
    network = Network()
    network.is_slow = True
    box, lock = make(network)
    put(box, lock, "first")
    box.flush()
    for number in range(3):
        put(box, lock, str(number))
        box.flush()
    assert network.batches == [["first"]]
    network.is_slow = False
    network.may_go_on.set()
    eventually(lambda: network.batches == [["first"], ["0", "1", "2"]], PATIENCE)


def test_who_sends_looks_again_before_leaving() -> None:
    """What comes too late for a batch, by one who finds the sender at work, is not left behind."""
    network = Network()
    box, lock = make(network)

    def come_late() -> None:
        put(box, lock, "late")
        box.flush()

    network.on_send.append(lambda: in_thread(come_late).result(PATIENCE))
    put(box, lock, "first")
    box.flush()
    assert network.batches == [["first"], ["late"]]


def test_what_cannot_be_sent_ends_the_transport() -> None:
    network = Network()
    network.error = NotConnected("gone")
    box, lock = make(network)
    put(box, lock, '{"requestId":3,"type":"request","serviceId":1}', '{"responseId":5,"type":"data"}')
    box.flush()
    assert [str(error) for error in network.aborted] == ["gone"]
    assert box.unsent_ids() == {3}


def test_what_went_out_whole_is_not_unsent() -> None:
    network = Network()
    network.error = ConnectionLost("half", sent=1)
    box, lock = make(network)
    put(box, lock, *[f'{{"requestId":{number},"type":"request"}}' for number in range(3)])
    box.flush()
    put(box, lock, '{"requestId":3,"type":"request"}', '{"requestId":0,"type":"stream-credit","bytes":1}')
    assert box.unsent_ids() == {1, 2, 3}


def test_a_thread_that_waits_tells_of_the_end_as_well() -> None:
    network = Network()
    network.is_slow = True
    box, lock = make(network)
    put(box, lock, '{"requestId":0,"type":"request"}', '{"requestId":1,"type":"request"}')
    box.flush()
    assert box.unsent_ids() == set()  # nobody knows yet
    network.error = ConnectionLost("half", sent=1)
    network.may_go_on.set()
    eventually(lambda: network.aborted, PATIENCE)
    assert box.unsent_ids() == {1}


def test_without_a_thread_to_wait_the_transport_ends() -> None:
    network = Network()
    network.is_slow = True
    box, lock = make(network, run_apart=lambda job: False)
    put(box, lock, "x")
    box.flush()
    assert network.aborted


def test_room() -> None:
    network = Network()
    network.is_slow = True
    box, lock = make(network)
    put(box, lock, "first")
    box.flush()
    put(box, lock, "x" * FULL)
    assert box.is_full
    clock = SystemClock()
    assert not box.wait_room(Deadline.after(clock, 0.01), lambda: False)
    assert not box.wait_room(Deadline(clock, None), lambda: True)
    waiting = in_thread(lambda: box.wait_room(Deadline.after(clock, PATIENCE), lambda: False))
    network.may_go_on.set()
    assert waiting.result(PATIENCE)


def test_who_waits_for_room_looks_again() -> None:
    box, lock = make(Network())
    put(box, lock, "x" * FULL)
    is_over = threading.Event()
    waiting = in_thread(lambda: box.wait_room(Deadline(SystemClock(), None), is_over.is_set))
    is_over.set()
    box.wake()
    assert waiting.result(PATIENCE) is False


def test_answers_that_nobody_reads_are_bounded() -> None:
    network = Network()
    box, lock = make(network, most=1)
    put(box, lock, "x" * (3 * FULL))
    assert not network.aborted  # what we ourselves want to say waits, and those who say it
    put(box, lock, "x" * FULL, "x" * FULL, owed=True)
    assert "does not read" in str(network.aborted[0])


@pytest.mark.parametrize(("message", "size"), [("", 0), ("abc", 3), ("ü€", 5), (b"ab", 2), (bytearray(3), 3)])
def test_sizes(message: Data, size: int) -> None:
    assert size_of(message) == size


def test_all_messages_of_many_threads_go_out_once_and_in_their_order() -> None:
    network = Network()
    box, lock = make(network)
    begin = threading.Barrier(8)

    def say(who: int) -> None:
        begin.wait(PATIENCE)
        for number in range(200):
            put(box, lock, f"{who}/{number}")
            box.flush()

    for future in [in_thread(say, who) for who in range(8)]:
        future.result(PATIENCE)
    sent = [message for batch in network.batches for message in batch]
    assert len(sent) == 1600
    for who in range(8):
        mine = [message for message in sent if str(message).startswith(f"{who}/")]
        assert mine == [f"{who}/{number}" for number in range(200)]
