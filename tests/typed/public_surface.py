"""Every public name, used as a user would and checked by `mypy --strict` in scripts/check; nothing here is run.

`assert_type` pins what comes out. A `type: ignore` pins that a wrong use is flagged: mypy complains of one it does not need.
"""

import ssl
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, assert_type

import tenacity

import connman
from connman import errors, testing
from connman.integrations import pusher
from connman.records import Step

URL = "wss://feed.example.com/ticks"


# The relay


class OwnTokens:
    def check(self, token: str | None) -> connman.relay.Grant:
        if token is None:
            raise connman.relay.TokenRefused("a token is needed")
        return connman.relay.Grant(provide=("device-*",), reach=(), expires=1e10)


def the_tokens() -> list[connman.relay.Tokens]:
    return [
        OwnTokens(),
        connman.relay.NoTokens(),
        connman.relay.TokenFile("tokens"),
        connman.relay.JwtTokens(Path("key"), algorithms=["RS256"], audience="relay", issuer="us", leeway=5.0),
        connman.relay.JwtTokens(b"a secret of 32 bytes at the least"),
    ]


def a_relay(tokens: connman.relay.Tokens, broker: connman.relay.Broker) -> connman.relay.Relay:
    return connman.relay.Relay(
        "127.0.0.1", 8765, tokens=tokens, limits=connman.relay.Limits(max_names=7), tls=("chain", "key"),
        origins=["https://example.com"], hosts=["relay"], trusted_proxies=["10.0.0.0/8"], broker=broker,
        admin=("127.0.0.1", 9100), admin_names=True,
    )  # fmt: skip


def run_a_relay() -> None:
    try:
        with a_relay(OwnTokens(), connman.relay.RedisBroker("redis://127.0.0.1")) as relay:
            assert_type(relay, connman.relay.Relay)
            assert_type(relay.url, str)
            assert_type(relay.port, int)
            assert_type(relay.admin_url, str | None)
            assert_type(relay.names(), list[tuple[str, int, int]])
            connman.relay.RelayCollector(relay.snapshot)
            assert_type(relay.stop(5.0, timeout=10.0), bool)
    except connman.relay.RelayFailed:
        return


def what_it_does(taken: connman.relay.Snapshot) -> float:
    taken.pairs = 7  # type: ignore[misc]
    assert_type(taken.rates, tuple[connman.relay.Rate, ...])
    assert_type(taken.relays, tuple[connman.relay.RelaySeen, ...])
    assert_type(taken.refused["token"], int)
    assert_type(taken.is_healthy, bool)
    return taken.rates[-1].frames + taken.relays[0].age


async def a_broker(host: connman.relay.BrokerHost, broker: connman.relay.Broker) -> int:
    await broker.start(host)
    try:
        assert_type(await broker.open_remote("device"), connman.relay.RemoteSide | None)
    except connman.relay.BrokerLost:
        return 0
    except connman.relay.RemoteRefused as refused:
        return refused.code
    return len(broker.relays())


# Connections


def opened(conn: connman.Connection) -> None:
    assert_type(conn.generation, int)


def received(conn: connman.Connection, message: connman.Message) -> None:
    assert_type(message, str | bytes)
    conn.send(message)


def was_reset(
    conn: connman.Connection, reset: connman.Reset
) -> Callable[[connman.Connection], object] | None:
    return opened if reset.opened else None


def log_in(channel: connman.Channel) -> None:
    channel.send("password")
    channel.send(b"\x00")
    assert_type(channel.recv(), str | bytes)
    assert_type(channel.recv(timeout=1), str | bytes)
    if channel.recv(None) == "never":
        raise connman.Fatal("no such user")


def fresh_headers() -> dict[str, str]:
    return {"Authorization": "Bearer token"}


def every_option() -> connman.Connection:
    return connman.connect(
        URL,
        on_open=opened,
        on_data=received,
        on_reset=was_reset,
        handshake=log_in,
        name="ticks",
        clock=testing.FakeClock(),
        reconnect=True,
        wait=tenacity.wait_fixed(1) + tenacity.wait_random(0, 1),
        stop=tenacity.stop_after_delay(60) | tenacity.stop_after_attempt(5),
        stable_after=0,
        open_timeout=10,
        handshake_timeout=10.0,
        close_timeout=5,
        send_timeout=30,
        ping_interval=None,
        ping_timeout=20,
        max_message_size=1 << 20,
        retry_if=lambda error: None if isinstance(error, connman.ConnmanError) else False,
        headers=fresh_headers,
        subprotocols=["v2", "v1"],
        compression=None,
        ssl_context=ssl.create_default_context(),
        proxy=None,
        framing=None,
        dispatch="thread",
    )


def values_of_options() -> None:
    connman.connect(("127.0.0.1", 5000), framing=connman.lines(b"\r\n", encoding="utf-8"))
    connman.connect("tls://h:1", framing=connman.length_prefixed(2, "little"), proxy="socks5h://p:1080")
    connman.connect(URL, headers={"A": "1"}, subprotocols=("v1",), proxy=...)
    connman.connect(URL, headers=[("A", "1"), ("A", "2")], on_data=print, on_open=None)
    connman.connect(URL, on_open=lambda conn: conn.send("hello"), on_reset=lambda conn, reset: None)


def wrong_options() -> None:
    def takes_nothing() -> None: ...
    def takes_numbers(conn: connman.Connection, message: int) -> None: ...

    connman.connect(URL, on_open=takes_nothing)  # type: ignore[arg-type]
    connman.connect(URL, on_data=takes_numbers)  # type: ignore[arg-type]
    connman.connect(URL, on_reset=received)  # type: ignore[arg-type]
    connman.connect(URL, handshake=opened)  # type: ignore[arg-type]
    connman.connect(URL, wait=1.0)  # type: ignore[arg-type]
    connman.connect(URL, retry_if=True)  # type: ignore[arg-type]
    connman.connect(URL, dispatch="process")  # type: ignore[arg-type]
    connman.connect(URL, open_timeout=None)  # type: ignore[arg-type]
    connman.connect(URL, framing=connman.lines)  # type: ignore[arg-type]
    connman.connect(URL, colour="red")  # type: ignore[call-arg]
    connman.Connection(URL, opened)  # type: ignore[call-arg]
    connman.Connection()  # type: ignore[call-arg]


def a_connection() -> None:
    conn = connman.Connection(URL)
    assert_type(conn.connect(), connman.Connection)
    assert_type(conn.get_connected().result(), connman.Connection)
    assert_type(conn.get_connected().result(timeout=5), connman.Connection)
    assert_type(conn.get_connected().exception(5), BaseException | None)
    future: Future[connman.Connection] = conn.get_connected()
    future.add_done_callback(lambda done: done.result().send("first"))
    assert_type(conn.wait_open(), connman.Connection)
    assert_type(conn.wait_open(timeout=5), connman.Connection)
    conn.wait_closed(timeout=None)
    conn.reconnect_now()
    with conn as same:
        assert_type(same, connman.Connection)
    conn.disconnect()
    conn.disconnect(1001, "done", timeout=2)
    conn.close()


def messages(conn: connman.Connection) -> None:
    conn.send("text")
    conn.send(b"bytes", wait=5)
    conn.send(bytearray(b"bytes"))
    conn.send(memoryview(b"bytes"))
    conn.send_many(["one", b"two"])
    conn.send_many((str(number) for number in range(3)), wait=5)
    conn.send(1)  # type: ignore[arg-type]
    conn.send("text", 5)  # type: ignore[call-arg]
    conn.send_many([1])  # type: ignore[list-item]
    assert_type(conn.recv(), str | bytes)
    assert_type(conn.recv(timeout=5), str | bytes)
    for message in conn:
        assert_type(message, str | bytes)


def what_a_connection_tells(conn: connman.Connection) -> None:
    assert_type(conn.state, connman.State)
    assert_type(conn.is_open, bool)
    assert_type(conn.id, int)
    assert_type(conn.name, str)
    assert_type(conn.generation, int)
    assert_type(conn.last_error, Exception | None)
    assert_type(conn.transport_name, str | None)
    assert_type(conn.subprotocol, str | None)
    assert_type(conn.stats, connman.Stats)
    conn.state = connman.State.OPEN  # type: ignore[misc]


def states(state: connman.State) -> str:
    match state:
        case connman.State.IDLE | connman.State.CONNECTING | connman.State.WAITING:
            return "not yet"
        case connman.State.OPEN:
            return "now"
        case connman.State.CLOSED:
            return "no more"


# Records


def a_reset(reset: connman.Reset) -> None:
    assert_type(reset.opened, bool)
    assert_type(reset.error, Exception)
    assert_type(reset.code, int | None)
    assert_type(reset.reason, str)
    assert_type(reset.attempt, int)
    assert_type(reset.retry_in, float | None)
    assert_type(reset.generation, int)
    reset.attempt = 0  # type: ignore[misc]


def counts(stats: connman.Stats) -> None:
    assert_type(stats.messages_in + stats.messages_out + stats.bytes_in + stats.bytes_out, int)
    assert_type(stats.opens + stats.losses + stats.failed_attempts + stats.callback_errors, int)
    assert_type(stats.last_error, str | None)
    assert_type(stats.ping_rtt, float | None)
    assert_type(stats.uptime, float)
    stats.opens = 0  # type: ignore[misc]


def counts_of_a_pool(stats: connman.PoolStats) -> None:
    assert_type(stats.size + stats.open + stats.leased + stats.waiters + stats.leases, int)
    assert_type(stats.total, connman.Stats)


# Pools and managers


def a_pool() -> None:
    pool = connman.Pool("feeds", url=URL, size=4, on_data=received, ping_interval=5)
    with pool as same:
        assert_type(same, connman.Pool)
    with pool.connection() as conn:
        assert_type(conn, connman.Connection)
    with pool.connection(timeout=None) as conn:
        conn.send("x")
    assert_type(pool.connect(), connman.Pool)
    assert_type(pool.wait_open(5), connman.Pool)
    assert_type(pool.add_connection(URL, on_open=opened, name="one"), connman.Connection)
    assert_type(pool.get_connections(), list[connman.Connection])
    assert_type(pool.broadcast("x"), int)
    assert_type(pool.stats, connman.PoolStats)
    assert_type(pool.is_closed, bool)
    assert_type(pool.name, str | None)
    pool.disconnect(timeout=2)
    pool.close()
    connman.Pool(url=URL, size=4, colour="red")  # type: ignore[call-arg]
    pool.add_connection(URL, on_open=received)  # type: ignore[arg-type]


def a_manager() -> None:
    with connman.Manager() as manager:
        assert_type(manager, connman.Manager)
        assert_type(manager.connect(URL, on_data=received), connman.Connection)
        assert_type(manager.get_connection(URL), connman.Connection | None)
        assert_type(manager.create_pool("feeds", url=URL, size=2), connman.Pool)
        assert_type(manager.get_pool("feeds"), connman.Pool | None)
        manager.disconnect_all(timeout=2)
    manager.connect(URL, on_data=opened)  # type: ignore[arg-type]
    manager.disconnect_all(None)  # type: ignore[arg-type]


def the_default_manager() -> None:
    assert_type(connman.connect(URL), connman.Connection)
    assert_type(connman.get_connection(("127.0.0.1", 5000)), connman.Connection | None)
    assert_type(connman.create_pool("feeds"), connman.Pool)
    assert_type(connman.get_pool("feeds"), connman.Pool | None)
    connman.disconnect_all(timeout=2)
    assert_type(connman.__version__, str)


# Errors


def attempts_that_fail(error: errors.ConnectError) -> None:
    assert_type(error.endpoint, str)
    assert_type(error.message, str)
    assert_type(error.attempts, tuple[Step, ...])
    for step in error.attempts:
        assert_type((step.phase, step.address, step.seconds, step.cause), tuple[str, str, float, str | None])
    if isinstance(error, errors.UpgradeRefused):
        assert_type((error.status, error.headers, error.body), tuple[int, dict[str, str], bytes])
    if isinstance(error, errors.ProxyRefused):
        assert_type(error.status, int | None)
    if isinstance(error, errors.BadUpgrade):
        assert_type(error.code, int | None)


def attributes_of_errors() -> None:
    closed, lost = errors.ConnectionClosed(1000, "bye"), errors.ConnectionLost("gone", sent=3)
    assert_type((closed.code, closed.reason), tuple[int | None, str])
    assert_type((lost.cause, lost.sent), tuple[str, int])
    assert_type(errors.SessionLost("gone", status=404).status, int | None)
    assert_type(errors.ProtocolError("no").code, int | None)
    remote = errors.RemoteError("ValueError", "no", 4)
    assert_type((remote.name, remote.message, remote.code), tuple[str, str, int | str | None])
    assert_type(errors.retry_verdict(lost), errors.Retry)
    assert_type(errors.Retry.AGAIN is errors.retry_verdict(closed), bool)


CONNECTING: list[type[errors.ConnectError]] = [
    errors.ConnectTimeout, errors.CertificateError, errors.ProxyRefused, errors.UpgradeRefused, errors.BadUpgrade,
    errors.RequestRefused, errors.HandshakeFailed, errors.HandshakeTimeout, errors.GaveUp,
]  # fmt: skip
LOSSES: list[type[errors.ConnectionLost]] = [errors.PingTimeout, errors.SendTimeout, errors.SessionLost]
OTHERS: list[type[connman.ConnmanError]] = [
    errors.NotConnected, errors.ConnectionClosed, errors.WouldDeadlock, errors.Forked, errors.InvalidTarget,
    errors.InvalidOption, errors.Fatal, errors.ConnmanError,
]  # fmt: skip
BROKEN: list[type[errors.ProtocolError]] = [errors.MessageTooBig, errors.BadUpgrade]
POOLS: list[type[errors.PoolError]] = [errors.PoolClosed, errors.PoolTimeout]
CALLS: list[type[errors.RpcError]] = [
    errors.RemoteError, errors.CallTimeout, errors.PeerGone, errors.NoSuchService, errors.NoSuchPeer,
]  # fmt: skip
TIMEOUTS: list[type[TimeoutError]] = [
    errors.ConnectTimeout, errors.HandshakeTimeout, errors.PingTimeout, errors.SendTimeout, errors.WaitTimeout,
    errors.PoolTimeout, errors.CallTimeout,
]  # fmt: skip
VALUES: list[type[ValueError]] = [errors.InvalidTarget, errors.InvalidOption]


# Strategies


def a_tree(url: str) -> None:
    ws = connman.strategy.Transport(url, name="ws", priority=3, proxy=None, headers={"A": "b"})
    tcp = connman.strategy.Transport(("127.0.0.1", 5000), enabled=True, open_timeout=2.0)
    loop = connman.strategy.Sequential(ws, loop=True, timeout=15, timeout_limit=60.0, fail_fast=False)
    tree: connman.strategy.Strategy = connman.strategy.FirstConnected(
        connman.strategy.If(
            ws.is_supported,
            connman.strategy.BestConnected(loop, connman.strategy.Delayed(tcp, 2)),
            tcp,
        )
    )
    connman.strategy.Transport(url, ping_interval=3)  # a type error would be welcome; it is a TypeError
    conn = connman.connect(tree)
    assert_type(
        [(step.leaf, step.start, step.seconds) for step in conn.attempts], list[tuple[str, float, float]]
    )
    assert_type((tree.is_supported(), tree.describe()), tuple[bool, str])
    assert_type([leaf.name for leaf in tree.leaves()], list[str])


def a_tree_by_hand(tree: connman.strategy.Strategy) -> None:
    def called_back(result: connman.strategy.Result) -> None:
        if isinstance(result, connman.strategy.Opened):
            assert_type((result.name, result.priority), tuple[str, int])
            result.transport.dispose()
        else:
            assert_type(result, connman.ConnmanError)

    runner = tree.connect(called_back, min_priority=1)
    assert_type(runner, connman.strategy.Runner)
    runner.force_min_priority(3)
    runner.abort()


class Mine(connman.strategy.Strategy):
    def start(
        self, run: connman.strategy.Run, report: connman.strategy.Report, min_priority: int
    ) -> connman.strategy.Runner:
        return run.start(self.children[0], report, min_priority)


# Tools for tests


def play_the_server(peer: testing.Peer) -> None:
    assert_type(peer.recv(timeout=1), str | bytes)
    peer.send("hello")
    assert_type(peer.is_closed, bool)
    assert_type(peer.wait_closed(1), connman.ConnmanError)
    peer.listen()
    peer.close(1000, "bye")
    peer.drop()


def a_scripted_server() -> None:
    clock = testing.FakeClock(start=100)
    dialer = testing.ScriptedDialer(
        [ConnectionRefusedError, errors.UpgradeRefused(503), testing.ScriptedDialer.OPEN, play_the_server]
    )
    conn = connman.connect(dialer, clock=clock)
    clock.wait_until_waiting(1, timeout=5, delays=1)
    clock.advance(0.1)
    assert_type((clock.now(), clock.delays), tuple[float, list[float]])
    dialer.wait_until_dialled(2, timeout=5)
    assert_type(dialer.next_peer(timeout=5), testing.Peer)
    assert_type([dialled.at for dialled in dialer.dials], list[float])
    testing.ScriptedDialer(lambda dial: ValueError(dial.name))
    testing.ScriptedDialer(["open"])  # type: ignore[list-item]
    conn.disconnect()


def a_bad_server() -> None:
    def script(guest: testing.Guest) -> None:
        assert_type(guest.read_request(), str)
        guest.send(guest.upgrade_head("X: y", accept=guest.accept_key()))
        guest.drip(b"x", 0.1)
        guest.drip("x")  # type: ignore[arg-type]
        guest.end()
        assert_type(guest.wait_closed(), bytes)

    testing.BadServer(script)
    testing.BadServer(lambda: None)  # type: ignore[misc, arg-type]
    with testing.BadServer(testing.Guest.upgrade, testing.Guest.stall, testing.Guest.reset) as server:
        assert_type(server, testing.BadServer)
        assert_type(server.url("/feed", scheme="http"), str)
        assert_type((server.port, server.guests), tuple[int, list[testing.Guest]])


def a_faulty_network() -> None:
    with testing.FaultProxy("127.0.0.1", 5000, seed=1) as proxy:
        assert_type(proxy, testing.FaultProxy)
        assert_type((proxy.address, proxy.port), tuple[tuple[str, int], int])
        assert_type(proxy.url("wss", "/feed"), str)
        proxy.latency = proxy.jitter = 0.1
        proxy.rate, proxy.slice = 1e6, 10
        proxy.deaf()
        proxy.deaf(False, "down")
        proxy.kill_every = 3
        proxy.websockets = "refuse"
        proxy.websockets = "sometimes"  # type: ignore[assignment]
        proxy.refuse(False)
        proxy.cut_after(100, "up")
        proxy.cut_after(100, "sideways")  # type: ignore[arg-type]
        proxy.cut()
        proxy.reset()
        assert_type(proxy.accepted + proxy.bytes_up + proxy.bytes_down + proxy.open_links, int)


# Pusher


def sign(socket_id: str, channel: str) -> str:
    return "key:signature"


def a_pusher_client() -> None:
    client = pusher.Pusher("key", cluster="eu", secret_auth=sign, cache={}, proxy=None, ping_interval=None)
    pusher.Pusher(
        "key", host="localhost", port=6001, tls=False, http=None, secret_auth=pusher.SecretAuth("key", "s")
    )
    pusher.Pusher(
        "key", host="localhost", secret_auth=pusher.HttpAuth("https://h/", headers={"A": "b"}, timeout=1)
    )
    pusher.Pusher("key", host=7)  # type: ignore[arg-type]
    channel = client.subscribe("presence-x").bind("e", print).bind_all(lambda event: print(event.user_id))
    assert_type(channel, pusher.PusherChannel)
    channel.unbind("e", print).unbind_all()
    channel.trigger("client-e", {"a": 1})
    if isinstance(channel, pusher.PrivateChannel | pusher.PresenceChannel):
        assert_type(channel.is_subscribed, bool)
    if isinstance(channel, pusher.PresenceChannel):
        assert_type(channel.members, pusher.Members)
        assert_type(channel.members.me, pusher.Member | None)
    assert_type(client.connection, pusher.PusherConnection)
    assert_type(client.state, pusher.PusherState)
    with client as same:
        assert_type(same, pusher.Pusher)
        client.reconnect_now()
        client.check_now()
        client.wait_closed(timeout=5)
    client.connect().wait_connected(timeout=1).disconnect(timeout=1)


def told_of(change: pusher.StateChange, event: pusher.Event) -> str:
    return f"{change.previous} {event.name}"


def failed_to(error: Exception) -> int | None:
    if isinstance(error, pusher.PusherError | pusher.PusherRefused):
        return error.code
    return error.status if isinstance(error, pusher.AuthError) else None


# By name, behind a relay


def a_peer(conn: connman.Connection) -> None:
    services = connman.rpc.Services({1: len, "two": max}, max_workers=4, max_waiting=9)
    with connman.rpc.Peer(conn, services=services, call_timeout=None) as peer:
        assert_type(peer, connman.rpc.Peer)
        peer.add_service("three", lambda: connman.rpc.current_peer().call("back"))
        peer.remove_service(1)
        peer.clear_services()
        assert_type(peer.send("x", 1, None, timeout=5, retry_safe=True), Future[Any])
        assert_type(peer.call(1, timeout=None), Any)
        peer.notify("x", [1], {"a": 2})
        peer.call(1, key="word")  # type: ignore[call-arg]
        assert_type(peer.conn_id, int)
        assert_type(peer.conn, connman.Connection)
        assert_type(peer.stats, connman.rpc.PeerStats)
        assert_type(peer.stats.latency_p99, float | None)
        peer.stats.bytes_sent = 1  # type: ignore[misc]
        peer.close("bye", timeout=1)
        assert_type(peer.closed, Future[connman.rpc.CloseStatus])
        status = peer.closed.result()
        assert_type(status.pending, tuple[int | str, ...])
    connman.rpc.Peer(conn, services={"a": print, 5: print}, max_workers=2)


def a_closed_peer(error: connman.rpc.PeerClosed, gone: errors.PeerGone) -> str:
    assert_type(gone.sent, bool)
    assert_type(error.status, connman.rpc.CloseStatus | None)
    return error.reason


def a_token() -> connman.rpc.Token:
    return lambda: "fresh"


def joined(peer: connman.rpc.Peer) -> None:
    peer.notify("welcome")


def a_provider(services: connman.rpc.Services) -> None:
    provider = connman.rpc.provide(
        URL, "device", {1: print, "add": lambda a, b: a + b}, token=a_token(), spares=3, max_peers=9,
        max_workers=4, call_timeout=5, on_peer=joined, manager=connman.Manager(), headers={"A": "b"}, proxy=None,
    )  # fmt: skip
    assert_type(provider, connman.rpc.Provider)
    with connman.rpc.provide(URL, "device", services, token="secret") as same:
        assert_type(same.wait_ready(timeout=1), connman.rpc.Provider)
        assert_type(same.peers, tuple[connman.rpc.Peer, ...])
        assert_type(same.services, connman.rpc.Services)
        assert_type(same.stats, connman.rpc.ProviderStats)
        assert_type(same.stats.spares + same.stats.open_spares + same.stats.peers + same.stats.handovers, int)
        assert_type(same.stats.last_error, str | None)
    provider.close(timeout=1)
    provider.wait_closed(timeout=1)
    connman.rpc.provide(URL, 7, {})  # type: ignore[arg-type]


def a_caller() -> int | None:
    peer = connman.rpc.reach(URL, "device", token="secret", services={"name": lambda: "me"}, max_workers=2)
    assert_type(peer, connman.rpc.Peer)
    try:
        peer.conn.wait_open(timeout=1)
    except errors.HandshakeFailed as error:
        return error.__cause__.code if isinstance(error.__cause__, connman.rpc.RelayRefused) else None
    return None


def streamed(peer: connman.rpc.Peer) -> bytes:
    try:
        with peer.stream("tail", "/var/log/app.log", timeout=5) as stream:
            assert_type(stream, connman.rpc.Stream)
            first: bytes = next(stream)
            rest: bytes = stream.read_all()
            return first + rest
    except connman.rpc.StreamFailed as error:
        return f"{error.name} {error.message} {error.code}".encode()
    except connman.rpc.StreamTooFast:
        return b""


def undefined(peer: connman.rpc.Peer) -> str:
    assert_type(connman.rpc.UNDEFINED, Literal[connman.rpc.Undefined.UNDEFINED])
    try:
        peer.call("set", connman.rpc.UNDEFINED, float("nan"))
    except connman.rpc.NotAllowed as error:
        return error.key + error.code
    return ""
