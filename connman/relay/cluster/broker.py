"""Several relays over one Redis: the broker that `--broker redis://…` names.

Redis carries three things: which relays live (a key each, with expiry), which of them have spares of a name (a hash a
name), and batches from relay to relay (a channel each). None of it decides anything: a spare is given out by the relay
that has it. So a Redis that forgets or repeats costs time, never a spare given out twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from connman.errors import ConnmanError
from connman.relay.broker import BrokerHost, BrokerLost, RemoteRefused
from connman.relay.cluster.claims import ClaimDesk, Refusal
from connman.relay.cluster.links import SILENCE, Links
from connman.relay.cluster.lookups import Lookups
from connman.relay.cluster.members import Members
from connman.relay.cluster.pair import RemoteSide
from connman.relay.cluster.presence import Presence
from connman.relay.cluster.store import Store, failures, refusal, shown
from connman.relay.cluster.wire import ID_BYTES
from connman.relay.counts import BrokerState, RelaySeen
from connman.relay.wire import BROKER_LOST, GOING_AWAY, NO_PROVIDER, NOT_READY, OTHER_LOST, REASONS

# Seconds: so long goes the death of a relay unseen, for nobody listens to the next batch then.
BEAT: Final = 0.5
EXPIRY: Final = 10  # beats that a relay may miss until it is taken for dead, and its names with it
TIMEOUT: Final = 2.0  # of a command: a Redis slower than this is a lost one
CLAIM_TIMEOUT: Final = 10.0  # for a caller to get a spare of another relay, however many are asked
SETTLE: Final = 0.02  # how long changes of presence gather before they are written
NAMES_AT_ONCE: Final = 100  # written in one go: more would hold up the frames
LEAVING: Final = 2.0  # seconds that a stopping relay spends on taking its names out
AGAIN: Final = 0.5  # after which a task that was cancelled and goes on is cancelled once more
LONGEST_WAIT: Final = 2.0  # between two attempts to reach Redis

BROKEN: Final = Refusal(BROKER_LOST, REASONS[BROKER_LOST])

logger = logging.getLogger("connman.relay")


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until each has ended: a library on the way may swallow a cancel."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)


class RedisBroker:
    """Join this relay with all others that name the same Redis and prefix.

    Threads: belongs to the relay's loop; `state` and `relays` may be read from any thread.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "connman",
        address: str = "",
        beat: float = BEAT,
        timeout: float = TIMEOUT,
    ) -> None:
        self.id = os.urandom(ID_BYTES)
        self._url = url
        self._address = address or socket.gethostname()
        self._beat = beat
        self._expiry = EXPIRY * beat
        self._store = Store(url, prefix=prefix, here=self.id, timeout=timeout)
        self._presence = Presence()
        self._members = Members(self.id)
        # Entries of relays that seem to be dead, to be taken out, and when it will be plain that they are not.
        self._stale: dict[tuple[str, bytes], float] = {}
        self._is_up = False

    def __repr__(self) -> str:
        return f"<RedisBroker {shown(self._url)} {self.state}>"

    @property
    def state(self) -> BrokerState:
        """Return whether other relays can be reached: "up" or "lost"."""
        return "up" if self._is_up else "lost"

    def relays(self) -> tuple[RelaySeen, ...]:
        """Return the relays of the cluster that live, this one among them.

        Threads: any.
        """
        return self._members.table(time.monotonic())

    # The relay calls

    async def start(self, host: BrokerHost) -> None:
        """Join; a Redis that is not there yet is waited for in the background.

        Raises: ConnmanError when Redis refuses the login.
        Threads: the relay's.
        """
        # Now, and not when it was made: what was made before a fork is started in each process, and two relays of one id
        # would hear each other's answers.
        self.id = self._store.here = os.urandom(8)
        self._members = Members(self.id)
        self._desk = ClaimDesk(host)
        self._due = asyncio.Event()
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()
        # One writer at a time: what says that a name is there must not come to Redis behind what takes it out.
        self._writing = asyncio.Lock()
        self._links = Links(self.id, self._desk, self._due.set)
        self._lookups = Lookups(self._store.owners)
        self._failures = failures()
        self._interruptions: tuple[type[BaseException], ...] = (*self._failures, asyncio.CancelledError)
        first: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(first))
        if (words := refusal(await first)) is not None:
            await self.stop()
            raise ConnmanError(f"the broker {shown(self._url)} refuses the login: {words}")

    async def stop(self) -> None:
        """Leave: what was said goes out, the names are taken out, and what rides on links ends.

        Threads: the relay's.
        """
        await self._desk.stop()
        self._links.leave(GOING_AWAY, REASONS[GOING_AWAY])
        if self._is_up:
            try:
                async with asyncio.timeout(LEAVING):
                    await self._leave()
            except self._failures:
                pass  # the names vanish by their relay's expiry
        await _end([self._task])
        self._lose()
        await self._store.close()

    def spare_added(self, name: str) -> None:
        """Count a spare of a name. It is written a moment later.

        Threads: the relay's.
        """
        self._presence.added(name, int(time.time()))
        self._changed.set()

    def spare_gone(self, name: str) -> None:
        """Count a spare less: taken, or lost.

        Threads: the relay's.
        """
        self._presence.gone(name, time.monotonic())
        self._changed.set()

    async def open_remote(self, name: str) -> RemoteSide | None:
        """Claim a spare of a name from another relay; None when there is none.

        Raises: BrokerLost when that cannot be known now; RemoteRefused, with code and reason, when who has the name gave none.
        Threads: the relay's.
        """
        if not self._is_up:
            raise BrokerLost("the broker is lost")
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT):
                return await self._ask_owners(name)
        except TimeoutError:
            raise RemoteRefused(NOT_READY, REASONS[NOT_READY]) from None

    async def _ask_owners(self, name: str) -> RemoteSide | None:
        owners, dead = self._members.order(await self._lookups.owners(name))
        worst: Refusal | None = None
        for relay in owners:
            answer = await self._desk.claim(self._links.to(relay), name)
            if answer == BROKEN and self._is_up:
                # The link had a gap that nobody had seen yet; there is a new one.
                answer = await self._desk.claim(self._links.to(relay), name)
            if isinstance(answer, RemoteSide):
                return answer
            if answer.code == OTHER_LOST:
                dead.append(relay)
            elif answer.code != NO_PROVIDER:
                worst = answer
        for relay in dead:
            self._stale.setdefault((name, relay), time.monotonic() + self._expiry + self._beat)
            self._changed.set()
        if worst is not None and worst.code == BROKER_LOST:
            raise BrokerLost("the broker was lost")
        if worst is not None:
            raise RemoteRefused(worst.code, worst.reason)
        return None

    # One life after the other

    async def _run(self, first: asyncio.Future[Exception | None]) -> None:
        attempt = 0
        while True:
            error: Exception
            try:
                await self._life(first)
            except self._failures as failure:
                error = failure
            except Exception as bug:  # top of a thread: a bug of ours must not leave the relay alone for ever
                logger.exception("relay cluster: begins anew")
                error = bug
            was_up = self._is_up
            attempt = 1 if was_up else attempt + 1
            if was_up or attempt == 1:
                logger.warning("relay cluster: the broker %s is lost: %s", shown(self._url), error)
            self._lose()
            if not first.done():
                first.set_result(error)
            # By chance, so that all the relays of a cluster do not come back at once.
            await asyncio.sleep(random.uniform(0.5, 1) * min(LONGEST_WAIT, 0.1 * 2 ** min(attempt, 8)))

    async def _life(self, first: asyncio.Future[Exception | None]) -> None:
        """Be a member of the cluster until something fails."""
        heard = asyncio.Event()
        self._heard = time.monotonic()
        tasks = [asyncio.create_task(self._store.subscribe(heard.set, self._take))]
        try:
            await self._until(heard, tasks)
            await self._say_alive()
            self._is_up = True
            self._presence.write_all()
            self._changed.set()
            logger.info("relay cluster: joined at %s as %s", shown(self._url), self.id.hex())
            if not first.done():
                first.set_result(None)
            loops: list[Coroutine[Any, Any, None]] = [
                self._beat_loop(),
                self._publish_loop(),
                self._write_loop(),
                self._lookups.run(),
            ]
            tasks += [asyncio.create_task(loop) for loop in loops]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            await _end(tasks)
            await self._store.disconnect()

    async def _until(self, event: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([waiting, *tasks], timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    await task
            if not event.is_set():
                raise TimeoutError("no answer to the subscription")
        finally:
            waiting.cancel()

    def _lose(self) -> None:
        self._is_up = False
        self._members.forget()
        self._links.lost_all()
        self._lookups.fail()

    def _take(self, batch: bytes) -> None:
        if batch:
            self._links.receive(batch)
        else:
            self._heard = time.monotonic()  # our own beat: Redis delivers

    async def _publish_loop(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await self._publish()

    async def _publish(self) -> None:
        # One round at a time, and one task: what comes meanwhile gathers into the next, a slow Redis slows the senders,
        # and no round overtakes another on a connection of its own.
        async with self._publishing:
            while batches := self._links.take():
                counts = await self._store.publish(batches)
                for (relay, _), count in zip(batches, counts, strict=True):
                    if not count:
                        self._members.died(relay)
                        self._links.lost(relay)

    async def _beat_loop(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            self._links.tick()
            await self._say_alive()
            now = time.monotonic()
            if now - self._heard > SILENCE * self._beat + TIMEOUT:
                raise TimeoutError("Redis takes what is published, and delivers nothing")
            self._presence.refresh(now)
            if self._presence.is_dirty or self._stale:
                self._changed.set()

    async def _say_alive(self) -> None:
        relays = await self._store.beat(self._address, self._expiry)
        if self._store.was_unknown:
            # It has been emptied, or others have taken this relay for dead: the names are gone as well.
            self._presence.write_all()
            self._changed.set()
        now = time.monotonic()
        for relay in self._members.seen(relays, now):
            self._links.lost(relay)
        self._links.others = self._members.others
        for link in self._links:
            if not link.is_needed and not self._members.is_known(link.there):
                self._links.lost(link.there)  # nothing is lost by it: else it would be kept for ever

    async def _write_loop(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(SETTLE)
            await self._write()

    async def _write(self) -> None:
        stale = list(self._stale.items())
        for begin in range(0, len(stale), NAMES_AT_ONCE):
            some = stale[begin : begin + NAMES_AT_ONCE]
            alive = await self._store.forget([entry for entry, _ in some])
            for entry, until in some:
                if entry[1] not in alive or time.monotonic() >= until:
                    self._stale.pop(entry, None)
        async with self._writing:
            while taken := self._presence.take(NAMES_AT_ONCE, time.monotonic()):
                try:
                    await self._store.write(taken)
                except self._interruptions:
                    self._presence.not_written(name for name, _ in taken)
                    raise

    async def _leave(self) -> None:
        self._presence.leave()
        await self._publish()
        await self._store.leave()
        await self._write()
