"""Callers all the time, while Redis and relays are killed, suspended and started: nobody waits long, none gets a wrong answer."""

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from websockets.exceptions import InvalidHandshake, InvalidMessage

from tests.redis_server import RedisServer
from tests.rigs.cluster.stage import Caller, Provider, RelayProcess

# What a caller may be told. 1006: its own relay was killed under it.
HONEST = {1001, 1006, 4102, 4104, 4110, 4113}
LONGEST = 15.0  # seconds that anybody may wait: what a suspended relay costs is the most


@dataclass
class Tally:
    """What has become of the callers."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0
    blows: Counter[str] = field(default_factory=Counter)


async def chaos(
    redis: RedisServer,
    relays: list[RelayProcess],
    providers: list[Provider],
    seconds: float,
    chance: random.Random,
) -> Tally:
    """Let 20 callers come and go for a time, with a blow every half second or so."""
    tally = Tally()
    end = time.perf_counter() + seconds
    callers = [
        asyncio.create_task(_call_again_and_again(number, (relays, providers), end, tally, chance))
        for number in range(20)
    ]
    while time.perf_counter() < end:
        await _strike(redis, relays, tally, chance)
    await asyncio.gather(*callers)
    return tally


async def _strike(
    redis: RedisServer, relays: list[RelayProcess], tally: Tally, chance: random.Random
) -> None:
    relay = chance.choice(relays)
    blow = chance.choice(["redis killed", "redis hangs", "subscriptions cut", "relay killed", "relay hangs"])
    tally.blows[blow] += 1
    pause = chance.choice([0.05, 0.3, 1.0])
    if blow == "redis killed":
        redis.kill()
        await asyncio.sleep(pause)
        redis.start()
    elif blow == "redis hangs":
        redis.suspend()
        await asyncio.sleep(pause * 3)
        redis.resume()
    elif blow == "subscriptions cut":
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    elif blow == "relay killed":
        relay.kill()
        await asyncio.sleep(pause)
        relay.start()
    else:
        relay.send_signal(signal.SIGSTOP)
        await asyncio.sleep(pause * 6)
        relay.send_signal(signal.SIGCONT)
    await asyncio.sleep(chance.uniform(0.1, 1.0))


async def _call_again_and_again(
    number: int,
    stage: tuple[list[RelayProcess], list[Provider]],
    end: float,
    tally: Tally,
    chance: random.Random,
) -> None:
    relays, providers = stage
    while time.perf_counter() < end:
        number += 1000
        caller = Caller(number)
        target = chance.choice(providers)
        begin = time.perf_counter()
        try:
            # Some leave in the middle of it.
            async with asyncio.timeout(
                chance.choice([0.002, 0.01, LONGEST + 5, LONGEST + 5, LONGEST + 5])
            ) as patience:
                what = await _one_call(caller, target, chance.choice(relays).url, tally)
        except TimeoutError:
            what = "left"
            if patience.when() is not None and time.perf_counter() - begin > LONGEST:
                tally.wrong.append("waits without an end")
        except (OSError, InvalidHandshake, InvalidMessage, EOFError):
            what = "its relay was away"
        finally:
            caller.drop()
        tally.ends[what] += 1
        tally.longest = max(tally.longest, time.perf_counter() - begin)
        await asyncio.sleep(0.01)


async def _one_call(caller: Caller, target: Provider, url: str, tally: Tally) -> str:
    await caller.dial(url)
    if await caller.reach(target.name):
        for count in range(3):
            if not await caller.ask(is_first=not count):
                break
            if caller.provider != target.number:
                tally.wrong.append(f"{target.number} was asked, {caller.provider} answered")
        else:
            return "answered"
    if caller.code not in HONEST:
        tally.wrong.append(f"closed with {caller.code}")
    return f"closed with {caller.code}"
