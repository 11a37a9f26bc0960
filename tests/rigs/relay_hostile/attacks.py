"""What bad clients do to a relay. Each attack returns what came back, counted, and says which of it may come."""

import contextlib
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.relay.jwts import forged, public_pem, rsa_key, signed
from tests.rigs.relay_hostile.client import BINARY, CLOSE, PING, PONG, TEXT, Client, frame, upgrade
from tests.rigs.relay_hostile.relay import LIMITS, MESSAGE, SECRET

EVIL = "evil"
HANDS = 16  # threads that attack at a time


@dataclass
class Target:
    """A relay, what opens its door to the bad, how hard to hit it (1 is full size), and what has come of it."""

    port: int
    admin: int
    size: float = 1.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def __post_init__(self) -> None:
        self._sources = 1
        self._lock = threading.Lock()
        self.token = token([EVIL + "*"])

    def many(self, number: int) -> int:
        return max(1, round(number * self.size))

    def source(self) -> str:
        """Return the next address of the bad, of 200: none of them is the honest pair's."""
        with self._lock:
            self._sources = self._sources % 200 + 1
            return f"127.0.1.{self._sources}"

    def client(self, source: str | None = None) -> Client:
        return Client(self.port, source or self.source())


def token(patterns: list[str], **claims: object) -> str:
    return signed(
        SECRET.encode(), **{"provide": patterns, "reach": patterns, "exp": time.time() + 3600} | claims
    )


@dataclass(frozen=True)
class Attack:
    """`run` does it; `allowed` is a pattern that each of its outcomes has to fit; `wanted`: one that must occur."""

    run: Callable[[Target], Counter[str]]
    allowed: str
    wanted: str = ""

    def complaints(self, found: Counter[str]) -> list[str]:
        wrong = [
            f"{outcome!r} {count} times"
            for outcome, count in found.items()
            if not re.fullmatch(self.allowed, outcome)
        ]
        if self.wanted and not any(re.fullmatch(self.wanted, outcome) for outcome in found):
            wrong.append(f"never {self.wanted!r}")
        return wrong


def each(work: Callable[[int], str], number: int) -> Counter[str]:
    """Do it so many times, on a few threads, and count how it ended."""
    with ThreadPoolExecutor(HANDS) as hands:
        return Counter(hands.map(work, range(number)))


def control(command: str, name: str = EVIL, **more: object) -> bytes:
    return frame(TEXT, json.dumps({"command": command, "name": name} | more).encode())


READY = frame(TEXT, b'{"command":"ready"}')


@contextmanager
def evil_pair(target: Target, name: str) -> Iterator[tuple[Client, Client]]:
    """Join two of the bad: caller and provider."""
    with ExitStack() as stack:
        provider = stack.enter_context(target.client()).upgraded(target.token)
        provider.send(control("provide", name))
        assert provider.frame() == (TEXT, b'{"command":"provided"}')
        caller = stack.enter_context(target.client()).upgraded(target.token)
        caller.send(control("reach", name))
        assert provider.frame() == (TEXT, b'{"command":"handover"}')
        provider.send(READY)
        assert caller.frame() == (TEXT, b'{"command":"reached"}')
        yield caller, provider


# Frames


def mutated(chance: random.Random) -> bytes:
    """Return a frame that was good and has been spoilt, or bytes that never were one."""
    good = chance.choice(
        [
            control("provide", EVIL + "-m"), control("reach", EVIL + "-n"), READY, frame(PING, b"x"), frame(PONG, b""),
            frame(TEXT, b'{"self":"evil-a","other":"evil-b"}'), frame(BINARY, chance.randbytes(300)),
            frame(TEXT, "ä♥".encode()), frame(CLOSE, struct.pack("!H", chance.randrange(5100)) + b"why"),
            frame(0, b"rest"), frame(TEXT, b"begin", fin=False),
        ]
    )  # fmt: skip
    raw = bytearray(good)
    match chance.randrange(8):
        case 0:
            return chance.randbytes(chance.randrange(1, 200))
        case 1:
            return bytes(raw[: chance.randrange(1, len(raw))])
        case 2:
            return frame(chance.randrange(16), b"x" * chance.randrange(300), rsv=chance.randrange(8))
        case 3:
            return frame(TEXT, b"{" * chance.randrange(5000), masked=chance.random() < 0.5)
        case 4:
            return good
    for _ in range(chance.randrange(1, 6)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


# Whoever says goodbye is answered with the code that it chose.
CLOSES = r"closed( (10\d\d|[34]\d\d\d))?|cut"


def frames_before(target: Target) -> Counter[str]:
    """Up to ten of them on a connection, before it is anybody."""

    def one(number: int) -> str:
        chance = random.Random(target.chance.random() + number)
        with target.client() as client:
            client.upgraded(target.token)
            for _ in range(10):
                if not client.send(mutated(chance)):
                    break
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_WR)
            return client.outcome()

    return each(one, target.many(500))


def frames_after(target: Target) -> Counter[str]:
    """Twenty of them on a pair of the bad, from both of its ends."""

    def one(number: int) -> str:
        chance = random.Random(target.chance.random() + number)
        with evil_pair(target, f"{EVIL}-pair-{number}") as pair:
            for _ in range(20):
                if not chance.choice(pair).send(mutated(chance)):
                    break
            for client in pair:
                with contextlib.suppress(OSError):
                    client.socket.shutdown(socket.SHUT_WR)
            outcomes = {client.outcome() for client in pair}
            return "silent" if "silent" in outcomes else min(outcomes)

    return each(one, target.many(250))


def oversized(target: Target) -> Counter[str]:
    """Messages beyond the limit: said to be, in one frame, in fragments without end; and first messages of a MiB."""
    huge = [
        struct.pack("!BBQI", 0x82, 0xFF, 2**30, 0),
        struct.pack("!BBQI", 0x82, 0xFF, 2**63, 0),
        struct.pack("!BBQI", 0x82, 0xFF, MESSAGE + 1, 0),
        frame(BINARY, bytes(MESSAGE), fin=False) + frame(0, b"xx", fin=False),
        frame(BINARY, b"x", fin=False) + frame(0, bytes(60_000), fin=False) * 20,
        frame(PING, bytes(200)),
    ]

    def joined(number: int) -> str:
        with evil_pair(target, f"{EVIL}-big-{number}") as (caller, provider):
            caller.send(huge[number % len(huge)])
            provider.outcome()
            return caller.outcome()

    def first(number: int) -> str:
        with target.client() as client:
            client.upgraded(target.token).send(
                frame(TEXT, b" " * MESSAGE) if number % 2 else huge[number % 3]
            )
            return client.outcome()

    return each(joined, target.many(60)) + each(first, target.many(60))


def control_flood(target: Target) -> Counter[str]:
    """Pings by the thousand whose answers nobody reads, and closes in twos."""

    def one(number: int) -> str:
        with target.client() as client:
            client.upgraded(target.token).send(control("provide", f"{EVIL}-ping-{number}"))
            for _ in range(target.many(100)):
                if not client.send(frame(PING, bytes(125)) * 100):
                    break
            client.send(frame(CLOSE, b"") * 2)
            return client.outcome()

    return each(one, target.many(20))


# Heads


def bad_heads(target: Target) -> Counter[str]:
    """What is no upgrade: other protocols, other versions, header lines without end, smuggled requests."""
    heads = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        upgrade().replace(b"GET", b"POST"),
        upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
        upgrade(Sec_WebSocket_Version="8"),
        upgrade(Sec_WebSocket_Key="short"),
        upgrade(Connection="keep-alive"),
        upgrade(Transfer_Encoding="chunked"),
        upgrade(Content_Length="5") + b"hello",
        upgrade(Host=""),
        upgrade() .replace(b"Host: ", b"Host: a\r\nHost: "),
        upgrade(X="a\x00b"),
        upgrade(X="a\rb"),
        b"\r\n" * 10_000,
        bytes(100),
        upgrade()[:-2] + b" folded: x\r\n\r\n",
    ]  # fmt: skip

    def one(number: int) -> str:
        with target.client() as client:
            client.send(heads[number % len(heads)])
            return client.answer()

    return each(one, max(len(heads), target.many(300)))


def slow_heads(target: Target) -> Counter[str]:
    """A good head, a byte at a time: never silent, never done."""
    with ExitStack() as stack:
        clients = [stack.enter_context(target.client()) for _ in range(target.many(200))]
        head = upgrade(target.token)
        living = list(clients)
        end = time.monotonic() + LIMITS.handshake_timeout + 2.0
        pause = threading.Event()
        for place in range(len(head) - 1):
            living = [client for client in living if client.send(head[place : place + 1])]
            if not living or time.monotonic() > end:
                break
            pause.wait(0.1)
        return Counter("silent" if client in living else "cut" for client in clients)


def flood(target: Target) -> Counter[str]:
    """Sockets that say nothing, sockets that say half, WebSockets that do not say who they are: all at once."""
    with ExitStack() as stack:
        kinds = [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", upgrade(), upgrade(target.token)]
        clients = []
        for number in range(target.many(500)):
            client = stack.enter_context(target.client())
            client.send(kinds[number % len(kinds)])
            clients.append(client)
        return Counter(client.answer() for client in clients)


def churn(target: Target) -> Counter[str]:
    """Come in and go at once, again and again: with a reset, without a word, or before the answer is there."""

    def one(number: int) -> str:
        with target.client() as client:
            client.send(upgrade(target.token))
            if number % 4:
                client.status()
            if number % 2:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return "gone"

    return each(one, target.many(3000))


# Who may come in


def bad_tokens(target: Target) -> Counter[str]:
    """Wrong, expired, unsigned, signed by others or with the wrong algorithm, cut, endless; in the head or the first frame."""
    soon = {"provide": ["*"], "reach": ["*"], "exp": time.time() + 3600}
    tokens = [
        "x", "a.b.c", "", "x" * 8000, target.token[:-5], target.token + "x", target.token.upper(),
        token(["*"], exp=time.time() - 100), token(["*"], nbf=time.time() + 1000), token(["*"], exp=None),
        token(["*"], aud="elsewhere"), signed(b"another secret of thirty-two bytes", **soon),
        signed(rsa_key(), **soon), forged({"alg": "none"}, soon), forged({"alg": "None"}, soon, SECRET.encode()),
        forged({"alg": "HS512"}, soon, SECRET.encode()), forged({"alg": "RS256"}, soon, SECRET.encode()),
        forged({"alg": ["HS256"]}, soon, SECRET.encode()), forged({"alg": "HS256"}, soon, public_pem(rsa_key())),
        forged({"alg": "HS256"}, b"[" * 4000, SECRET.encode()), forged(b"{" * 4000, soon),
        forged({"alg": "HS256", "crit": ["exp"]}, soon, SECRET.encode()),
    ]  # fmt: skip

    def one(number: int) -> str:
        bad = tokens[number // 2 % len(tokens)]
        with target.client() as client:
            if number % 2 and bad:
                client.send(upgrade(bad))
                return client.answer()
            client.upgraded().send(control("reach", "honest", token=bad or None))
            return client.outcome()

    return each(one, max(2, target.many(20)) * len(tokens))


def bad_names(target: Target) -> Counter[str]:
    """Names with odd characters, of odd kinds and lengths; and the honest pair's, which the token does not allow."""
    names: list[object] = [
        "", "x" * 129, "a\x00b", "a\nb", "a\x1b[31mb", "\x7f", "\u202eevil", "\u200b", "\ud800", "a\u2028b",
        None, 1, 1.5, True, [], {}, ["evil"], "honest", "HONEST", "honest ", "*", "../honest", "evil\x00/../honest",
        "ev\u0131l", "%s%s%n", "'; DROP TABLE names; --", "<script>", "\ufeffevil", "evil\u0301\u0301",
    ]  # fmt: skip

    def one(number: int) -> str:
        command = ("provide", "reach")[number % 2]
        name = names[number // 2 % len(names)]
        with target.client() as client:
            message = json.dumps({"command": command, "name": name}).encode()
            client.upgraded(target.token).send(frame(TEXT, message))
            # The last of the names is one that may be: it waits, until its goodbye is answered.
            client.send(frame(CLOSE, struct.pack("!H", 1000)))
            return client.outcome()

    return each(one, max(2, target.many(10)) * len(names))


def origins(target: Target) -> Counter[str]:
    """Pages of others, and of no origin."""
    evil = ["https://evil.example", "null", "https://good.example.evil.example", "http://good.example",
            "https://good.example:444", "https://user@good.example", "good.example", "https://good.example/", "*"]  # fmt: skip

    def one(number: int) -> str:
        with target.client() as client:
            client.send(upgrade(target.token, Origin=evil[number % len(evil)]))
            return client.answer()

    return each(one, target.many(20) * len(evil))


def spoofed(target: Target) -> Counter[str]:
    """One address that says with each attempt that it is another one, the honest pair's among them."""

    def one(number: int) -> str:
        claimed = "127.0.0.1" if number % 2 else f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        with target.client("127.0.2.1") as client:
            client.send(
                upgrade("wrong", X_Forwarded_For=claimed, Forwarded=f"for={claimed}", X_Real_IP=claimed)
            )
            return client.answer()

    found = each(one, max(LIMITS.burst + 100, target.many(2000)))
    # What is allowed grows while it is used up: how many tries that takes depends on how fast they come.
    end = time.monotonic() + 20.0
    while "HTTP 429" not in found and time.monotonic() < end:
        found += each(one, LIMITS.burst)
    return found


# Reading nothing


def reads_nothing(target: Target) -> Counter[str]:
    """A provider that never reads, and a caller that sends for as long as it is let; then the other way round."""

    def one(number: int) -> str:
        with evil_pair(target, f"{EVIL}-deaf-{number}") as pair:
            talker, _ = pair if number % 2 else reversed(pair)
            talker.socket.settimeout(1.0)
            sent = 0
            message = frame(BINARY, bytes(65536))
            try:
                while sent < target.many(256 * 1024 * 1024):
                    talker.socket.sendall(message)
                    sent += len(message)
            except TimeoutError:
                return "stopped"
            except ConnectionError:
                return "cut"
            return "taken whole"

    return each(one, target.many(16))


def tiny_frames(target: Target) -> Counter[str]:
    """Four pairs of the bad that send the smallest frames there are, as fast as the relay takes them."""
    chunk = frame(BINARY, b"") * 10_000
    end = time.monotonic() + 3.0 * min(1.0, target.size)

    def send(caller: Client, provider: Client) -> str:
        reader = threading.Thread(target=drain, args=(provider.socket,))
        reader.start()
        while time.monotonic() < end and caller.send(chunk):
            pass
        caller.send(frame(CLOSE, b""))
        reader.join()
        return caller.outcome()

    with ExitStack() as stack:
        pairs = [stack.enter_context(evil_pair(target, f"{EVIL}-tiny-{number}")) for number in range(4)]
        with ThreadPoolExecutor(4) as hands:
            return Counter(hands.map(send, *zip(*pairs, strict=True)))


def drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(1 << 20):
            pass


def admin_port(target: Target) -> Counter[str]:
    """Slow clients on the other port, which has to go on answering."""
    with ExitStack() as stack:
        for _ in range(target.many(100)):
            client = stack.enter_context(Client(target.admin, "127.0.0.1"))
            client.send(b"GET / HT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{target.admin}/healthz", timeout=5) as answer:
            return Counter([f"HTTP {answer.status}"])


ATTACKS = {
    "frames-before": Attack(frames_before, CLOSES),
    "frames-after": Attack(frames_after, CLOSES),
    "oversized": Attack(oversized, r"closed (1009|1002|4000|4001)|cut", r"closed 1009"),
    "control-flood": Attack(control_flood, CLOSES),
    "bad-heads": Attack(bad_heads, r"HTTP 4\d\d|HTTP 505|cut", r"HTTP 431"),
    "slow-heads": Attack(slow_heads, "cut"),
    "flood": Attack(flood, r"closed 4108|closed 3000|cut|HTTP 429", "closed 4108"),
    "churn": Attack(churn, "gone"),
    "bad-tokens": Attack(bad_tokens, r"HTTP 40[01]|HTTP 431|closed (3000|4001|1009)|cut", "closed 3000"),
    # 4102, 4104, 4110: who provides the last of the names and who reaches it have met, and one of them has left.
    "bad-names": Attack(bad_names, r"closed (4001|3003|1000|4102|4104|4110|4000)", "closed 3003"),
    "origins": Attack(origins, "HTTP 403"),
    "spoofed": Attack(spoofed, r"HTTP (401|429)|cut", "HTTP 429"),
    "reads-nothing": Attack(reads_nothing, "stopped|cut"),
    "tiny-frames": Attack(tiny_frames, CLOSES),
    "admin-port": Attack(admin_port, "HTTP 200"),
}
