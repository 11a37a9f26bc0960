"""One way through the network, dialled once: what each phase took, how it ended, and whether messages pass."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from connman.clock import Clock, Deadline
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnmanError, WaitTimeout
from connman.options import Options
from connman.records import Message, Step
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.login import Channel
from connman.transport.proxy import choose_proxy

# How often the wait for an answer to a ping looks up: the answer itself wakes nobody.
_LOOK = 0.05
_GOODBYE = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """Something to dial. ``endpoint`` None: it chooses where to itself, like a strategy.

    ``kind``: a single way; a tree of all of them; or the question what a SockJS server says of itself, which opens none.
    """

    name: str
    endpoint: Endpoint | None
    dialer: Dialer
    kind: Literal["way", "tree", "info"] = "way"

    @property
    def address(self) -> str:
        """Where it leads, without secrets."""
        if self.endpoint is None or self.kind != "info":
            return "" if self.endpoint is None else str(self.endpoint)
        scheme = self.endpoint.scheme.partition("+")[2]
        hidden = "?…" if self.endpoint.query else ""
        return f"{scheme}://{self.endpoint.authority}{self.endpoint.path.rstrip('/')}/info{hidden}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one dial.

    ``proxy``: through which it went, without credentials. ``transport``: the name of what opened. ``seconds``: until
    it was open or had failed. ``message``: what the first message was like, None when none was seen. ``error`` None:
    it is a way through.
    """

    way: Way
    proxy: str | None
    steps: tuple[Step, ...]
    seconds: float
    transport: str | None = None
    message: str | None = None
    error: ConnmanError | None = None
    info: Mapping[str, object] | None = None


class Probe:
    """Dial one way, see whether a ping comes back or a message comes, and hang up in order.

    Threads: `run` on one, `abort` from any.
    """

    def __init__(self, way: Way, options: Options, clock: Clock, *, expects_message: bool = False) -> None:
        if has_greeting := expects_message and way.kind == "tree":
            options = dataclasses.replace(options, handshake_timeout=options.open_timeout)
        self._way = way
        self._options = options
        self._clock = clock
        self._expects_message = expects_message
        self._dial = Dial(way.endpoint, options, clock, name=str(way.endpoint or way.name))
        if has_greeting:
            # Only what has spoken wins then: a tree leaves a way that swallows what follows the upgrade for another one.
            self._dial.handshake = Channel.peek
        self._messages: list[Message] = []
        self._transport: str | None = None
        self._info: Mapping[str, object] | None = None
        self._opened: float | None = None

    def abort(self, error: ConnmanError) -> None:
        """End it in whatever it is doing.

        Threads: any; never blocks.
        """
        self._dial.abort(error)

    def run(self) -> Finding:
        """Do all of it; whatever goes wrong is told by what it returns.

        Threads: its own; blocks up to three times ``open_timeout``, and a second.
        """
        began = self._clock.now()
        headers = self._options.headers
        self._dial.begin([] if headers is None or callable(headers) else list(headers))  # type: ignore[arg-type]
        error: ConnmanError | None = None
        try:
            self._examine()
        except ConnmanError as failed:
            error = failed
        except Exception as failed:  # user code: a diagnosis tells of whatever it meets
            error = ConnectError(self._dial.name, self._dial.log, f"the dial raised {type(failed).__name__}")
            error.__cause__ = failed
        ended = self._opened if error is None and self._opened is not None else self._clock.now()
        return Finding(
            way=self._way,
            proxy=self._proxy(),
            steps=tuple(self._dial.log),
            seconds=ended - began,
            transport=self._transport,
            message=_described(self._messages[0]) if self._messages else None,
            error=error,
            info=self._info,
        )

    def _examine(self) -> None:
        transport = self._way.dialer.dial(self._dial)
        self._opened = self._clock.now()
        self._transport = transport.name
        self._messages += self._dial.first or []
        self._converse(transport)

    def _proxy(self) -> str | None:
        with contextlib.suppress(ConnmanError):  # a malformed one is what the dial has failed with
            proxy = choose_proxy(self._dial)
            return None if proxy is None else str(proxy)
        return None

    def _converse(self, transport: Transport) -> None:
        """Find out whether what passed the upgrade passes messages as well: some middlemen swallow every frame."""
        try:
            with self._dial.abortable(lambda: transport.abort(WaitTimeout("the diagnosis was ended"))):
                self._see_life(transport)
                self._say_goodbye(transport)
        finally:
            transport.dispose()

    def _see_life(self, transport: Transport) -> None:
        silence: WaitTimeout | None = None
        if transport.can_ping:
            try:
                self._wait_for_pong(transport)
            except WaitTimeout as error:
                silence = error
        if self._expects_message and not self._messages:
            self._wait_for_message(transport)
        if silence is not None and not self._messages:
            raise silence

    def _wait_for_pong(self, transport: Transport) -> None:
        deadline = Deadline.after(self._clock, self._options.open_timeout)
        with self._dial.step("ping"):
            transport.ping()
            while transport.ping_rtt is None:
                try:
                    self._messages += transport.receive(deadline.sooner(_LOOK))
                except WaitTimeout:
                    self._dial.check_aborted()
                    if deadline.expired:
                        raise WaitTimeout(f"no answer within {self._options.open_timeout:g} s") from None
        # Seen by its own time: the last look came up to _LOOK later.
        self._dial.log[-1] = dataclasses.replace(self._dial.log[-1], seconds=transport.ping_rtt)

    def _wait_for_message(self, transport: Transport) -> None:
        with self._dial.step("message"):
            try:
                self._messages += transport.receive(Deadline.after(self._clock, self._options.open_timeout))
            except WaitTimeout:
                self._dial.check_aborted()
                raise WaitTimeout(f"no message within {self._options.open_timeout:g} s") from None

    def _say_goodbye(self, transport: Transport) -> None:
        transport.close(1000, "", _GOODBYE)
        with contextlib.suppress(ConnmanError):
            while True:
                transport.receive(Deadline.after(self._clock, _GOODBYE))


class InfoProbe(Probe):
    """Ask a SockJS server what it says of itself, at the base of the way's endpoint.

    Threads: as for `Probe`.
    """

    def _examine(self) -> None:
        from connman.transport.sockjs import ask_info  # lazy: an extra

        self._info = ask_info(self._dial)


def _described(message: Message) -> str:
    """Say what a message is like; what it says may be a secret."""
    kind = "text" if isinstance(message, str) else "binary"
    size = len(message.encode(errors="surrogatepass")) if isinstance(message, str) else len(message)
    return f"{kind}, {size} bytes"
