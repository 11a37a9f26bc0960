"""The options of a connection: one frozen value, checked when it is made."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar

from connman.errors import InvalidOption

if TYPE_CHECKING:
    import ssl

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
_F = TypeVar("_F", bound=Callable[..., Any])

# Set by the upgrade itself; a second one from outside would contradict it (RFC 6455 4.1).
_OWN_HEADERS = frozenset(
    ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
     "sec-websocket-extensions", "content-length", "transfer-encoding")
)  # fmt: skip
# Ten years: no wait of the system overflows.
_LONGEST = 10 * 365 * 86400.0
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Framing(Protocol):
    """How whole messages lie in a byte stream: see ``connman.lines`` and ``connman.length_prefixed``."""

    def codec(self, max_message_size: int) -> Any:
        """Return a fresh codec for one transport.

        Threads: any.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a connection is told at construction; docs/options.md tells the same in a table.

    Durations are float seconds, more than 0 where nothing else is said; 0, a negative number, NaN and more than ten
    years, infinity included, are an InvalidOption then.

    ``reconnect``: False makes a loss or a failed attempt the end until somebody asks anew. ``wait``, ``stop``: tenacity
    strategies for the delays and for giving up; None for 0.1 s doubling to 128 s, half of it random, and for never.
    ``stable_after``: a connection lost sooner counts as one more failed attempt; 0 for none.
    ``open_timeout``: for lookup, TCP, proxy, TLS and upgrade together. ``handshake_timeout``: for the whole of
    ``handshake``. ``close_timeout``: for the peer to answer our close. ``send_timeout``: for the system to take a message.
    ``ping_interval``: between pings, None for none. ``ping_timeout``: without a sign of life after a ping.
    ``max_message_size``: bytes; also the bound of what waits to be taken. ``retry_if(error)``: True or False, None for
    the table of `connman.errors.retry_verdict`. ``headers``: of the upgrade; a callable is asked for each attempt.
    ``subprotocols``: offered; a server that takes none is refused. ``compression``: "deflate" offers it to ws and wss.
    ``ssl_context``: used as it is; None verifies against the system's authorities. ``proxy``: a URL; None for no proxy;
    left out for what the environment says. ``framing``: ``connman.lines()`` or ``connman.length_prefixed()`` for byte
    streams; None for bytes as they come in. ``dispatch``: callbacks on the "reader" thread, or on a "thread" of theirs.
    """

    reconnect: bool = True
    wait: Callable[[Any], float] | None = None
    stop: Callable[[Any], bool] | None = None
    stable_after: float = 1.0
    open_timeout: float = 10.0
    handshake_timeout: float = 10.0
    close_timeout: float = 5.0
    send_timeout: float = 30.0
    ping_interval: float | None = 20.0
    ping_timeout: float = 20.0
    max_message_size: int = 16 * 1024 * 1024
    retry_if: Callable[[BaseException], bool | None] | None = None
    headers: Headers | Callable[[], Headers] | None = dataclasses.field(default=None, repr=False)
    subprotocols: tuple[str, ...] = ()
    compression: Literal["deflate"] | None = None
    ssl_context: ssl.SSLContext | None = None
    proxy: str | EllipsisType | None = dataclasses.field(default=..., repr=False)
    framing: Framing | None = None
    dispatch: Literal["reader", "thread"] = "reader"

    def __post_init__(self) -> None:
        for name in ("open_timeout", "handshake_timeout", "close_timeout", "send_timeout", "ping_timeout"):
            check_seconds(name, getattr(self, name))
        check_seconds("stable_after", self.stable_after, zero=True)
        if self.ping_interval is not None:
            check_seconds("ping_interval", self.ping_interval)
        _check_size(self.max_message_size)
        if not isinstance(self.reconnect, bool):
            raise InvalidOption("reconnect is True or False")
        for name in ("wait", "stop", "retry_if"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise InvalidOption(f"{name} is a callable or None")
        self._check_choices()
        if self.headers is not None and not callable(self.headers):
            # A copy: pairs may come from an iterator, and every attempt wants them.
            object.__setattr__(self, "headers", tuple(checked_headers(self.headers)))
        object.__setattr__(self, "subprotocols", _checked_subprotocols(self.subprotocols))

    def _check_choices(self) -> None:
        if self.dispatch not in ("reader", "thread"):
            raise InvalidOption("dispatch is 'reader' or 'thread'")
        if self.compression not in ("deflate", None):
            raise InvalidOption("compression is 'deflate' or None")
        if self.ssl_context is not None and not hasattr(self.ssl_context, "wrap_socket"):
            raise InvalidOption("ssl_context is an ssl.SSLContext or None")
        if self.framing is not None and not hasattr(self.framing, "codec"):
            raise InvalidOption("framing is connman.lines(), connman.length_prefixed() or None")
        if self.proxy is not None and self.proxy is not ... and not isinstance(self.proxy, str):
            raise InvalidOption("proxy is a URL, None for no proxy, or left out for the environment's")


class OptionArguments(TypedDict, total=False):
    """The same as keyword arguments, for those who only pass them on."""

    reconnect: bool
    wait: Callable[[Any], float] | None
    stop: Callable[[Any], bool] | None
    stable_after: float
    open_timeout: float
    handshake_timeout: float
    close_timeout: float
    send_timeout: float
    ping_interval: float | None
    ping_timeout: float
    max_message_size: int
    retry_if: Callable[[BaseException], bool | None] | None
    headers: Headers | Callable[[], Headers] | None
    subprotocols: Iterable[str]
    compression: Literal["deflate"] | None
    ssl_context: ssl.SSLContext | None
    proxy: str | EllipsisType | None
    framing: Framing | None
    dispatch: Literal["reader", "thread"]


def shows_options(function: _F) -> _F:
    """Decorate a function that takes ``**options`` so that ``help()`` shows each of them with its default.

    Threads: at import.
    """
    signature = inspect.signature(function)
    *named, _ = signature.parameters.values()
    options = inspect.signature(Options).parameters.values()
    function.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return function


def make_options(values: Mapping[str, Any]) -> Options:
    """Return the checked options for keyword arguments.

    Raises: TypeError for an unknown name; InvalidOption for a value that cannot work.
    Threads: any; pure.
    """
    known = {field.name for field in dataclasses.fields(Options)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}")
    return Options(**values) if values else _DEFAULT


def checked_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as name and value pairs, all fit to be sent.

    Raises: InvalidOption for a name that is no token, a value with CR, LF, NUL or other controls, outside latin-1 or
    with blanks around it, or a header that the upgrade sets itself. The value is never part of the text.
    Threads: any; pure.
    """
    try:
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        checked = [(name, value) for name, value in pairs]
    except (TypeError, ValueError):
        raise InvalidOption("headers are a mapping or pairs of name and value") from None
    if any(isinstance(pair, str) for pair in pairs):  # one of two characters would pass for a pair
        raise InvalidOption("headers are a mapping or pairs of name and value, not texts")
    for name, value in checked:
        _check_header(name, value)
    return checked


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not name or not set(name) <= _TOKEN:
        raise InvalidOption("a header's name is not a token (RFC 9110 5.6.2)")
    if not isinstance(value, str):
        raise InvalidOption(f"header {name}: the value is a text, not {type(value).__name__}")
    if any((ord(c) < 32 and c != "\t") or ord(c) == 127 or ord(c) > 255 for c in value):
        raise InvalidOption(
            f"header {name}: the value holds CR, LF, NUL or another character no header may have"
        )
    if value != value.strip(" \t"):
        raise InvalidOption(f"header {name}: the value begins or ends with a blank")
    if name.lower() in _OWN_HEADERS:
        raise InvalidOption(f"header {name} is set by the upgrade itself")


def _checked_subprotocols(subprotocols: object) -> tuple[str, ...]:
    # A text is iterable too: it would be taken for its characters.
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Iterable):
        raise InvalidOption("subprotocols is a sequence of texts")
    names = tuple(subprotocols)
    if any(not isinstance(name, str) or not name or not set(name) <= _TOKEN for name in names):
        raise InvalidOption("a subprotocol is not a token (RFC 6455 4.1)")
    if len(set(names)) < len(names):
        raise InvalidOption("a subprotocol is named twice (RFC 6455 4.1)")
    return names


def check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Raise unless ``value`` is a number of seconds that can be waited for, more than 0 or with ``zero`` 0 or more.

    Raises: InvalidOption. Threads: any; pure.
    """
    # True is an int, and would pass for one second.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{name} is a number of seconds")
    if not (value > 0 or (zero and value == 0)):
        raise InvalidOption(f"{name} is {'0 or more' if zero else 'more than 0'} seconds")
    if value > _LONGEST:
        raise InvalidOption(f"{name} is at most {_LONGEST:g} seconds")


def _check_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidOption("max_message_size is a number of bytes from 1")


# For everyone who changes nothing. Down here, since making it calls what is above.
_DEFAULT = Options()
