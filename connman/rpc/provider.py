"""Services under a name on a relay, for as long as they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from connman.clock import Deadline, SystemClock
from connman.connection import fork
from connman.connection.group import all_gone, end_all
from connman.errors import ConnectTimeout, Forked, WaitTimeout, WouldDeadlock
from connman.manager import Manager
from connman.options import make_options
from connman.records import Message
from connman.rpc.crew import Crew, Ended
from connman.rpc.joining import Joining
from connman.rpc.peer import Peer
from connman.rpc.services import Services
from connman.rpc.spare import Spare
from connman.threads import is_own


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """Count what a provider has, and what it has done: a snapshot.

    ``spares``: connections that wait for a caller or are on their way to the relay. ``open_spares``: of these, known to
    the relay. ``peers``: callers joined now. ``handovers``: callers joined so far. ``last_error``: text of the newest
    failure of a spare, None before the first.
    """

    spares: int
    open_spares: int
    peers: int
    handovers: int
    last_error: str | None


class Provider:
    """Services under a name on a relay, on as many connections as callers want: what `provide` returns.

    It keeps ``spares`` connections at the relay, each of which becomes one caller's; another takes its place at once.
    A spare that is lost comes back. When the relay refuses for good (a bad token, a name it does not allow) no further
    attempt is made: the callers that are joined stay, and `wait_closed` raises why.

    ``services``: shared by all callers; what is added or removed counts from the next call on.

    In a forked child it has ended, with Forked; the parent's goes on.

    Threads: every method from any thread, services included, but for what is said there.
    """

    def __init__(
        self,
        joining: Joining,
        services: Services,
        options: Mapping[str, Any],
        *,
        spares: int,
        max_peers: int,
        on_peer: Callable[[Peer], object] | None,
        peer_options: Mapping[str, Any],
        manager: Manager,
    ) -> None:
        self.name = joining.name
        joining.options(options, longest_pause=1.0)  # only to hear its complaints now
        self._timeouts = make_options(dict(options))
        self.services = services

        def make_peer(spare: Spare, first: list[Message]) -> Peer:
            return Peer(spare.conn, services=services, first=first, replaces=spare, **peer_options)

        self._crew = Crew(
            joining, options, manager, wanted=spares, most=max_peers, make_peer=make_peer, on_peer=on_peer
        )
        fork.register(self)
        fork.end_at_exit(self)

    def start(self) -> Self:
        """Start dialling and return at once; `provide` has done it.

        Threads: any; never blocks.
        """
        self._crew.top_up()
        return self

    # Ending.

    def end_soon(self) -> None:
        """Begin what `close` does and return at once; what is open has 1 s to answer.

        Threads: any; never blocks.
        """
        self._crew.tell_end(1.0)

    def close(self, timeout: float | None = None) -> None:
        """End it for good: spares, and callers that are joined, whose calls under way fail with PeerGone. Idempotent.

        Each has ``timeout`` seconds (None: ``close_timeout``; 0 and less: no time) to answer the close, all of them
        under one deadline. A service that runs is not interrupted; its answer goes nowhere.

        Threads: any; called on one of connman's own threads, as by a service, it returns at once and finishes behind.
        """
        fork.check_process()
        bound = self._timeouts.close_timeout if timeout is None else max(0.0, timeout)
        ending = self._crew.tell_end(bound)
        if not is_own():
            end_all(ending, Deadline.after(SystemClock(), bound))

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for its connections' threads to be gone; return whether they are.

        Threads: any but connman's own.
        """
        return all_gone(self._crew.end(Ended()), Deadline.after(SystemClock(), within))

    def after_fork(self) -> None:
        """Have ended in a child process: the connections are the parent's.

        Threads: the first one of the child that uses connman.
        """
        self._crew.build(Forked(f"{self.name} is provided by the parent process: call provide() in this one"))

    # Waiting and looking.

    def wait_ready(self, timeout: float | None = None) -> Self:
        """Wait until the relay knows of a spare, or a caller has one already; return this provider.

        ``timeout`` in seconds; None for no limit, 0 and less: only look.

        Raises: WaitTimeout, whose text holds the newest error; the error with which the relay refused for good;
        ConnectionClosed after `close`; WouldDeadlock on connman's own threads.
        Threads: any but connman's own.
        """
        if not self._wait(lambda: self._crew.ending is not None or self._crew.is_known(), timeout):
            because = "" if (error := self._crew.last_error()) is None else f"; last error: {error}"
            raise WaitTimeout(f"{self.name}: not known to the relay within {timeout:g} s{because}")
        if self._crew.ending is not None:
            raise self._crew.ending
        return self

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until it has ended, its pairs included; ``timeout`` as for `wait_ready`.

        Raises: WaitTimeout; the error with which the relay refused for good; Forked in a forked child; WouldDeadlock on
        connman's own threads.
        Threads: any but connman's own.
        """
        if not self._wait(self._crew.is_gone, timeout):
            raise WaitTimeout(f"{self.name}: not ended within {timeout:g} s")
        ending = self._crew.ending
        if ending is not None and not isinstance(ending, Ended):
            raise ending

    def _wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        fork.check_process()
        if is_own():
            raise WouldDeadlock("one of connman's own threads cannot wait for a provider")
        return self._crew.wait(predicate, timeout)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The callers that are joined now."""
        fork.check_process()
        return tuple(self._crew.peers()[0])

    @property
    def stats(self) -> ProviderStats:
        """What it has, and what it has done: a snapshot."""
        fork.check_process()
        (spares, count), (_, peers) = self._crew.spares(), self._crew.peers()
        error = self._crew.last_error()
        return ProviderStats(
            spares=count,
            open_spares=sum(spare.conn.is_open for spare in spares),
            peers=peers,
            handovers=self._crew.handovers,
            last_error=None if error is None else str(error),
        )

    def __enter__(self) -> Self:
        """Wait until the relay knows of a spare, at most ``open_timeout`` seconds.

        Raises: as `wait_ready`, but ConnectTimeout for its WaitTimeout, after having ended the provider.
        """
        try:
            return self.wait_ready(self._timeouts.open_timeout)
        except BaseException as error:  # user code (a signal handler) may have raised as well
            self.close(0)
            if isinstance(error, WaitTimeout):
                raise ConnectTimeout(self.name, (), str(error)) from error
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Provider {self.name}>"
