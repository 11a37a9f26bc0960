"""The switchboard: what the first message of a side leads to, who is joined with whom, and who is told of an end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from connman.relay.board import Board
from connman.relay.broker import Broker, BrokerLost, Other, RemoteRefused, RemoteSide
from connman.relay.counts import Counts
from connman.relay.limits import Limits
from connman.relay.side import Phase, Side
from connman.relay.tokens import Grant, TokenRefused, Tokens, TokensFailed, granted
from connman.relay.waiting import Waiting
from connman.relay.wire import (
    BAD_TOKEN,
    BROKER_LOST,
    CONNECTED,
    FAILED,
    GOING_AWAY,
    HANDOVER,
    INVALID_FIELD,
    NO_PROVIDER,
    NOT_ALLOWED,
    NOT_READY,
    OTHER_LOST,
    PARTNER_LEFT,
    PROVIDED,
    REACHED,
    REASONS,
    TOO_MANY,
    First,
    FirstMessageRefused,
    Group,
    Provide,
    is_ready,
    parse_first,
)

# Read at once from one side, and so the longest that the others wait for it: see `Side`.
_CHUNK = 65536
# What a caller that was not joined counts as; whatever else another relay says: "not-ready".
_UNJOINED = {NO_PROVIDER: "no-provider", BROKER_LOST: "broker", TOO_MANY: "full"}

logger = logging.getLogger("connman.relay")


class Switchboard:
    """Joins the sides of one relay.

    Threads: the relay's.
    """

    def __init__(
        self,
        limits: Limits,
        tokens: Tokens,
        broker: Broker,
        counts: Counts,
        on_gone: Callable[[Side], None],
    ) -> None:
        self.limits = limits
        self.tokens = tokens
        self.broker = broker
        self.counts = counts
        self.buffer = memoryview(bytearray(_CHUNK))
        self._on_gone = on_gone
        self.board: Board[Side] = Board()
        self.sides: set[Side] = set()
        self.is_stopping = False
        # A caller that waits: the task that looks for its spare. A spare that was handed over: who waits for "ready".
        self._searches: dict[Side, asyncio.Task[None]] = {}
        self._handovers: dict[Side, asyncio.Future[bool]] = {}
        self._waiting = Waiting(limits.max_per_name)
        self._taken: Counter[str] = Counter()  # spares that are being handed over, by name

    # What sides tell

    def first_message(self, side: Side, text: str) -> None:
        """Take the first message of ``side``: it waits, is joined, or is closed with what is wrong."""
        try:
            first = parse_first(text)
            side.grant = self._granted(side, first)
            self._enter(side, first)
        except FirstMessageRefused as refused:
            logger.debug("refused %r: %s", side, refused)
            side.close(refused.code, refused.reason)

    def ready(self, side: Side, text: str) -> None:
        """Take what a spare said to the handover: the caller that waits for it is joined with it."""
        if not is_ready(text):
            self.counts.count_refused("ready")
            side.close(INVALID_FIELD, 'Expected {"command":"ready"}')
            return
        side.waits_as(Phase.HELD)
        handover = self._handovers.pop(side, None)
        if handover is not None and not handover.done():
            handover.set_result(True)

    def left(self, side: Side, code: int, reason: str) -> None:
        """Undo what ``side`` was part of, and tell whom it concerns."""
        if self.board.remove_spare(side.name, side):
            self.counts.spares -= 1
            self.broker.spare_gone(side.name)
        search = self._searches.pop(side, None)
        if search is not None:
            search.cancel()
        handover = self._handovers.pop(side, None)
        if handover is not None and not handover.done():
            handover.set_result(False)
        if side.group:
            self.board.leave_group(side.group)
        other, side.other = side.other, None
        if other is not None:
            self._part(side, other, code, reason)

    def gone(self, side: Side) -> None:
        """Forget a side whose socket is closed."""
        self.sides.discard(side)
        self.counts.connections -= 1
        self._on_gone(side)

    # The first message

    def _granted(self, side: Side, first: First) -> Grant:
        try:
            if first.token is not None or side.grant is None:
                return granted(self.tokens, first.token)
        except TokensFailed as failed:
            self.counts.count_refused("tokens-failed")
            raise FirstMessageRefused(FAILED, str(failed)) from None
        except TokenRefused as refused:
            self.counts.count_refused("token")
            raise FirstMessageRefused(BAD_TOKEN, str(refused)) from None
        if side.grant.is_expired(time.time()):
            self.counts.count_refused("token")
            raise FirstMessageRefused(BAD_TOKEN)
        return side.grant

    def _enter(self, side: Side, first: First) -> None:
        grant = side.grant
        assert grant is not None
        if isinstance(first, Group):
            allowed = grant.may_provide(first.self_name) and grant.may_reach(first.other_name)
        elif isinstance(first, Provide):
            allowed = grant.may_provide(first.name)
        else:
            allowed = grant.may_reach(first.name)
        if not allowed:
            self.counts.count_refused("name")
            raise FirstMessageRefused(NOT_ALLOWED)
        if self.is_stopping:
            raise FirstMessageRefused(GOING_AWAY)
        if isinstance(first, Group):
            self._enter_group(side, first.key)
        elif isinstance(first, Provide):
            self._provide(side, first.name)
        else:
            side.name = first.name
            side.waits_as(Phase.HELD)
            self._searches[side] = asyncio.get_running_loop().create_task(self._search(side))

    def _provide(self, side: Side, name: str) -> None:
        waiting = self.board.spares(name)
        if waiting >= self.limits.max_per_name:
            self.counts.count_refused("full")
            raise FirstMessageRefused(TOO_MANY, "too many spares of this name")
        if not waiting and self.board.names >= self.limits.max_names:
            self.counts.count_refused("full")
            raise FirstMessageRefused(TOO_MANY, "too many names")
        side.name = name
        side.waits_as(Phase.SPARE)
        self.board.add_spare(name, side)
        self.counts.spares += 1
        self.broker.spare_added(name)
        self._waiting.tell(name)
        # Behind all of it: who hears this may be looked for.
        side.send(PROVIDED)

    def _enter_group(self, side: Side, key: bytes) -> None:
        try:
            other = self.board.enter_group(key, side)
        except OverflowError:
            self.counts.count_refused("full")
            raise FirstMessageRefused(INVALID_FIELD, "Group full (2 members)") from None
        side.group = key
        side.waits_as(Phase.ALONE)
        if other is not None:
            self.counts.groups += 1
            self._make_pair(side, other)
            for member in (other, side):
                member.send(CONNECTED)
            for member in (other, side):
                member.begin()

    # Looking for a spare

    async def _search(self, caller: Side) -> None:
        code, reason = NO_PROVIDER, None
        try:
            async with asyncio.timeout(self.limits.join_timeout):
                failed = self.counts.handovers_failed
                while not await self._find(caller):
                    if self.counts.handovers_failed > failed:
                        code = NOT_READY
                    if not await self._spare_has_come(caller.name):
                        break
                else:
                    return
        except TimeoutError:
            code = NOT_READY
        except BrokerLost:
            code = BROKER_LOST
        except (FirstMessageRefused, RemoteRefused) as refused:
            code, reason = refused.code, refused.reason
        except Exception:  # user code: a broker of one's own
            logger.exception("the broker has failed")
            code = BROKER_LOST
        if self._searches.pop(caller, None) is not None:
            self.counts.count_refused(_UNJOINED.get(code, "not-ready"))
            caller.close(code, REASONS[code] if reason is None else reason)

    async def _find(self, caller: Side) -> bool:
        """Join ``caller`` with a spare of this relay, or of another; False when there is none. It may be refused."""
        if self._is_full(caller.name):
            raise FirstMessageRefused(TOO_MANY, "too many callers of this name")
        spare = await self._newest_ready(caller.name)
        if spare is not None:
            self._searches.pop(caller, None)
            self._pair_up(caller, spare)
            return True
        try:
            remote = await self.broker.open_remote(caller.name)
        except BrokerLost:
            if not await self._spare_has_come(caller.name):
                raise
            return False  # one of this relay
        if remote is not None:
            self._searches.pop(caller, None)
            caller.send(REACHED)
            self.join(caller, remote)
        return remote is not None

    def _is_full(self, name: str) -> bool:
        return self.board.pairs(name) + self._taken[name] >= self.limits.max_pairs_per_name

    async def _spare_has_come(self, name: str) -> bool:
        """Wait for the next spare of a name that is in use: its provider replaces those that were taken just now.

        Without this a burst of callers would be told that nobody is there, a few milliseconds too early.
        """
        if self.board.spares(name):
            return True  # while others were asked
        is_in_use = self.board.pairs(name) > 0 or name in self._taken
        return is_in_use and await self._waiting.wait(name, self.limits.ready_timeout)

    async def take_spare(self, name: str) -> Side | None:
        """Return the newest spare of ``name``, handed over, for a caller of another relay; None when it may have none.

        It waits for the next one as callers of this relay do. Cancelled in the middle of a handover that spare is closed.

        Threads: the relay's.
        """
        while not self._is_full(name):
            spare = await self._newest_ready(name)
            # Somebody else may have been quicker.
            if spare is not None or not await self._spare_has_come(name):
                return spare
        return None

    async def _newest_ready(self, name: str) -> Side | None:
        """Return the newest spare that says it is ready; those that are not in time are closed, and the next is asked."""
        while (spare := self.board.newest_spare(name)) is not None:
            self.counts.spares -= 1
            self.broker.spare_gone(name)
            # Until it is part of a pair, which happens in the same turn of the loop in which this returns: the name is in
            # use all the time.
            self._taken[name] += 1
            try:
                if await self._hand_over(spare):
                    return spare
            finally:
                self._taken[name] -= 1
                if not self._taken[name]:
                    del self._taken[name]
        return None

    async def _hand_over(self, spare: Side) -> bool:
        handover: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._handovers[spare] = handover
        spare.waits_as(Phase.CALLED)
        spare.send(HANDOVER)
        try:
            async with asyncio.timeout(self.limits.ready_timeout):
                is_ready = await handover
        except TimeoutError:
            is_ready = False
        except asyncio.CancelledError:
            spare.close(OTHER_LOST, REASONS[OTHER_LOST])
            raise
        if not is_ready:
            self.counts.handovers_failed += 1
            spare.close(NOT_READY, REASONS[NOT_READY])
        return is_ready and spare.phase is Phase.HELD

    # Pairs

    def _pair_up(self, caller: Side, spare: Side) -> None:
        self._make_pair(caller, spare)
        caller.send(REACHED)
        caller.begin()
        spare.begin()

    def _make_pair(self, one: Side, two: Side) -> None:
        self._count_pair(one)
        one.join(two)
        two.join(one)

    def join(self, side: Other, remote: RemoteSide) -> None:
        """Make a pair of a side here, which has been told of it, and one elsewhere.

        Threads: the relay's.
        """
        assert isinstance(side, Side)
        self._count_pair(side)
        side.join(remote)
        remote.attach(side)
        side.begin()

    def _count_pair(self, side: Side) -> None:
        self.counts.pairs += 1
        self.counts.pairs_total += 1
        if not side.group:
            self.board.pair_added(side.name)

    def _part(self, side: Side, other: Other, code: int, reason: str) -> None:
        self.counts.pairs -= 1
        if side.group:
            self.counts.groups -= 1
            if not (self.is_stopping and code == GOING_AWAY):
                code, reason = PARTNER_LEFT, ""
        else:
            self.board.pair_gone(side.name)
        if isinstance(other, Side):
            other.other = None
        other.close(code, reason)
