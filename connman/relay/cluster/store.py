"""What a relay asks of Redis: presence, lookups, and batches to publish and to receive.

redis-py of its own retries for seconds and waits without an end; here nothing is tried twice and each command has its
timeout: whatever fails means that the broker is lost, and the relay begins anew with it. The timeouts are this module's:
redis-py's stand on asyncio.wait_for, which before Python 3.12 swallows a cancel that comes in the moment in which what
it waits for is done. Its task then went on for ever, and whoever had cancelled it waited for its end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from connman.errors import ConnmanError, InvalidOption
from connman.relay.cluster.presence import EXPIRY

if TYPE_CHECKING:
    from redis.asyncio import Redis


T = TypeVar("T")

LONGEST_ADDRESS: Final = 256
"""Characters of what a relay says of itself that are shown."""

_PLACE: Final = re.compile(
    r"(rediss?)://(?:[^/?#]*@)?((?:[\w.-]*|\[[\da-fA-F:.]+\])(?::\d+)?)(/\d*)?(?:[?#].*)?"
)
_SOCKET: Final = re.compile(r"(unix)://(?:[^/?#]*@)?()(/[^@?#]*)(?:[?#].*)?")


def shown(url: str) -> str:
    """Return a broker's address for people: without user, password and query. What looks odd is not shown at all.

    Threads: any.
    """
    found = _PLACE.fullmatch(url) or _SOCKET.fullmatch(url)
    return f"{found[1]}://{found[2]}{found[3] or ''}" if found else "(its address)"


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """What is known of a relay."""

    id: bytes
    address: str


def failures() -> tuple[type[Exception], ...]:
    """Name what a command to Redis may raise when the way to it, or Redis itself, is in trouble."""
    import redis.exceptions  # lazy: an extra

    return (redis.exceptions.RedisError, OSError, TimeoutError, EOFError)


def refusal(error: BaseException | None) -> str | None:
    """Return Redis's words when it is there and lets this relay not in, else None: then it may be waited for."""
    import redis.exceptions  # lazy: an extra

    refused = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
    while error is not None and not isinstance(error, refused):
        error = error.__cause__
    return None if error is None else str(error)


class Store:
    """The connections to one Redis."""

    def __init__(self, url: str, *, prefix: str, here: bytes, timeout: float) -> None:
        self.here = here
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._redis = self._client()
        # Did the newest beat tell Redis of this relay as of a new one? Then it knows none of its names either.
        self.was_unknown = False

    def _client(self) -> Redis:
        what = shown(self._url)
        if not what.startswith(("redis", "unix")):
            raise InvalidOption(
                "a broker is redis://…, rediss://… or unix:///… with all else percent-encoded"
            )
        try:
            from redis.asyncio import Redis  # lazy: an extra
            from redis.asyncio.retry import Retry  # lazy: an extra
            from redis.backoff import NoBackoff  # lazy: an extra
        except ModuleNotFoundError as error:
            raise ConnmanError("a broker needs the redis package: pip install 'connman[relay]'") from error
        try:
            client: Redis = Redis.from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=self._timeout,
                health_check_interval=0,
                decode_responses=False,
                protocol=2,
            )
            # It dials nobody: it is what reads the options of the address.
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            # The error of the library may quote what is secret.
            raise InvalidOption(
                f"the address of the broker {what} has an option that redis does not know"
            ) from None
        return client

    def name_key(self, name: str) -> str:
        """Return where the relays that have spares of a name are written."""
        return f"{self._prefix}:n:{name}"

    def channel(self, relay: bytes) -> str:
        """Return where a relay listens."""
        return f"{self._prefix}:to:{relay.hex()}"

    def _relay_key(self, relay: bytes) -> str:
        return f"{self._prefix}:r:{relay.hex()}"

    @property
    def _relays_key(self) -> str:
        return f"{self._prefix}:relays"

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def disconnect(self) -> None:
        """Drop every connection: the next command dials anew. For when one of them may be half open."""
        try:
            async with asyncio.timeout(1.0):
                await self._redis.connection_pool.disconnect()
        except failures():
            pass  # gone already

    async def _answer(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError as error:
            raise TimeoutError(str(error) or "no answer in time") from None

    # Batches

    async def subscribe(self, ready: Callable[[], None], take: Callable[[bytes], None]) -> None:
        """Listen for batches until that fails; each goes to `take`."""
        pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
        try:
            await self._answer(pubsub.subscribe(self.channel(self.here)))
            while True:
                message = await pubsub.parse_response(block=True)
                if message[0] == b"message":
                    take(message[2])
                elif message[0] == b"subscribe":
                    ready()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def publish(self, batches: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Publish batches, and return how many listened to each."""
        if len(batches) == 1:
            relay, batch = batches[0]
            return [await self._answer(self._redis.publish(self.channel(relay), batch))]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for relay, batch in batches:
                pipeline.publish(self.channel(relay), batch)
            return await self._answer(pipeline.execute())

    # Presence

    async def beat(self, address: str, expiry: float) -> list[RelayInfo]:
        """Say that this relay lives, to itself as well, and return those that do; forget those that do not."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(self._relay_key(self.here), address, px=int(expiry * 1000))
            pipeline.sadd(self._relays_key, self.here)
            pipeline.publish(self.channel(self.here), b"")
            pipeline.smembers(self._relays_key)
            _, added, _, members = await self._answer(pipeline.execute())
        self.was_unknown = bool(added)
        ids: list[bytes] = sorted(members)
        found: list[Any] = await self._answer(self._redis.mget([self._relay_key(relay) for relay in ids]))
        alive = [
            # Whatever stands there: it must not end the beats.
            RelayInfo(relay, text.decode("utf-8", "replace")[:LONGEST_ADDRESS])
            for relay, text in zip(ids, found, strict=True)
            if text is not None
        ]
        if gone := [relay for relay, text in zip(ids, found, strict=True) if text is None]:
            # One that lives after all comes back by its next beat.
            await self._answer(self._redis.srem(self._relays_key, *gone))
        return alive

    async def write(self, names: Sequence[tuple[str, int | None]]) -> None:
        """Write names with the stamp of their newest spare, or take them out (None)."""
        here = self.here
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, stamp in names:
                key = self.name_key(name)
                if stamp is None:
                    pipeline.hdel(key, here)
                else:
                    pipeline.hset(key, here, stamp)
                    pipeline.expire(key, EXPIRY)
            await self._answer(pipeline.execute())

    async def owners(self, names: Sequence[str]) -> list[dict[bytes, bytes]]:
        """Return for each name the relays that have spares, with the stamp of each."""
        if len(names) == 1:
            answer: Any = self._redis.hgetall(self.name_key(names[0]))
            return [await self._answer(answer)]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(self.name_key(name))
            return await self._answer(pipeline.execute())

    async def forget(self, entries: Sequence[tuple[str, bytes]]) -> set[bytes]:
        """Take dead relays out of names, and return those that are not: who was cut off for a moment is back, names and all."""
        relays = sorted({relay for _, relay in entries})
        beats: list[Any] = await self._answer(self._redis.mget([self._relay_key(relay) for relay in relays]))
        gone = {relay for relay, beat in zip(relays, beats, strict=True) if beat is None}
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, relay in entries:
                if relay in gone:
                    pipeline.hdel(self.name_key(name), relay)
            await self._answer(pipeline.execute())
        return set(relays) - gone

    async def leave(self) -> None:
        """Take this relay out, and with it all its names at once."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.delete(self._relay_key(self.here))
            pipeline.srem(self._relays_key, self.here)
            await self._answer(pipeline.execute())
