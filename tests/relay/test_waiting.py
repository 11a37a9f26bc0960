"""Callers that wait for the next spare of a name."""

import asyncio
from collections.abc import Awaitable, Callable

from connman.relay.waiting import Waiting

PATIENCE = 10.0


def run(work: Callable[[Waiting], Awaitable[None]], most: int = 8) -> None:
    waiting = Waiting(most)
    asyncio.run(asyncio.wait_for(work(waiting), PATIENCE))  # type: ignore[arg-type]  # a coroutine
    assert len(waiting) == 0


async def begun(*waits: Awaitable[bool]) -> list[asyncio.Future[bool]]:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.sleep(0)
    return tasks


def test_who_waits_longest_is_told_first() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("a", PATIENCE))
        waiting.tell("a")
        assert await one
        assert not two.done()
        waiting.tell("a")
        assert await two

    run(work)


def test_names_do_not_mix() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("b", PATIENCE))
        waiting.tell("nobody's")
        waiting.tell("b")
        assert await two
        assert not one.done()
        waiting.tell("a")
        assert await one

    run(work)


def test_nobody_waits_for_ever() -> None:
    async def work(waiting: Waiting) -> None:
        assert not await waiting.wait("a", 0.01)

    run(work)


def test_who_leaves_in_the_moment_of_the_word_does_not_keep_it() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("a", PATIENCE))
        one.cancel()
        waiting.tell("a")
        assert await two
        assert one.cancelled()

    run(work)


def test_only_so_many_wait() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("a", PATIENCE))
        assert not await waiting.wait("a", PATIENCE)
        assert len(waiting) == 2
        for task in (one, two):
            waiting.tell("a")
            assert await task

    run(work, most=2)


def test_one_that_leaves_is_not_told() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("a", PATIENCE))
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        waiting.tell("a")
        assert await two

    run(work)


def test_one_that_leaves_when_it_was_told_passes_it_on() -> None:
    async def work(waiting: Waiting) -> None:
        one, two = await begun(waiting.wait("a", PATIENCE), waiting.wait("a", PATIENCE))
        waiting.tell("a")
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        assert await two

    run(work)
