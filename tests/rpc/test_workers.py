"""Threads that come and go with the work."""

import threading

from connman.rpc.workers import Workers
from tests.waiting import eventually

PATIENCE = 10.0


def names(of: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == f"connman-worker-{of}"]


def done(workers: Workers, name: str) -> None:
    workers.rest()
    eventually(lambda: not names(name), PATIENCE)


def test_jobs_run_in_order_on_one_thread() -> None:
    workers, seen = Workers("one", 1, 1000), list[int]()
    for number in range(500):
        assert workers.submit(lambda number=number: seen.append(number))
    eventually(lambda: len(seen) == 500, PATIENCE)
    assert seen == list(range(500))
    assert len(names("one")) == 1
    done(workers, "one")


def test_no_thread_before_the_first_job() -> None:
    workers = Workers("idle", 4, 4)
    assert not names("idle")
    workers.rest()


def test_a_slow_job_delays_no_other() -> None:
    workers, may_end = Workers("slow", 8, 0), threading.Event()
    for _ in range(7):
        assert workers.submit(lambda: may_end.wait(PATIENCE))
    ran = threading.Event()
    assert workers.submit(ran.set)
    assert ran.wait(PATIENCE)
    may_end.set()
    done(workers, "slow")


def test_slow_jobs_that_come_in_a_row_delay_no_other() -> None:
    """However few threads were called while they came: who takes a slow one has another thread come for the rest."""
    workers, may_end, ran = Workers("row", 40, 0), threading.Event(), threading.Event()
    everybody = threading.Barrier(41)
    for _ in range(40):  # threads that are there are quicker called than they come
        assert workers.submit(lambda: everybody.wait(PATIENCE))
    everybody.wait(PATIENCE)
    eventually(lambda: workers.idle == 40, PATIENCE)
    for _ in range(39):
        assert workers.submit(lambda: may_end.wait(PATIENCE))
    assert workers.submit(ran.set)
    assert ran.wait(PATIENCE)
    may_end.set()
    done(workers, "row")


def test_what_has_neither_thread_nor_room_is_refused() -> None:
    workers, may_end, ran = Workers("full", 2, 3), threading.Event(), list[int]()
    for _ in range(2):
        assert workers.submit(lambda: may_end.wait(PATIENCE))
    for number in range(3):
        assert workers.submit(lambda number=number: ran.append(number))
    assert not workers.submit(lambda: None)
    may_end.set()
    eventually(lambda: ran == [0, 1, 2] or len(ran) == 3, PATIENCE)
    assert workers.submit(lambda: None)
    assert len(names("full")) <= 2
    done(workers, "full")


def test_a_job_that_raises_ends_nothing() -> None:
    workers, ran = Workers("raising", 1, 10), threading.Event()
    for error in (ValueError("x"), SystemExit(2), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        assert workers.submit(fail)
    assert workers.submit(ran.set)
    assert ran.wait(PATIENCE)
    done(workers, "raising")


def test_threads_that_rest_end_and_come_back() -> None:
    workers = Workers("resting", 4, 4)
    for _ in range(3):
        ran = threading.Event()
        assert workers.submit(ran.set)
        assert ran.wait(PATIENCE)
        done(workers, "resting")
    workers.resume()
    ran = threading.Event()
    assert workers.submit(ran.set)
    assert ran.wait(PATIENCE)
    assert len(names("resting")) == 1
    done(workers, "resting")


def test_what_is_left_to_the_end_runs_once_behind_the_jobs() -> None:
    workers, seen = Workers("ends", 1, 1000), list[object]()
    begun = threading.Event()

    def end() -> None:
        seen.append("end")

    def job() -> None:
        begun.wait(PATIENCE)
        seen.append("job")
        workers.run_last(end)

    for _ in range(50):
        assert workers.submit(job)
    begun.set()
    eventually(lambda: "end" in seen, PATIENCE)
    assert seen == ["job"] * 50 + ["end"]
    done(workers, "ends")


def test_what_is_left_to_the_end_does_not_wait_for_a_slow_job() -> None:
    workers, ended, may_end = Workers("ends-slow", 2, 10), threading.Event(), threading.Event()
    assert workers.submit(lambda: workers.run_last(ended.set))
    assert workers.submit(lambda: may_end.wait(PATIENCE))
    assert ended.wait(PATIENCE)
    may_end.set()
    done(workers, "ends-slow")


def test_many_bring_jobs_at_once() -> None:
    """Nothing is lost and nothing runs twice, however submitting and falling idle meet."""
    workers, lock, seen = Workers("many", 4, 100_000), threading.Lock(), set[tuple[int, int]]()
    begin = threading.Barrier(4)

    def bring(who: int) -> None:
        begin.wait(PATIENCE)
        for number in range(500):

            def job(key: tuple[int, int] = (who, number)) -> None:
                with lock:
                    assert key not in seen
                    seen.add(key)

            assert workers.submit(job)
            if number % 50 == 0:
                threading.Event().wait(0.001)

    threads = [threading.Thread(target=bring, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    eventually(lambda: len(seen) == 2000, PATIENCE)
    assert len(names("many")) <= 4
    done(workers, "many")


def test_resting_meets_jobs(seed: int) -> None:
    """Every job runs, though the threads are let go all the time."""
    workers, seen = Workers("restless", 3, 100_000), list[int]()
    is_over = threading.Event()

    def rest() -> None:
        while not is_over.wait(0.0005):
            workers.rest()
            workers.resume()

    thread = threading.Thread(target=rest)
    thread.start()
    for number in range(2000):
        assert workers.submit(lambda number=number: seen.append(number))
        if number % 100 == 0:
            threading.Event().wait(0.001)
    eventually(lambda: len(seen) == 2000, PATIENCE)
    is_over.set()
    thread.join(PATIENCE)
    done(workers, "restless")
