"""The acts of the show, each with what it promises."""

import argparse
import asyncio
import random
import statistics
import time
from collections import Counter

from tests.redis_server import RedisServer
from tests.rigs.cluster.chaos import LONGEST, chaos
from tests.rigs.cluster.speed import Speed, measured
from tests.rigs.cluster.stage import Caller, Provider, RelayProcess, end_all

OTHER_LOST, NO_PROVIDER, BROKER_LOST = 4102, 4104, 4113


class Show:
    """Relay `here` has the callers, relay `there` the providers."""

    def __init__(self, redis: RedisServer, arguments: argparse.Namespace) -> None:
        self.redis = redis
        self.wanted = arguments
        self.random = random.Random(arguments.seed)
        self.failures: list[str] = []
        self.providers: list[Provider] = []
        self.may_dial = asyncio.Event()
        self.may_dial.set()
        self._callers = 0

    def verdict(self) -> str:
        return "all promises kept" if not self.failures else "NOT KEPT: " + "; ".join(self.failures)

    def judge(self, promise: str, kept: bool, found: str = "") -> None:
        print(f"  {'ok ' if kept else 'NO '} {promise}{': ' if found else ''}{found}", flush=True)
        if not kept:
            self.failures.append(promise)

    def note(self, what: str) -> None:
        print(f"      {what}", flush=True)

    async def run(self) -> None:
        with RelayProcess(self.redis.url) as self.here, RelayProcess(self.redis.url) as self.there:
            try:
                await self.gather_providers()
                await self.one_by_one()
                await self.at_the_same_moment()
                await self.more_callers_than_spares()
                await self.redis_killed()
                await self.relay_killed()
                await self.anything_goes()
            finally:
                await end_all(provider.task for provider in self.providers)
            self.speeds()

    # Acts

    async def gather_providers(self) -> None:
        print("\nproviders come", flush=True)
        before, writes = self.used_memory(), self.calls("hset")
        idle = self.there.memory
        begin = time.perf_counter()
        self.providers = [
            Provider(number, f"device-{number:07}", self.there.url, self.may_dial)
            for number in range(self.wanted.providers)
        ]
        await self.all_spare()
        self.note(f"{self.wanted.providers} in {time.perf_counter() - begin:.1f} s")
        await self.until(lambda: self.names() == self.wanted.providers)
        count = self.wanted.providers
        self.note(
            f"Redis: {(self.used_memory() - before) / count:.0f} bytes a provider,"
            f" {(self.calls('hset') - writes) / count:.2f} writes; relay: {(self.there.memory - idle) / count / 1024:.1f} KiB"
        )
        commands, cpu, begin = self.calls(), (self.here.cpu, self.there.cpu), time.perf_counter()
        await asyncio.sleep(5)
        seconds = time.perf_counter() - begin
        self.note(
            f"at rest: {(self.calls() - commands) / seconds:.1f} commands/s of two relays;"
            f" CPU {(self.here.cpu - cpu[0]) / seconds:.2%} and {(self.there.cpu - cpu[1]) / seconds:.2%}"
        )

    async def one_by_one(self) -> None:
        print("\none caller after the other", flush=True)
        for where, relay in (("across", self.here), ("local", self.there)):
            times, right = [], 0
            for _ in range(200):
                caller = await self.caller(relay)
                provider = self.random.choice(self.providers)
                begin = time.perf_counter()
                joined = await caller.reach(provider.name)
                times.append(time.perf_counter() - begin)
                right += joined and await caller.ask() and caller.provider == provider.number
                caller.drop()
                await self.all_spare()
                await self.until(lambda: self.names() == self.wanted.providers)
            times.sort()
            self.judge(f"{where}: 200 of 200 get the provider they asked for", right == 200, f"{right}")
            self.note(f"reach to reached: median {times[100] * 1e3:.2f} ms, 99 % {times[197] * 1e3:.2f} ms")

    async def at_the_same_moment(self) -> None:
        print(
            f"\n{self.wanted.callers} callers at the same moment, each for a provider of its own", flush=True
        )
        for number in range(self.wanted.rounds):
            self.forget_served()
            callers = await asyncio.gather(*(self.caller(self.here) for _ in range(self.wanted.callers)))
            targets = self.random.sample(self.providers, self.wanted.callers)
            begin = time.perf_counter()
            joined = await asyncio.gather(
                *(caller.reach(target.name) for caller, target in zip(callers, targets, strict=True))
            )
            seconds = time.perf_counter() - begin
            asked = await asyncio.gather(*(caller.ask() for caller in callers))
            right = all(
                caller.provider == target.number for caller, target in zip(callers, targets, strict=True)
            )
            self.judge(
                f"round {number + 1}",
                all(joined) and all(asked) and right,
                f"all joined in {seconds * 1e3:.0f} ms",
            )
            self.each_once(callers)
            await self.leave(callers)

    async def more_callers_than_spares(self) -> None:
        spares = self.wanted.callers * 3 // 4
        print(
            f"\n{self.wanted.callers} callers at the same moment for {spares} spares of one name", flush=True
        )
        crowd = [Provider(10**6 + number, "crowd", self.there.url, self.may_dial) for number in range(spares)]
        self.providers += crowd
        await self.all_spare()
        await self.until(lambda: self.redis.command("EXISTS", "connman:n:crowd") == b":1\r\n")
        callers = await asyncio.gather(*(self.caller(self.here) for _ in range(self.wanted.callers)))
        joined = await asyncio.gather(*(caller.reach("crowd") for caller in callers))
        lucky = [caller for caller, is_in in zip(callers, joined, strict=True) if is_in]
        codes = Counter(caller.code for caller, is_in in zip(callers, joined, strict=True) if not is_in)
        asked = await asyncio.gather(*(caller.ask() for caller in lucky))
        self.judge("as many joined as there are spares", len(lucky) == spares and all(asked), str(len(lucky)))
        self.judge("the others are told that there is none", set(codes) == {NO_PROVIDER}, str(dict(codes)))
        self.each_once(lucky)
        await end_all(provider.task for provider in crowd)
        self.providers = self.providers[: self.wanted.providers]
        await self.leave(callers)

    async def redis_killed(self) -> None:
        print("\nRedis killed, and back", flush=True)
        across = await self.joined(self.here, 100)
        local = await self.joined(self.there, 20)
        await self.until(lambda: self.names() == self.wanted.providers - 120)
        begin = time.perf_counter()
        self.redis.kill()
        codes = await asyncio.gather(*(caller.peer.end() for caller in across if caller.peer))
        seconds = time.perf_counter() - begin
        self.judge(
            "100 pairs across end with 4113",
            Counter(codes) == {BROKER_LOST: 100},
            f"within {seconds * 1e3:.0f} ms",
        )
        alive = await asyncio.gather(*(caller.ask(is_first=False) for caller in local))
        self.judge("20 local ones go on", all(alive))
        times, refused = [], Counter[int]()
        for _ in range(50):
            caller = await self.caller(self.here)
            begin = time.perf_counter()
            await caller.reach(self.providers[0].name)
            times.append(time.perf_counter() - begin)
            refused[caller.code] += 1
            caller.drop()
        self.judge(
            "names elsewhere: 4113 at once",
            refused == {BROKER_LOST: 50} and max(times) < 1,
            f"{max(times) * 1e3:.1f} ms at most, median {statistics.median(times) * 1e3:.2f} ms",
        )
        near = [caller for caller in await self.joined(self.there, 20) if caller.provider >= 0]
        self.judge("local names are served", len(near) == 20)
        self.redis.start()
        begin = time.perf_counter()
        await self.leave([*across, *local, *near])
        await self.until(lambda: self.names() == self.wanted.providers)
        self.judge(
            "every name is written again", True, f"{time.perf_counter() - begin:.1f} s behind the restart"
        )
        await self.everybody_is_reached("every provider is reached again")

    async def relay_killed(self) -> None:
        print("\nthe providers' relay killed, and back", flush=True)
        callers = await self.joined(self.here, 100)
        self.may_dial.clear()
        begin = time.perf_counter()
        self.there.kill()
        codes = await asyncio.gather(*(caller.peer.end() for caller in callers if caller.peer))
        seconds = time.perf_counter() - begin
        self.judge("100 pairs end with 4102", Counter(codes) == {OTHER_LOST: 100}, f"within {seconds:.2f} s")
        times, refused = [], Counter[int]()
        for provider in self.providers[:200]:
            caller = await self.caller(self.here)
            begin = time.perf_counter()
            await caller.reach(provider.name)
            times.append(time.perf_counter() - begin)
            refused[caller.code] += 1
            caller.drop()
        self.judge(
            "its names are gone: 4104 at once",
            refused.keys() == {NO_PROVIDER} and max(times) < 1,
            f"{max(times) * 1e3:.1f} ms at most, median {statistics.median(times) * 1e3:.2f} ms",
        )
        self.there.start()
        self.may_dial.set()
        begin = time.perf_counter()
        await self.all_spare()
        self.note(f"all providers back in {time.perf_counter() - begin:.1f} s")
        await asyncio.sleep(
            0.5
        )  # for the names to be written: those of the dead relay still stand beside them
        await self.everybody_is_reached("every provider is reached again")

    async def anything_goes(self) -> None:
        print(f"\nanything, at any time, for {self.wanted.chaos:g} s", flush=True)
        relays = [self.here, self.there]
        tally = await chaos(self.redis, relays, self.providers, self.wanted.chaos, self.random)
        self.note(", ".join(f"{count} {what}" for what, count in tally.blows.most_common()))
        self.note(", ".join(f"{count} {what}" for what, count in tally.ends.most_common()))
        self.judge("no wrong answer, no odd close", not tally.wrong, "; ".join(sorted(set(tally.wrong))[:5]))
        self.judge("nobody waits for long", tally.longest < LONGEST, f"{tally.longest:.1f} s at most")
        await self.all_spare()
        await asyncio.sleep(3)  # for Redis to be joined again by both
        await self.everybody_is_reached("then every provider is reached again")
        memory = [relay.memory / 2**20 for relay in relays]
        self.note(f"the relays' memory: {memory[0]:.0f} and {memory[1]:.0f} MiB")

    def speeds(self) -> None:
        print("\nframes of 64 bytes, one pair; relays, Redis and clients share the machine", flush=True)
        with RelayProcess() as alone:
            self.show_speed("one relay, no broker", measured(alone.port, alone.port, self.wanted.frames))
        self.show_speed(
            "one relay of the cluster", measured(self.here.port, self.here.port, self.wanted.frames)
        )
        before = self.here.cpu, self.there.cpu
        across = measured(self.here.port, self.there.port, self.wanted.frames)
        self.show_speed("across two", across)
        used = [relay.cpu - cpu for relay, cpu in zip((self.here, self.there), before, strict=True)]
        self.note(
            f"CPU of the relays across: {used[0] / self.wanted.frames * 1e6:.2f} and {used[1] / self.wanted.frames * 1e6:.2f} µs a frame (round trips included)"
        )

    def show_speed(self, what: str, speed: Speed) -> None:
        self.note(
            f"{what:26} {speed.frames:10,.0f}/s, round trip median {speed.median * 1e6:4.0f} µs, 99 % {speed.worst * 1e6:5.0f} µs"
        )

    # Parts of acts

    async def caller(self, relay: RelayProcess) -> Caller:
        self._callers += 1
        caller = Caller(self._callers)
        await caller.dial(relay.url)
        return caller

    async def joined(self, relay: RelayProcess, count: int) -> list[Caller]:
        """Return callers, each joined with a spare provider."""
        callers = await asyncio.gather(*(self.caller(relay) for _ in range(count)))
        free = [provider for provider in self.providers if provider.is_spare.is_set()]
        targets = self.random.sample(free, count)
        joined = await asyncio.gather(*(c.reach(t.name) for c, t in zip(callers, targets, strict=True)))
        asked = await asyncio.gather(*(c.ask() for c, is_in in zip(callers, joined, strict=True) if is_in))
        self.judge(f"{count} callers are joined", all(joined) and all(asked))
        return list(callers)

    async def everybody_is_reached(self, promise: str) -> None:
        wrong = 0
        for begin in range(0, len(self.providers), 100):
            some = self.providers[begin : begin + 100]
            callers = await asyncio.gather(*(self.caller(self.here) for _ in some))
            joined = await asyncio.gather(*(c.reach(p.name) for c, p in zip(callers, some, strict=True)))
            for caller, provider, is_in in zip(callers, some, joined, strict=True):
                wrong += not (is_in and await caller.ask() and caller.provider == provider.number)
            for caller in callers:
                caller.drop()
        self.judge(promise, not wrong, f"{len(self.providers) - wrong} of {len(self.providers)}")
        await self.all_spare()

    def each_once(self, callers: list[Caller]) -> None:
        served = [number for provider in self.providers for number in provider.served]
        right = sorted(served) == sorted(caller.number for caller in callers)
        most = max(len(provider.served) for provider in self.providers)
        self.judge("  no provider has two of them, no caller two providers", right and most == 1)

    def forget_served(self) -> None:
        for provider in self.providers:
            provider.served.clear()

    async def leave(self, callers: list[Caller]) -> None:
        for caller in callers:
            caller.drop()
        await self.until(lambda: True)
        await self.all_spare()
        await self.until(lambda: self.names() == self.wanted.providers)
        self.forget_served()

    async def all_spare(self) -> None:
        await asyncio.sleep(0.01)  # for those whose caller has just gone to hear of it
        async with asyncio.timeout(60):
            for provider in self.providers:
                await provider.is_spare.wait()

    async def until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    # Redis

    def names(self) -> int:
        """How many names are written."""
        size = int(self.redis.command("DBSIZE")[1:])
        return size - 3  # the two relays and their list

    def used_memory(self) -> int:
        return int(self.info("memory")["used_memory"])

    def calls(self, command: str = "") -> int:
        """How often a command was called; all of them without one."""
        if not command:
            return int(self.info("stats")["total_commands_processed"])
        entry = self.info("commandstats").get(f"cmdstat_{command}", "calls=0,")
        return int(entry.partition("calls=")[2].partition(",")[0])

    def info(self, section: str) -> dict[str, str]:
        lines = self.redis.command("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)
