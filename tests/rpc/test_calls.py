"""Calls and whoever waits for them: every way to wait hears of every way to end, once."""

from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from concurrent.futures.thread import ThreadPoolExecutor

import pytest

from connman.errors import CallTimeout, PeerGone
from tests.rpc.rig import PATIENCE, Wired
from tests.waiting import eventually


def test_who_waits_for_several_futures_hears_of_a_cancelled_one() -> None:
    # What base classes do at a cancel leaves such waiters waiting: it is the one that runs a Future who has to tell them.
    with Wired() as wire, ThreadPoolExecutor(1) as waiter:
        kept, dropped = wire.peer.send(1), wire.peer.send(2)
        waiting = waiter.submit(wait, [kept, dropped], PATIENCE, FIRST_COMPLETED)
        assert dropped.cancel()
        assert waiting.result(PATIENCE).done == {dropped}
        assert dropped.cancel()  # again
        assert list(as_completed([dropped], timeout=PATIENCE)) == [dropped]
        wire.say({"responseId": 0, "type": "data", "data": "kept"})
        assert wait([kept, dropped], PATIENCE).done == {kept, dropped}
        assert kept.result(0) == "kept"
        assert not kept.cancel()


@pytest.mark.parametrize("answer", [{"type": "data", "data": 1}, {"type": "error", "error": {"name": "E"}}])
def test_an_answer_and_a_cancel_at_the_same_moment_are_told_once(answer: dict[str, object]) -> None:
    futures: list[object] = []
    told: list[object] = []
    with Wired() as wire, ThreadPoolExecutor(1) as canceller:
        for number in range(50):
            future = wire.peer.send(1)
            futures.append(future)
            future.add_done_callback(told.append)
            cancelling = canceller.submit(future.cancel)
            wire.say({"responseId": number, **answer})
            assert wait([future], PATIENCE).done == {future}
            assert cancelling.result(PATIENCE) is future.cancelled()
            # Who waits is told first, callbacks behind that, on the thread that settled it.
            eventually(lambda: len(told) == len(futures), PATIENCE)
    assert told == futures


def test_a_loss_and_a_cancel_at_the_same_moment_are_told_once() -> None:
    with Wired() as wire, ThreadPoolExecutor(1) as canceller:
        futures = [wire.peer.send(1) for _ in range(50)]
        cancelling = [canceller.submit(future.cancel) for future in futures]
        wire.far.close()
        assert not wait(futures, PATIENCE).not_done
        for future, asked in zip(futures, cancelling, strict=True):
            assert asked.result(PATIENCE) is future.cancelled()
            assert future.cancelled() or isinstance(future.exception(0), PeerGone)


def test_callbacks_that_block_hold_up_no_deadline() -> None:
    """Each calls again when its call has timed out, of a peer that does not answer, and so do others meanwhile."""
    with Wired() as wire, ThreadPoolExecutor(1) as caller:
        ends: list[BaseException] = []

        def call_again(_: object) -> None:
            try:
                wire.peer.call(2, timeout=0.05)
            except CallTimeout as error:
                ends.append(error)

        for number in range(4):
            wire.peer.send(1, timeout=0.02 * (number + 1)).add_done_callback(call_again)
        waiting = caller.submit(wire.peer.call, 3, timeout=0.1)
        assert isinstance(waiting.exception(PATIENCE), CallTimeout)
        eventually(lambda: len(ends) == 4, PATIENCE)
