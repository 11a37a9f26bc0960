"""What every transport promises, whatever carries it: the one suite that all of them pass.

`Conformance` asks through the public seam, ``EndpointDialer().dial(Dial(…))``, and looks from the peer's side through
`Peer`, which shares no code with connman but for the memory transport.
"""

import abc
import contextlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from connman.clock import Deadline, SystemClock
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    MessageTooBig,
    NotConnected,
    PingTimeout,
    SendTimeout,
    WaitTimeout,
)
from connman.records import Message
from connman.transport.base import Dial, Transport
from connman.transport.openers import EndpointDialer
from tests.loopback import Aborted, in_thread, make_dial
from tests.waiting import eventually

PATIENCE = 10.0
BIG = 3_000_000
HUGE = 20_000_000  # more than all buffers on the way hold
# Nothing that compression makes smaller: it repeats itself, but too far away.
HUGE_MESSAGE = (random.Random(2).randbytes(1 << 16).translate(None, b"\r\n") * 400)[:HUGE]


class Peer(Protocol):
    """The other end. Every call blocks, and fails by itself after some seconds. It reads only in `recv`."""

    def send(self, message: Message) -> None:
        """Send one message."""

    def recv(self) -> Message:
        """Return the next message; EOFError at the end. Pings and closes are answered on the way."""

    def close(self) -> None:
        """Begin an orderly end."""

    def drop(self) -> None:
        """Break the connection without a word. Idempotent."""


class Serving(Protocol):
    """A server that runs."""

    target: object

    def accept(self) -> Peer:
        """Return the peer of the next connection that was opened."""


@dataclass(frozen=True)
class Traits:
    """In what the transports differ."""

    name: str
    has_boundaries: bool = True
    has_text: bool = False
    has_pings: bool = False
    hears_after_close: bool = True  # what the peer sends until it answers our close
    tells_drops: bool = True  # from an orderly end


class Subject(abc.ABC):
    """A transport under test."""

    traits: Traits

    @abc.abstractmethod
    def serve(self) -> contextlib.AbstractContextManager[Serving]:
        """Run a server."""

    @abc.abstractmethod
    def nowhere(self) -> contextlib.AbstractContextManager[object]:
        """Hold a target where nobody listens."""

    def options(self) -> dict[str, Any]:
        """Return what the dial wants to be told."""
        return {}

    def dial(self, target: object, **options: Any) -> Dial:
        return make_dial(target, **{"max_message_size": 2 * HUGE, **self.options(), **options})

    @contextlib.contextmanager
    def open(self, **options: Any) -> Iterator[tuple[Transport, Peer]]:
        with self.serve() as server:
            transport = EndpointDialer().dial(self.dial(server.target, **options))
            peer = server.accept()
            try:
                yield self.seen(transport), peer
            finally:
                peer.drop()
                transport.dispose()

    def seen(self, transport: Transport) -> Transport:
        """Return the transport as the suite uses it, which sends bytes as well."""
        return transport

    def told(self, messages: list[Message]) -> list[Message]:
        """Return what has to arrive of ``messages``: bytes where there is no text, one piece without boundaries."""
        if not self.traits.has_text:
            messages = [m.encode() if isinstance(m, str) else m for m in messages]
        if not self.traits.has_boundaries:
            return [b"".join(m for m in messages if isinstance(m, bytes))]
        return messages


def patient() -> Deadline:
    return Deadline.after(SystemClock(), PATIENCE)


def end_of(transport: Transport) -> ConnmanError:
    """Read to the end and return the error."""
    with pytest.raises(ConnmanError) as caught:
        while True:
            transport.receive(patient())
    assert not isinstance(caught.value, WaitTimeout)
    assert not isinstance(caught.value, OSError) or isinstance(caught.value, TimeoutError)
    return caught.value


def read_out(peer: Peer) -> list[Message]:
    """Read to the end and return the messages."""
    messages: list[Message] = []
    with contextlib.suppress(EOFError):
        while True:
            messages.append(peer.recv())
    return messages


class Conformance:
    """The suite. A subclass that pytest collects has a fixture ``subject``."""

    # Helpers

    def gets(self, subject: Subject, end: Transport | Peer, messages: list[Message]) -> None:
        """Check that ``messages``, and nothing else, are what the end gets next."""
        wanted = subject.told(messages)
        found: list[Message] = []
        while [len(m) for m in subject.told(found)] < [len(m) for m in wanted] or len(found) < len(wanted):
            found += end.receive(patient()) if hasattr(end, "receive") else [end.recv()]
        assert subject.told(found) == wanted

    def huge_send(self, transport: Transport, peer: Peer, timeout: float) -> "tuple[Future[None], Message]":
        """Begin to send more than is taken while the peer does not read; return once it has begun."""
        sender = in_thread(transport.send, [b"begin", HUGE_MESSAGE], timeout)
        return sender, peer.recv()

    # Opening

    def test_it_opens_and_says_what_it_is(self, subject: Subject) -> None:
        with subject.open() as (transport, _):
            assert transport.name == subject.traits.name
            assert transport.can_ping == subject.traits.has_pings
            assert (transport.messages_out, transport.ping_rtt, transport.reading) == (0, None, False)

    def test_the_log_of_a_dial_names_its_steps(self, subject: Subject) -> None:
        with subject.serve() as server:
            dial = subject.dial(server.target)
            transport = EndpointDialer().dial(dial)
            assert dial.log
            assert all(step.cause is None and step.seconds >= 0 for step in dial.log)
            server.accept().drop()
            transport.dispose()

    def test_nobody_there_is_a_connect_error(self, subject: Subject) -> None:
        with subject.nowhere() as target, pytest.raises(ConnectError) as caught:
            EndpointDialer().dial(subject.dial(target))
        assert caught.value.attempts

    def test_an_aborted_dial_raises_the_aborts_error(self, subject: Subject) -> None:
        with subject.serve() as server:
            dial, error = subject.dial(server.target), Aborted("enough")
            dial.abort(error)
            with pytest.raises(Aborted) as caught:
                EndpointDialer().dial(dial)
            assert caught.value is error

    def test_an_abort_of_the_dial_after_it_opened_touches_nothing(self, subject: Subject) -> None:
        with subject.serve() as server:
            dial = subject.dial(server.target)
            transport = EndpointDialer().dial(dial)
            peer = server.accept()
            dial.abort(Aborted("late"))
            transport.send(["still here"], 1)
            self.gets(subject, peer, ["still here"])
            peer.drop()
            transport.dispose()

    # Messages

    def test_messages_pass_both_ways(self, subject: Subject) -> None:
        messages: list[Message] = ["text", b"binary", "ü", b"\0\xff", b"x" * 200, b"y" * 70_000]
        with subject.open() as (transport, peer):
            transport.send(messages, PATIENCE)
            self.gets(subject, peer, messages)
            for message in messages:
                peer.send(message)
            self.gets(subject, transport, messages)

    def test_a_big_message_passes_both_ways(self, subject: Subject) -> None:
        message = random.Random(1).randbytes(BIG).replace(b"\n", b"\0").replace(b"\r", b"\0")
        with subject.open() as (transport, peer):
            sender = in_thread(transport.send, [message], PATIENCE)
            self.gets(subject, peer, [message])
            sender.result(PATIENCE)
            answer = in_thread(peer.send, message)
            self.gets(subject, transport, [message])
            answer.result(PATIENCE)

    def test_an_empty_message_is_one(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            transport.send([b"", b"next", b""], 1)
            self.gets(subject, peer, [b"", b"next", b""])
            peer.send(b"")
            peer.send(b"next")
            self.gets(subject, transport, [b"", b"next"])

    def test_many_messages_keep_their_order(self, subject: Subject) -> None:
        messages: list[Message] = [b"%d" % number for number in range(2000)]
        with subject.open() as (transport, peer):
            sender = in_thread(transport.send, messages, PATIENCE)
            self.gets(subject, peer, messages)
            sender.result(PATIENCE)

    def test_messages_of_several_threads_are_never_mixed(self, subject: Subject) -> None:
        messages = [(str(number) * size).encode() for number in range(4) for size in (1, 1000, 100_000)]
        with subject.open() as (transport, peer):
            senders = [in_thread(transport.send, [message], PATIENCE) for message in messages]
            back = in_thread(lambda: [peer.send(b"b" * 50_000) for _ in range(40)])
            received = in_thread(self.gets, subject, transport, [b"b" * 50_000] * 40)
            back.result(PATIENCE)
            found, missing = b"", sum(map(len, messages))
            while missing:
                message = peer.recv()
                assert isinstance(message, bytes)
                assert not subject.traits.has_boundaries or message in messages
                found += message
                missing -= len(message)
            for sender in (*senders, received):
                sender.result(PATIENCE)
            # Without boundaries: each message is one run of its digit.
            runs = sorted(sum(map(len, messages[n : n + 3])) for n in range(0, 12, 3))
            assert sorted(found.count(b"%d" % n) for n in range(4)) == runs

    @pytest.mark.parametrize("bad", [5, None, ["x"], "\ud800"])
    def test_what_cannot_be_sent_sends_nothing(self, subject: Subject, bad: Any) -> None:
        with subject.open() as (transport, peer):
            with pytest.raises((TypeError, ValueError)):
                transport.send([b"before", bad], 1)
            transport.send([b"after"], 1)
            self.gets(subject, peer, [b"after"])

    def test_counters_grow(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            out, into = transport.bytes_out, transport.bytes_in
            transport.send([b"12345", b"678"], 1)
            self.gets(subject, peer, [b"12345", b"678"])
            peer.send(b"12345")
            self.gets(subject, transport, [b"12345"])
            assert transport.messages_out == 2
            assert transport.bytes_out >= out + 8
            assert transport.bytes_in >= into + 5

    def test_a_receive_in_vain_changes_nothing(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            with pytest.raises(WaitTimeout):
                transport.receive(Deadline.after(SystemClock(), 0.01))
            peer.send(b"late")
            self.gets(subject, transport, [b"late"])

    def test_what_is_too_big_ends_it(self, subject: Subject) -> None:
        if not subject.traits.has_boundaries:
            return
        with subject.open(max_message_size=1000) as (transport, peer):
            peer.send(b"x" * 1000)
            self.gets(subject, transport, [b"x" * 1000])
            peer.send(b"x" * 1001)
            ended = in_thread(end_of, transport)
            assert read_out(peer) == []
            peer.drop()
            assert isinstance(ended.result(PATIENCE), MessageTooBig)

    # Pings

    def test_a_ping_is_answered_where_there_are_pings(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            assert transport.ping() == subject.traits.has_pings
            reading = in_thread(read_out, peer)
            if subject.traits.has_pings:
                reader = in_thread(end_of, transport)
                eventually(lambda: transport.ping_rtt is not None)
                transport.close(1000, "", PATIENCE)
                reader.result(PATIENCE)
            transport.abort(Aborted("enough"))
            assert reading.result(PATIENCE) == []

    # Ends

    def test_our_close_is_orderly_for_both(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            transport.send([b"last"], 1)
            transport.close(1000, "bye", PATIENCE)
            transport.close(1001, "again", PATIENCE)
            assert subject.told(read_out(peer)) == [b"last"]
            peer.close()
            assert isinstance(end_of(transport), ConnectionClosed)
            with pytest.raises(NotConnected):
                transport.send([b"x"], 1)

    def test_what_the_peer_sends_until_it_answers_our_close_arrives(self, subject: Subject) -> None:
        if not subject.traits.hears_after_close:
            return
        with subject.open() as (transport, peer):
            transport.close(1000, "", PATIENCE)
            peer.send(b"unread")
            self.gets(subject, transport, [b"unread"])
            peer.close()
            assert isinstance(end_of(transport), ConnectionClosed)

    def test_the_peers_close_comes_after_what_it_sent(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):

            def speak() -> None:
                for _ in range(20):
                    peer.send(b"x" * 5000)
                peer.close()

            speaking = in_thread(speak)
            self.gets(subject, transport, [b"x" * 5000] * 20)
            speaking.result(PATIENCE)
            for _ in range(2):
                assert isinstance(end_of(transport), ConnectionClosed)
            transport.dispose()
            assert read_out(peer) == []

    def test_a_peer_that_vanishes_is_a_loss(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            reader = in_thread(end_of, transport)
            eventually(lambda: transport.reading)
            peer.drop()
            kinds = ConnectionLost if subject.traits.tells_drops else (ConnectionLost, ConnectionClosed)
            assert isinstance(reader.result(PATIENCE), kinds)

    def test_an_abort_wakes_the_reader(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            reader = in_thread(end_of, transport)
            eventually(lambda: transport.reading)
            error = PingTimeout("silence")
            transport.abort(error)
            transport.abort(Aborted("later"))
            assert reader.result(PATIENCE) is error
            transport.dispose()
            with contextlib.suppress(OSError):  # a reset, from there
                assert read_out(peer) == []

    def test_an_abort_drops_what_was_not_received(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            peer.send(b"unread")
            error = PingTimeout("silence")
            transport.abort(error)
            assert end_of(transport) is error

    def test_an_abort_wakes_a_blocked_sender(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            sender, _ = self.huge_send(transport, peer, PATIENCE)
            waiting = in_thread(transport.send, [b"waits its turn"], PATIENCE)
            transport.abort(Aborted("enough"))
            error = sender.exception(PATIENCE)
            assert isinstance(error, ConnectionLost)
            assert (str(error), error.sent) == ("enough", 1), (error, error.sent)
            assert isinstance(waiting.exception(PATIENCE), ConnectionLost | NotConnected)
            assert isinstance(end_of(transport), Aborted)

    def test_a_send_out_of_time_ends_it(self, subject: Subject) -> None:
        with subject.open() as (transport, _):
            # Sent is what the network has taken, at once here. That it arrives is not waited for: nobody knows how long.
            sender = in_thread(transport.send, [b"begin", HUGE_MESSAGE], 0.05)
            error = sender.exception(PATIENCE)
            assert isinstance(error, SendTimeout)
            assert error.sent == 1
            assert end_of(transport) is error

    def test_a_close_lets_a_blocked_sender_finish(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            sender, first = self.huge_send(transport, peer, PATIENCE)
            transport.close(1000, "", PATIENCE)
            with pytest.raises(NotConnected):
                transport.send([b"too late"], 1)
            messages = [first, *read_out(peer)]
            sender.result(PATIENCE)
            assert subject.told(messages) == subject.told([b"begin", HUGE_MESSAGE])
            peer.close()
            assert isinstance(end_of(transport), ConnectionClosed)

    def test_a_close_is_bounded_when_the_peer_does_not_answer(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            sender, _ = self.huge_send(transport, peer, PATIENCE)
            transport.close(1000, "", 0.05)
            assert isinstance(end_of(transport), ConnectionClosed)
            assert isinstance(sender.exception(PATIENCE), ConnectionLost)

    def test_dispose_wakes_senders_and_is_idempotent(self, subject: Subject) -> None:
        with subject.open() as (transport, peer):
            sender, _ = self.huge_send(transport, peer, PATIENCE)
            transport.dispose()
            transport.dispose()
            transport.abort(Aborted("late"))
            transport.close(1000, "", PATIENCE)
            assert isinstance(sender.exception(PATIENCE), ConnectionLost)
            with pytest.raises(NotConnected):
                transport.send([b"x"], 1)

    def test_stress_senders_and_a_sudden_end(self, subject: Subject, seed: int) -> None:
        """Whoever ends it, and when: all threads come back, with errors of connman only."""
        rng = random.Random(seed)
        for how in ("abort", "close", "peer"):
            with subject.open() as (transport, peer):
                go = threading.Barrier(5)
                # A peer that counts what it reads needs much of it: small messages may come as one.
                sizes = (300_000,) if how == "peer" else (1, 1000, 300_000)
                messages = [b"x" * rng.choice(sizes) for _ in range(4)]
                senders = [in_thread(self._keep_sending, transport, message, go) for message in messages]
                reader = in_thread(end_of, transport)
                reading = in_thread(self._read_some, peer, rng.randrange(20) if how == "peer" else None)
                go.wait(PATIENCE)
                if how == "abort":
                    transport.abort(Aborted("enough"))
                elif how == "close":
                    transport.close(1000, "", 0.2)
                reading.result(PATIENCE)
                reader.result(PATIENCE)
                for sender in senders:
                    assert isinstance(sender.exception(PATIENCE), ConnmanError | None)

    def _keep_sending(self, transport: Transport, message: bytes, go: threading.Barrier) -> None:
        go.wait(PATIENCE)
        for _ in range(20):
            transport.ping()
            transport.send([message], PATIENCE)

    def _read_some(self, peer: Peer, count: int | None) -> None:
        """Read ``count`` messages and vanish, or read to the end and close."""
        with contextlib.suppress(EOFError, OSError):
            while count is None or count > 0:
                peer.recv()
                count = None if count is None else count - 1
        if count is None:
            with contextlib.suppress(OSError, ConnmanError):
                peer.close()
        else:
            peer.drop()
