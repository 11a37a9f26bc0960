"""Asking the broker for names."""

import asyncio
from collections.abc import Sequence

import pytest

from connman.relay import BrokerLost
from connman.relay.cluster.lookups import Lookups, Owners


class Store:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None

    async def owners(self, names: Sequence[str]) -> list[Owners]:
        self.asked.append(list(names))
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return [{name.encode(): b"1"} for name in names]


def test_callers_at_once_share_one_round_trip_and_those_of_one_name_one_question() -> None:
    async def scenario() -> None:
        store = Store()
        store.may_answer.set()
        lookups = Lookups(store.owners)
        running = asyncio.create_task(lookups.run())
        found = await asyncio.gather(*(lookups.owners(name) for name in ("a", "b", "a")))
        assert found == [{b"a": b"1"}, {b"b": b"1"}, {b"a": b"1"}]
        assert store.asked == [["a", "b"]]
        running.cancel()

    asyncio.run(scenario())


def test_a_caller_that_leaves_is_not_the_others_loss() -> None:
    async def scenario() -> None:
        store = Store()
        lookups = Lookups(store.owners)
        running = asyncio.create_task(lookups.run())
        leaving, staying = (asyncio.create_task(lookups.owners("a")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        store.may_answer.set()
        assert await staying == {b"a": b"1"}
        running.cancel()

    asyncio.run(scenario())


def test_a_broker_that_is_lost_fails_all_at_once() -> None:
    async def scenario() -> None:
        store = Store()
        lookups = Lookups(store.owners)
        running = asyncio.create_task(lookups.run())
        under_way = asyncio.create_task(lookups.owners("a"))
        while not store.asked:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(lookups.owners("b"))
        await asyncio.sleep(0)
        running.cancel()
        lookups.fail()
        for task in (under_way, waiting):
            with pytest.raises(BrokerLost):
                await task

    asyncio.run(scenario())


def test_it_fails_as_its_question_does() -> None:
    async def scenario() -> None:
        store = Store()
        store.error = OSError("gone")
        store.may_answer.set()
        lookups = Lookups(store.owners)
        asked = asyncio.create_task(lookups.owners("a"))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="gone"):
            await lookups.run()
        lookups.fail()
        with pytest.raises(BrokerLost):
            await asked

    asyncio.run(scenario())
