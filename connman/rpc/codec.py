"""The text and the binary frames of calls: JSON as the model writes it, and chunks behind the id of their call.

The text is the standard library's in every installation: msgspec and orjson write some floats differently and turn NaN
into null. For reading, msgspec is used where it is installed: what it takes, it takes alike, and whatever it refuses
the standard library judges.
"""

from __future__ import annotations

import enum
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from json import encoder, scanner
from types import SimpleNamespace
from typing import Final, NoReturn

from connman.errors import ProtocolError, RpcError, printable

__all__ = ["UNDEFINED", "NotAllowed", "Undefined", "decode", "encode", "pack_chunk", "unpack_chunk"]

UNDEFINED_TEXT = "$__undefined$"
"""What stands for JavaScript's ``undefined`` on the wire."""
LARGEST_ID = 2**53
"""Request ids travel as doubles in binary frames: from here on two of them would look alike."""

Substitute = Callable[[object], object]
"""Gives the JSON value that stands for a value that is none, or raises TypeError when there is none."""


class Undefined(enum.Enum):
    """The kind of `UNDEFINED`: JavaScript's ``undefined``, which differs from ``null`` (None)."""

    UNDEFINED = UNDEFINED_TEXT

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = Undefined.UNDEFINED
"""Send JavaScript's ``undefined``. It arrives as a missing key of an object, and as None anywhere else."""


class NotAllowed(RpcError, ValueError):
    """A value cannot travel: NaN, an infinity, or no kind of JSON value. Nothing was sent.

    ``code`` and the text are the model's. ``key``: the key or the index the value was found at. The value itself is not
    told, only its kind.
    """

    code = "WSP-ESV"

    def __init__(self, key: str, value: str, kind: str, detail: str = "") -> None:
        self.key = key
        text = f'WSP-ESV: Key "{printable(key, 60)}" value {value} ("{kind}") is not allowed'
        super().__init__(text + (f": {detail}" if detail else ""))


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _default(value: object) -> object:
    return UNDEFINED_TEXT if value is UNDEFINED else _refuse(value)


def _make_encoder(default: Substitute) -> Callable[[object], str]:
    """Return what writes JSON as JSON.stringify does: no spaces, letters as they are."""
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return json.JSONEncoder(
            ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=default
        ).encode
    # What JSONEncoder makes anew for each value, made once: that is half of the time of a small message.
    chunks = make(None, default, encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_dumps = _make_encoder(_default)
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: object, substitute: Substitute | None = None, *, key: str = "") -> str:
    """Return ``value``, a whole message or a part of one, as JSON: compact, letters beyond ASCII as they are.

    `UNDEFINED` becomes ``"$__undefined$"``, tuples become lists, and keys that are numbers, True, False or None become
    text, as in JavaScript. A lone surrogate is escaped, as JSON.stringify does. ``substitute`` is asked for every other
    value that is no JSON. ``key``: what an error calls the whole value.

    Raises: NotAllowed for NaN, infinities and what else JSON does not have; for what is nested deeper than the
        interpreter's recursion limit allows, and for integers with more digits than it converts.
    Threads: any.
    """
    try:
        text = _dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        if substitute is None or not isinstance(error, TypeError):
            raise _offence(key, value) from None
        text = _encode_with(key, value, substitute)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text


def _encode_with(key: str, whole: object, substitute: Substitute) -> str:
    replaced: list[object] = []

    def default(value: object) -> object:
        if value is UNDEFINED:
            return UNDEFINED_TEXT
        other = substitute(value)
        replaced.append(value)
        return other

    try:
        return _make_encoder(default)(whole)
    except (TypeError, ValueError, RecursionError):
        raise _offence(key, whole, replaced) from None


def _offence(key: str, whole: object, replaced: Sequence[object] = ()) -> NotAllowed:
    """Look for the value that cannot travel: only now, because looking costs more than encoding."""
    for depth, name, inner in _walk(key, whole):
        found = _judge(name, inner)
        if found is not None and not any(inner is other for other in replaced):
            return found
        key = name
        if depth > _DEEPEST:
            break
    return NotAllowed(key, "[object]", "object", "it is nested too deeply")


_DEEPEST = 10_000
"""Where the search for an offence gives up: the interpreter's limit lies far below, and a circle has no end."""


def _walk(key: str, whole: object) -> Iterator[tuple[int, str, object]]:
    """Yield each value in the order in which it is encoded, with its depth and its key."""
    stack: list[Iterator[tuple[object, object]]] = [iter(((key, whole),))]
    while stack:
        for name, inner in stack[-1]:
            is_name = isinstance(name, str | int)
            if not is_name:
                # It may be the key that cannot travel.
                yield len(stack), type(name).__name__, name
            yield len(stack), str(name) if is_name else type(name).__name__, inner
            if isinstance(inner, dict):
                stack.append(iter(inner.items()))
                break
            if isinstance(inner, list | tuple):
                stack.append(iter(enumerate(inner)))
                break
        else:
            stack.pop()


def _judge(key: str, value: object) -> NotAllowed | None:
    if value is None or value is UNDEFINED or isinstance(value, str | list | tuple | dict):
        return None
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            return NotAllowed(key, "[bigint]", "bigint", "it has too many digits")
        return None
    if isinstance(value, float):
        if math.isfinite(value):
            return None
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return NotAllowed(key, name, "number")
    kind = "function" if callable(value) and not isinstance(value, type) else type(value).__name__
    return NotAllowed(key, f"[{kind}]", kind)


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no JSON", "", 0)


def _make_decoder() -> Callable[[str], object]:
    """Return what reads JSON by the standard library, without what `json.loads` spends on a small text."""
    loads = json.JSONDecoder(parse_constant=_refuse_constant).decode
    make = getattr(scanner, "c_make_scanner", None)
    if make is None:  # not CPython
        return loads
    scan = make(
        SimpleNamespace(
            strict=True, object_hook=None, object_pairs_hook=None, parse_float=float, parse_int=int,
            parse_constant=_refuse_constant, memo={},
        )
    )  # fmt: skip

    def read(text: str) -> object:
        try:
            value, end = scan(text, 0)
        except StopIteration:
            return loads(text)  # white space in front, or an error that it tells of
        return value if end == len(text) else loads(text)

    return read


_by_standard = _make_decoder()
_read: Callable[[str], object]
_READ_ERROR: type[Exception]
try:
    import msgspec
except ImportError:
    _read, _READ_ERROR = _by_standard, ValueError
else:
    _read, _READ_ERROR = msgspec.json.Decoder().decode, msgspec.DecodeError


def decode(text: str) -> object:
    """Return the value that ``text`` stands for; ``"$__undefined$"`` drops a key of an object, and is None elsewhere.

    Raises: ProtocolError for what is no JSON (NaN and infinities are none), or too deep, or has a number too long; the
        text is not quoted.
    Threads: any.
    """
    try:
        value = _read(text)
    except (ValueError, RecursionError, _READ_ERROR):
        value = decode_by_standard(text)
    # Escaped it is the same string: `"\\u0024__undefined$"`.
    if "_undefined$" in text or "\\u" in text:
        return None if value == UNDEFINED_TEXT else _drop_undefined(value)
    return value


def decode_by_standard(text: str) -> object:
    """Return what `decode` does, undefined left in it, by the standard library alone."""
    try:
        return _by_standard(text)
    except RecursionError:
        raise ProtocolError("JSON that is nested too deeply") from None
    except ValueError as error:
        # Its own text may quote what it stumbled over.
        what = "JSON with a number too long" if type(error) is ValueError else "no JSON"
        raise ProtocolError(what) from None


def _drop_undefined(value: object) -> object:
    """Take undefined out of ``value``, in place: as deep as it is, with no recursion."""
    todo = [value]
    while todo:
        holder = todo.pop()
        if isinstance(holder, dict):
            for key in [key for key, inner in holder.items() if inner == UNDEFINED_TEXT]:
                del holder[key]
            todo.extend(holder.values())
        elif isinstance(holder, list):
            holder[:] = [None if inner == UNDEFINED_TEXT else inner for inner in holder]
            todo.extend(holder)
    return value


_ID = struct.Struct("<d")


def pack_chunk(request_id: int, chunk: bytes | bytearray | memoryview) -> bytes:
    """Return the binary frame that carries ``chunk`` to the caller of ``request_id``: the id as a double, then it.

    Threads: any.
    """
    return b"".join((_ID.pack(request_id), chunk))


def unpack_chunk(frame: bytes) -> tuple[int, bytes]:
    """Return the request id and the chunk of a binary frame.

    Raises: ProtocolError for a frame shorter than an id, and for an id that is no natural number below 2**53.
    Threads: any.
    """
    if len(frame) < _ID.size:
        raise ProtocolError("a binary frame without an id")
    (number,) = _ID.unpack_from(frame)
    if not 0 <= number < LARGEST_ID or number != int(number):  # NaN is in no range
        raise ProtocolError("a binary frame with an impossible id")
    return int(number), frame[_ID.size :]
