"""What a relay asks of Redis, against a real one."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from connman.errors import InvalidOption
from connman.relay.cluster.store import RelayInfo, Store, failures, refusal, shown
from tests.authorities import AUTHORITY
from tests.loopback import held_port
from tests.redis_server import NotStarted, RedisServer

A, B = b"relay..a", b"relay..b"


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(one_for_all: RedisServer) -> RedisServer:
    """Return a Redis that knows of nothing."""
    one_for_all.command("FLUSHALL")
    return one_for_all


def staged(url: str, scenario: Callable[[Store, Store], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def stage() -> None:
        settings = {"prefix": "connman", "timeout": 2.0} | options
        one, two = Store(url, here=A, **settings), Store(url, here=B, **settings)
        try:
            async with asyncio.timeout(10):
                await scenario(one, two)
        finally:
            await one.close()
            await two.close()

    asyncio.run(stage())


def test_names_are_found_with_their_relays_until_they_are_taken_out(redis: RedisServer) -> None:
    async def scenario(one: Store, two: Store) -> None:
        await one.write([("dev ü:1", 100), ("other", 1)])
        await two.write([("dev ü:1", 200)])
        assert await one.owners(["dev ü:1"]) == [{A: b"100", B: b"200"}]
        assert await one.owners(["dev ü:1", "nobody", "other"]) == [{A: b"100", B: b"200"}, {}, {A: b"1"}]
        await one.write([("dev ü:1", None), ("other", None)])
        assert await one.forget([("dev ü:1", B)]) == set()
        assert await two.owners(["dev ü:1"]) == [{}]
        # Of who lives nothing is taken out, whoever thinks otherwise.
        await two.beat("two", 60)
        await two.write([("dev ü:1", 300)])
        assert await one.forget([("dev ü:1", B), ("other", A)]) == {B}
        assert await one.owners(["dev ü:1"]) == [{B: b"300"}]
        await two.leave()
        await one.forget([("dev ü:1", B)])

    staged(redis.url, scenario)
    assert redis.command("KEYS", "connman:n:*") == b"*0\r\n"


def test_a_name_expires_when_nobody_writes_it_again(redis: RedisServer) -> None:
    async def scenario(one: Store, _: Store) -> None:
        await one.write([("device", 100)])
        left = int(redis.command("TTL", one.name_key("device"))[1:])
        assert 3500 < left <= 3600
        await one.write([("device", None)])

    staged(redis.url, scenario)


def test_a_relay_lives_as_long_as_its_beats_go_on(redis: RedisServer) -> None:
    async def scenario(one: Store, two: Store) -> None:
        await two.beat("two", 0.05)
        assert await one.beat("one", 60) in (
            [RelayInfo(A, "one")],
            [RelayInfo(A, "one"), RelayInfo(B, "two")],
        )
        while len(await one.beat("one", 60)) == 2:
            await asyncio.sleep(0.01)
        await two.beat("two", 60)
        assert await one.beat("one", 60) == [RelayInfo(A, "one"), RelayInfo(B, "two")]
        await two.leave()
        assert await one.beat("one", 60) == [RelayInfo(A, "one")]
        await one.leave()

    staged(redis.url, scenario)


def test_what_another_client_writes_ends_no_beat(redis: RedisServer) -> None:
    async def scenario(one: Store, _: Store) -> None:
        redis.command("SADD", "connman:relays", "x")
        redis.command("SETRANGE", "connman:r:78", "0", "r\x00")
        redis.command("SETBIT", "connman:r:78", "0", "1")  # not UTF-8 any more
        redis.command("SADD", "connman:relays", "y")
        redis.command("SET", "connman:r:79", "long" * 1000)
        redis.command("SADD", "connman:relays", "z")
        redis.command("LPUSH", "connman:r:7a", "no text at all")
        seen = {relay.id: relay.address for relay in await one.beat("one", 60)}
        assert seen == {A: "one", b"x": "\ufffd\x00", b"y": "long" * 64}

    staged(redis.url, scenario)


def test_a_redis_that_has_forgotten_a_relay_is_noticed(redis: RedisServer) -> None:
    async def scenario(one: Store, _: Store) -> None:
        known = []
        for _ in range(2):
            await one.beat("one", 60)
            known.append(one.was_unknown)
        redis.command("FLUSHALL")
        await one.beat("one", 60)
        known.append(one.was_unknown)
        assert known == [True, False, True]
        await one.leave()

    staged(redis.url, scenario)


def test_batches_arrive_in_order_and_who_listens_is_told(redis: RedisServer) -> None:
    async def scenario(one: Store, two: Store) -> None:
        ready, heard = asyncio.Event(), list[bytes]()
        listening = asyncio.create_task(two.subscribe(ready.set, heard.append))
        await ready.wait()
        big = bytes(300_000)
        assert await one.publish([(B, b"1"), (A, b"nobody"), (B, big)]) == [1, 0, 1]
        assert await one.publish([(B, b"\xff\r\n")]) == [1]
        while len(heard) < 3:
            await asyncio.sleep(0)
        assert heard == [b"1", big, b"\xff\r\n"]
        listening.cancel()

    staged(redis.url, scenario)


def test_two_clusters_may_share_a_redis(redis: RedisServer) -> None:
    async def first(one: Store, _: Store) -> None:
        await one.write([("device", 1)])

    async def second(one: Store, _: Store) -> None:
        assert await one.owners(["device"]) == [{}]

    staged(redis.url, first, prefix="one")
    staged(redis.url, second, prefix="two")


def test_a_redis_that_does_not_answer_is_told_within_the_timeout(redis: RedisServer) -> None:
    async def scenario(one: Store, _: Store) -> None:
        await one.beat("one", 60)
        redis.suspend()
        try:
            with pytest.raises(failures()):
                await one.publish([(A, b"x")])
        finally:
            redis.resume()

    staged(redis.url, scenario, timeout=0.2)


def test_a_password_is_used_and_a_wrong_one_is_a_refusal() -> None:
    async def scenario(one: Store, _: Store) -> None:
        await one.beat("one", 60)

    async def refused(one: Store, _: Store) -> None:
        with pytest.raises(failures()) as caught:
            await one.beat("one", 60)
        assert "username-password" in (refusal(caught.value) or "")

    with RedisServer("--requirepass", "se:cr/et") as server:
        staged(f"unix://:se%3Acr%2Fet@{server.path}", scenario)
        staged(f"unix://:wrong@{server.path}", refused)


def test_rediss_is_tls_and_the_certificate_is_looked_at(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(authority))
    leaf = AUTHORITY.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    words = {
        "cert-file": tmp_path / "cert.pem",
        "key-file": tmp_path / "key.pem",
        "auth-clients": "no",
    }
    options = [str(word) for name, value in words.items() for word in (f"--tls-{name}", value)]

    async def scenario(one: Store, _: Store) -> None:
        assert await one.beat("one", 60) == [RelayInfo(A, "one")]
        await one.leave()

    async def refused(one: Store, _: Store) -> None:
        with pytest.raises(failures()):
            await one.beat("one", 60)

    with ExitStack() as stack:
        port = stack.enter_context(held_port())
        options += ["--tls-port", str(port)]
        try:
            stack.enter_context(RedisServer("--tls-ca-cert-file", str(authority), *options))
        except NotStarted:
            pytest.skip("this redis-server was built without TLS")
        staged(f"rediss://localhost:{port}/?ssl_ca_certs={authority}", scenario)
        staged(f"rediss://127.0.0.1:{port}/?ssl_ca_certs={authority}", refused)  # another name
        staged(f"rediss://localhost:{port}", refused)  # an authority that is not known


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://", "redis://"),
        ("redis://host", "redis://host"),
        ("redis://:sec/ret@host", "(its address)"),
        ("unix://:sec/ret@/path", "(its address)"),
        ("nonsense", "(its address)"),
        ("redis://user:secret@host:6379/1?password=hidden", "redis://host:6379/1"),
        ("rediss://:secret@[::1]:6380", "rediss://[::1]:6380"),
        ("unix://user:p%40ss@/run/redis.sock?db=2", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@host",
        "secret",
        "redis://:secret@host:port",
        "redis://host?socket_timeout=secret",
        "redis://host?option=secret",
        "redis://:sec/secret@host",
        "redis://[secret",
    ],
)
def test_what_is_no_address_of_a_broker_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Store(url, prefix="connman", here=A, timeout=1)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_the_package_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["redis"] = sys.modules["redis.asyncio"] = None
from connman.relay import RedisBroker
try:
    RedisBroker("redis://host")
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "ConnmanError a broker needs the redis package: pip install 'connman[relay]'\n"
