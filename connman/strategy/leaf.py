"""The leaf of a tree: one way to open a transport, dialled on a thread of its own."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from functools import partial
from typing import Any, Unpack, cast

from connman.clock import Deadline
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnmanError, InvalidOption, NotConnected
from connman.options import OptionArguments, Options, make_options
from connman.records import Message, Step
from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, Watcher, discard
from connman.threads import is_kill
from connman.transport import base
from connman.transport.login import evaluated_headers, is_answer, log_in, open_target
from connman.transport.openers import EndpointDialer, prepare
from connman.transport.proxy import usable_proxy

logger = logging.getLogger("connman.strategy")

HTTP_PRIORITY = 1
PRIORITY = 3
# The options that are about opening; the others are about the connection, whichever leaf it came from.
_OWN = frozenset(
    ("open_timeout", "handshake_timeout", "headers", "subprotocols", "compression", "ssl_context", "proxy", "framing")
)  # fmt: skip
_STREAMS = ("tcp", "tls", "unix")


class Transport(Strategy):
    """Dial one target: the leaf that every tree ends in.

    ``target``: what ``connman.connect`` takes. ``name``: what the connection's ``transport_name`` says, the target's
    scheme if left out. ``priority``: 1 for the HTTP transports, else 3, if left out. ``manager``: may call it out of
    order. ``enabled``: False for a leaf that is never tried. ``options``: for this leaf instead of the connection's, of
    those that are about opening: ``open_timeout`` (of the connection's whole ``open_timeout``, which bounds the tree),
    ``handshake_timeout``, ``headers``, ``subprotocols``, ``compression``, ``ssl_context``, ``proxy``, ``framing``.

    The login runs here as well: it counts as open when ``handshake`` has ended.

    Raises: InvalidTarget; InvalidOption; TypeError for an option that is not a leaf's.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(
        self,
        target: object,
        *,
        name: str | None = None,
        priority: int | None = None,
        manager: Watcher | None = None,
        enabled: bool = True,
        **options: Unpack[OptionArguments],
    ) -> None:
        if foreign := sorted(set(options) - _OWN):
            raise TypeError(f"option {foreign[0]!r} is the connection's, not a leaf's")
        self._own = options
        checked = make_options(options)
        is_dialer = hasattr(target, "dial")
        self.endpoint = None if is_dialer else Endpoint.parse(target)
        self._check(checked.framing is not None, checked.compression is not None, options)
        self._dialer = cast(base.Dialer, target) if is_dialer else EndpointDialer()
        kind = type(target).__name__ if self.endpoint is None else _kind(self.endpoint)
        self._name = name or kind
        self.priority = (
            priority if priority is not None else HTTP_PRIORITY if kind.startswith("xhr") else PRIORITY
        )
        self._manager = manager
        self._is_enabled = enabled

    def _check(self, has_framing: bool, has_compression: bool, options: OptionArguments) -> None:
        scheme = None if self.endpoint is None else self.endpoint.scheme
        if has_framing and scheme not in (None, *_STREAMS):
            raise InvalidOption("framing is for byte streams: tcp, tls and unix")
        if has_compression and scheme not in (None, "ws", "wss"):
            raise InvalidOption("compression is for ws and wss")
        if isinstance(proxy := options.get("proxy"), str):
            usable_proxy(proxy)
        if self.endpoint is not None:
            prepare(self.endpoint)

    @property
    def name(self) -> str:
        """What the connection's ``transport_name`` says when this leaf has won."""
        return self._name

    @property
    def manager(self) -> Watcher | None:
        """What watches over its transports, None for nothing."""
        return self._manager

    @property
    def label(self) -> str:
        """What it says of itself in `describe`."""
        where = f" {self.endpoint}" if self.endpoint is not None else ""
        state = "" if self._is_enabled else ", not enabled"
        return f"{self._name}{where} (priority {self.priority}{state})"

    def is_supported(self) -> bool:
        """Return whether it is enabled and its manager has not called it out of order.

        Threads: any.
        """
        return self._is_enabled and (self._manager is None or self._manager.is_alive)

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Dial on a thread of its own; see `Strategy.start`.

        Threads: within an event of ``run``.
        """
        attempt = _Attempt(self, self._dialer, run, report, self._dial(run))
        if not self.is_supported():
            report(run.refused(self._name, "not supported" if self._is_enabled else "not enabled"))
        elif self.priority < min_priority:
            report(run.refused(self._name, f"priority {self.priority} is below {min_priority}"))
        else:
            attempt.begin()
        return attempt

    def _dial(self, run: Run) -> LeafDial:
        options = (
            dataclasses.replace(run.dial.options, **cast(dict[str, Any], self._own))
            if self._own
            else run.dial.options
        )
        dial = LeafDial(run, self._name, self.endpoint, options)
        if run.deadline is None:
            dial.deadline = Deadline.after(run.clock, options.open_timeout)
        else:
            dial.deadline = run.deadline.sooner(self._own.get("open_timeout"))
        return dial

    def has_own_headers(self) -> bool:
        """Return whether ``headers`` was given to this leaf.

        Threads: any.
        """
        return "headers" in self._own


class LeafDial(base.Dial):
    """The dial of a leaf: its own deadline and its own sockets; its steps show in the log of the whole tree.

    Threads: as for `base.Dial`; `give_up` from any thread.
    """

    def __init__(self, run: Run, leaf: str, endpoint: Endpoint | None, options: Options) -> None:
        super().__init__(endpoint, options, run.clock, name=str(endpoint) if endpoint else leaf)
        self._run = run
        self._leaf = leaf
        self._started = self.began
        # Steps count from the beginning of the whole attempt.
        self.began = run.dial.began
        self.headers = run.dial.headers
        self.handshake = run.dial.handshake
        self.has_left = False

    def note(self, phase: str, address: str, began: float, cause: str | None = None) -> None:
        """Log a step, for this leaf and for the tree."""
        step = self._step(phase, address, began, cause)
        self.log.append(step)
        if not self.has_left:
            self._run.note(step)

    def give_up(self) -> None:
        """Show in the log of the tree that it was ended in the midst of something, and nothing after that."""
        self.has_left = True
        where = "" if self.endpoint is None else str(self.endpoint)
        self._run.note(self._step(self.phase, where, self._started, "given up"))

    def _step(self, phase: str, address: str, began: float, cause: str | None) -> Step:
        return Step(phase, address, self.clock.now() - began, cause, self._leaf, began - self.began)


class _Attempt:
    """One dial of a leaf; a `Runner`.

    Threads: `_loop` is the body of its own thread; the rest within the run's events.
    """

    def __init__(
        self, leaf: Transport, dialer: base.Dialer, run: Run, report: Report, dial: LeafDial
    ) -> None:
        self._leaf = leaf
        self._dialer = dialer
        self._run = run
        self._report = report
        self._dial = dial
        self._is_logging_in = False
        self._pid = os.getpid()

    def begin(self) -> None:
        self._run.spawn(f"dial-{self._leaf.name}", self._loop)

    def abort(self) -> None:
        if self._dial.has_left:
            return
        self._dial.give_up()
        self._dial.abort(NotConnected("given up: another way was first, or none is wanted any more"))

    def force_min_priority(self, priority: int) -> None:
        if self._leaf.priority < priority and not self._dial.has_left:
            self.abort()
            cause = f"{self._leaf.name}: given up, since priority {priority} is wanted"
            self._report(ConnectError(self._dial.name, self._dial.log, cause))

    def _loop(self) -> None:
        me, threads = threading.get_ident(), self._run.dial.threads
        threads.add(me)
        try:
            self._tell(self._open())
        except BaseException as error:  # top of a thread: whatever it was, the tree must go on
            dial = self._dial
            self._tell(ConnectError(dial.name, dial.log, f"the dial raised {type(error).__name__}"))
            if is_kill(error):
                raise
            if self._is_here():
                logger.exception("the dial of a leaf failed", extra={"conn": dial.name})
        finally:
            threads.discard(me)
            # Behind what has been told: between the two the tree would look as if nothing were to come any more.
            if self._is_logging_in and self._is_here():
                self._run.post(partial(self._run.count_login, -1))

    def _tell(self, result: Result) -> None:
        if self._is_here():
            # Before it reports: what comes in between finds nothing to end any more, and its guard drops the result.
            self._dial.has_left = True
            self._report(result)

    def _is_here(self) -> bool:
        """Return whether this is not the child of a login that has forked: there nobody waits, and any lock may be taken."""
        return os.getpid() == self._pid

    def _open(self) -> Result:
        dial, leaf = self._dial, self._leaf
        try:
            if leaf.has_own_headers():
                dial.headers = evaluated_headers(dial, dial.options.headers)
            transport = open_target(dial, self._dialer)
        except ConnmanError as error:
            return error
        try:
            transport.name = leaf.name
            if leaf.manager is not None:
                leaf.manager.watch(transport)
            self._run.post(self._run.note_opened)
            return Opened(transport, leaf.name, leaf.priority, self._logged_in(transport))
        except BaseException as error:  # user code: the transport is closed, whatever the handshake raised
            if self._is_here():
                discard(transport)
            if not isinstance(error, ConnmanError):
                raise
            return Opened(transport, leaf.name, leaf.priority, (), error) if is_answer(error) else error

    def _logged_in(self, transport: base.Transport) -> list[Message]:
        if self._dial.handshake is not None:
            self._is_logging_in = True
            self._run.post(partial(self._run.count_login, 1))
        return log_in(self._dial, transport)


def _kind(endpoint: Endpoint) -> str:
    """Return "ws" for ws, "xhr_streaming" for xhr-streaming+https."""
    return endpoint.scheme.partition("+")[0].replace("-", "_")
