"""However many callers ask, one socket is dialled, and no caller can spoil it for the others.

Seen failing on planted bugs: the first three with every caller starting a reader of its own (that takes two bugs, as a second
reader is turned away as well), the third with a Future that can be cancelled, the fourth with one that is kept when it has
failed. The last one failed in one of two runs of the first.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

import connman
from tests.hostile.fleet import SLACK
from tests.loopback import read_to_the_end, shut, silent
from tests.promises.peers import PATIENCE, Peers, connection, serve_ws, within

pytestmark = pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader"])

CALLERS = 500

Answer = tuple["Future[connman.Connection]", connman.Connection | BaseException]


def all_at_once(count: int, ask: Callable[[int], Answer]) -> list[Answer]:
    """Call `ask(number)` on `count` threads that start together; return what each got."""
    barrier = threading.Barrier(count)
    answers: list[Answer] = []

    def run(number: int) -> None:
        barrier.wait(PATIENCE)
        answers.append(ask(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert len(answers) == count, "not every caller got an answer"
    return answers


def outcome(
    future: "Future[connman.Connection]", timeout: float = PATIENCE
) -> connman.Connection | BaseException:
    try:
        return future.result(timeout)
    except (TimeoutError, connman.ConnmanError) as error:
        return error


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_500_callers_at_once_share_one_socket(scheme: str, is_shared: bool) -> None:
    with Peers(serve_ws if scheme == "ws" else read_to_the_end) as server:
        conn = connection(is_shared, server.url(scheme), proxy=None)

        def ask(number: int) -> Answer:
            future = conn.get_connected()
            return future, outcome(future)

        answers = all_at_once(CALLERS, ask)
        assert server.dials() == 1
        assert {id(future) for future, _ in answers} == {id(conn.get_connected())}
        assert all(result is conn for _, result in answers)
        assert conn.stats.opens == 1
        conn.disconnect()


def test_500_callers_of_a_server_that_hangs_fail_together_at_the_deadline(is_shared: bool) -> None:
    """Planted: with a longer deadline they wait for that."""
    with Peers(silent) as server:
        # All ask before the attempt's time begins, or the last might begin another attempt.
        have_all_asked = threading.Event()
        asked = threading.Barrier(CALLERS, action=have_all_asked.set)

        def headers() -> dict[str, str]:
            have_all_asked.wait(PATIENCE)
            return {}

        conn = connection(
            is_shared, server.url(), proxy=None, reconnect=False, open_timeout=1.0, headers=headers
        )
        waits: list[float] = []

        def ask(number: int) -> Answer:
            future = conn.get_connected()
            asked.wait(PATIENCE)
            began = time.monotonic()
            told = outcome(future)
            waits.append(time.monotonic() - began)
            return future, told

        answers = all_at_once(CALLERS, ask)
        assert max(waits) <= 1.0 + SLACK
        assert {id(future) for future, _ in answers} == {id(answers[0][0])}
        assert all(isinstance(result, connman.errors.ConnectTimeout) for _, result in answers)
        assert server.dials() == 1
        conn.disconnect()


def test_callers_that_cancel_or_time_out_touch_nobody_else(is_shared: bool) -> None:
    may_answer = threading.Event()
    refusals: list[bool] = []

    def serve(sock) -> None:
        may_answer.wait(PATIENCE)
        serve_ws(sock)

    with Peers(serve) as server:
        conn = connection(is_shared, server.url(), proxy=None)
        impatient = threading.Barrier(50, action=may_answer.set)

        def ask(number: int) -> Answer:
            future = conn.get_connected()
            if number >= 50:
                return future, outcome(future)
            refusals.append(future.cancel())
            told = outcome(future, 0.01)
            impatient.wait(PATIENCE)  # only when all of these are through does the server answer
            return future, told

        answers = all_at_once(CALLERS, ask)
        results = [result for _, result in answers]
        assert sum(result is conn for result in results) == CALLERS - 50
        assert sum(isinstance(result, TimeoutError) for result in results) == 50
        assert refusals == [False] * 50
        assert len({id(future) for future, _ in answers}) == 1
        assert server.dials() == 1
        conn.disconnect()


def test_a_failure_without_reconnect_is_not_remembered(is_shared: bool) -> None:
    failing = iter([True])

    def serve(sock) -> None:
        if next(failing, False):
            sock.recv(65536)
            shut(sock)
        else:
            serve_ws(sock)

    with Peers(serve) as server:
        conn = connection(is_shared, server.url(), proxy=None, reconnect=False)
        first = conn.get_connected()
        with pytest.raises(connman.errors.ConnectError):
            first.result(PATIENCE)
        second = conn.get_connected()
        assert second is not first
        assert second.result(PATIENCE) is conn
        assert server.dials() == 2
        with pytest.raises(connman.errors.ConnectError):
            first.result(0)
        conn.disconnect()


def test_callers_of_a_failing_connection_never_get_more_than_one_attempt_at_a_time(is_shared: bool) -> None:
    """With `reconnect=False` each failure is followed by other callers' fresh dials: never two at once."""
    lock = threading.Lock()
    under_way = most = 0

    def serve(sock) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        sock.recv(65536)
        with lock:
            under_way -= 1
        shut(sock)

    with Peers(serve) as server:
        conn = connection(is_shared, server.url(), proxy=None, reconnect=False)

        def ask(number: int) -> Answer:
            future = conn.get_connected()
            told = outcome(future)
            for _ in range(4):
                future = conn.get_connected()
                told = outcome(future)
            return future, told

        answers = all_at_once(40, ask)
        assert all(isinstance(result, connman.errors.ConnectError) for _, result in answers)
        assert most == 1
        assert server.dials() == conn.stats.failed_attempts
        within(PATIENCE, conn.disconnect)
