"""Claims: asked and served, and what becomes of a spare whose caller has gone."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from connman.relay.cluster.claims import MOST_SERVED, ClaimDesk, Refusal
from connman.relay.cluster.link import Link
from connman.relay.cluster.links import Links
from connman.relay.cluster.pair import RemoteSide
from tests.relay.cluster.rig import FakeSide


class Host:
    """A relay with spares, whose providers take their time when they are told to."""

    def __init__(self) -> None:
        self.spares: list[FakeSide] = []
        self.joined: list[FakeSide] = []
        self.told: list[FakeSide] = []  # those that were handed over
        self.may_be_ready = asyncio.Event()
        self.may_be_ready.set()

    async def take_spare(self, name: str) -> FakeSide | None:
        if not self.spares:
            return None
        spare = self.spares.pop()
        self.told.append(spare)
        try:
            await self.may_be_ready.wait()
        except asyncio.CancelledError:
            spare.close(4102, "the other side was lost")
            raise
        return spare

    def join(self, side: Any, remote: Any) -> None:
        side.other = remote
        remote.attach(side)
        self.joined.append(side)


class Relay:
    def __init__(self, number: int) -> None:
        self.id = number.to_bytes(8, "big")
        self.host = Host()
        self.desk = ClaimDesk(self.host)
        self.links = Links(self.id, self.desk, lambda: None)
        self.is_deaf = False


class Two:
    """Two relays whose batches cross in each round of the loop."""

    def __init__(self) -> None:
        self.a, self.b = Relay(1), Relay(2)

    @property
    def link(self) -> Link:
        return self.a.links.to(self.b.id)

    async def carry(self) -> None:
        while True:
            self.round()
            await asyncio.sleep(0)

    def round(self) -> None:
        for source, target in ((self.a, self.b), (self.b, self.a)):
            if not target.is_deaf:
                for _, batch in source.links.take():
                    target.links.receive(batch)


def staged(scenario: Callable[[Two], Coroutine[Any, Any, None]]) -> None:
    async def stage() -> None:
        two = Two()
        carrying = asyncio.create_task(two.carry())
        try:
            async with asyncio.timeout(10):
                await scenario(two)
        finally:
            carrying.cancel()
            await two.a.desk.stop()
            await two.b.desk.stop()

    asyncio.run(stage())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def handed_over(two: Two) -> tuple[FakeSide, asyncio.Task[RemoteSide | Refusal]]:
    """Have one relay claim the other's only spare, which was told of it and is not ready yet."""
    spare = FakeSide()
    two.b.host.spares = [spare]
    two.b.host.may_be_ready.clear()
    claim = asyncio.create_task(two.a.desk.claim(two.link, "device"))
    await until(lambda: two.b.host.told)
    return spare, claim


def test_a_claim_gets_the_newest_spare_ready_to_be_talked_to() -> None:
    async def scenario(two: Two) -> None:
        old, new = FakeSide(), FakeSide()
        two.b.host.spares = [old, new]
        side = await two.a.desk.claim(two.link, "device")
        assert isinstance(side, RemoteSide)
        side.forward([b"hello", b""])
        await until(lambda: new.data)
        assert new.data == b"hello"
        assert not old.pieces

    staged(scenario)


def test_a_claim_for_what_is_not_there_is_refused() -> None:
    async def scenario(two: Two) -> None:
        assert await two.a.desk.claim(two.link, "device") == Refusal(4104, "no provider of that name")

    staged(scenario)


def test_each_spare_is_given_out_once_under_many_claims_at_once() -> None:
    async def scenario(two: Two) -> None:
        two.b.host.spares = [FakeSide() for _ in range(120)]
        claims = [two.a.desk.claim(two.link, "device") for _ in range(200)]
        answers = await asyncio.gather(*claims)
        assert sum(isinstance(answer, RemoteSide) for answer in answers) == 120
        assert len(set(map(id, two.b.host.joined))) == 120

    staged(scenario)


def test_a_caller_that_leaves_before_the_claim_arrives_costs_no_spare() -> None:
    async def scenario(two: Two) -> None:
        two.b.host.spares = [FakeSide()]
        two.b.is_deaf = True
        claim = asyncio.create_task(two.a.desk.claim(two.link, "device"))
        await asyncio.sleep(0)
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim
        two.b.is_deaf = False
        answer = await two.a.desk.claim(two.link, "device")
        assert isinstance(answer, RemoteSide)

    staged(scenario)


def test_a_caller_that_leaves_while_the_provider_gets_ready_ends_that_spare() -> None:
    async def scenario(two: Two) -> None:
        spare, claim = await handed_over(two)
        claim.cancel()
        await until(lambda: spare.closes)
        assert spare.closes == [(4102, "the other side was lost")]

    staged(scenario)


def test_a_caller_that_leaves_in_the_moment_of_the_answer_ends_the_pair() -> None:
    async def scenario(two: Two) -> None:
        spare = FakeSide()
        two.b.host.spares = [spare]
        claim = asyncio.create_task(two.a.desk.claim(two.link, "device"))
        await until(lambda: two.b.host.joined)
        claim.cancel()  # the grant is on its way, or here and not yet seen
        two.round()
        await until(lambda: spare.closes)
        assert spare.closes == [(4102, "the other side was lost")]
        assert not [link.pairs for link in (*two.a.links, *two.b.links) if link.pairs]

    staged(scenario)


def test_a_caller_that_is_cancelled_with_the_answer_in_hand_ends_the_pair() -> None:
    async def scenario(two: Two) -> None:
        spare = FakeSide()
        two.b.host.spares = [spare]
        two.a.is_deaf = True
        claim = asyncio.create_task(two.a.desk.claim(two.link, "device"))
        await until(lambda: two.b.host.joined)
        two.a.is_deaf = False
        two.round()  # the future has its result, its task has not run
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim
        await until(lambda: spare.closes)

    staged(scenario)


def test_a_link_that_breaks_refuses_what_was_asked_and_ends_what_was_being_served() -> None:
    async def scenario(two: Two) -> None:
        spare, claim = await handed_over(two)
        two.a.links.lost(two.b.id)
        assert await claim == Refusal(4102, "the other side was lost")
        two.b.links.lost(two.a.id)
        await until(lambda: spare.closes)

    staged(scenario)


def test_a_flood_of_claims_is_refused_and_not_piled_up() -> None:
    async def scenario(two: Two) -> None:
        two.b.host.spares = [FakeSide() for _ in range(MOST_SERVED + 1)]
        two.b.host.may_be_ready.clear()
        claims = [asyncio.create_task(two.a.desk.claim(two.link, "device")) for _ in range(MOST_SERVED + 1)]
        await until(lambda: sum(claim.done() for claim in claims) == 1)
        assert {claim.result() for claim in claims if claim.done()} == {Refusal(4129, "too many claims")}
        for claim in claims:
            claim.cancel()

    staged(scenario)
