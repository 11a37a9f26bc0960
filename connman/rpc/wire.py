"""The messages of calls: what is written without a codec, and what a frame must hold to be one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from connman.records import Data
from connman.rpc.codec import encode

LARGE = 64 * 1024
"""Letters from which on a request is large: those that wait are bounded together, all others by their number."""
MOST_ERROR_TEXT = 16 * 1024
"""Characters of an error's message that travel."""
MARGIN = 128
"""Bytes of a message beside its payload, for what stands around that."""
STREAM_MARK = "$__stream$"
"""The key of an argument that is a stream: its value is the id of a service that sends it."""


def size_of(data: Data) -> int:
    """Return the bytes of a message or a chunk: of text in UTF-8, three for half of a surrogate pair.

    Threads: any; pure.
    """
    if isinstance(data, str) and not data.isascii():
        return len(data.encode("utf-8", "surrogatepass"))
    return len(data)


def whole(value: object) -> int | None:
    """Return ``value`` as an int if it is a whole number (1.0 is one in JavaScript), else None.

    Threads: any; pure.
    """
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def service_id(value: object) -> int | str | None:
    """Return ``value`` if it can be the id of a service in a request: a whole number or a text, not an empty one.

    Threads: any; pure.
    """
    return value if isinstance(value, str) and value else whole(value)


def checked_service_id(value: object) -> int | str:
    """Return ``value`` if a service may be registered or called under it.

    Raises: ValueError for what is neither a positive int nor a text, or an empty one.
    Threads: any; pure.
    """
    if (type(value) is int and value > 0) or (isinstance(value, str) and value):
        return value
    raise ValueError(
        f"WSP-SN3: a service id is an int above 0 or a text that is not empty, not {type(value).__name__}"
        + (f" {value}" if isinstance(value, int | float) else "")
    )


def spread(args: object) -> list[Any]:
    """Return a request's arguments as a list, as JavaScript's spread does: of a text its characters.

    Raises: TypeError for what cannot be spread.
    Threads: any; pure.
    """
    if type(args) is list:
        return args
    if isinstance(args, str):
        return list(args)
    kind = {type(None): "null", dict: "object", bool: "boolean", int: "number", float: "number"}.get(
        type(args)
    )
    raise TypeError(f"args is not a list but {kind or type(args).__name__}")


def request(service: int | str, args: str, extra: str = "") -> str:
    """Return what follows the id of a request; ``args``: encoded already, ``extra``: more fields, each behind a comma.

    Threads: any; pure.
    """
    name = service if isinstance(service, int) else _encoded(service)
    return f'"type":"request","serviceId":{name},"args":{args}{extra}}}'


@lru_cache(maxsize=256)
def _encoded(service: str) -> str:
    return encode(service)


def answer(data: str) -> str:
    """Return what follows the id of a response that carries ``data``, encoded already.

    Threads: any; pure.
    """
    return f'"type":"data","data":{data}}}'


def failure(name: str, message: str, code: object = None) -> str:
    """Return what follows the id of a response that carries an error.

    Threads: any; pure.
    """
    return f'"type":"error","error":{_details(name, message, code)}}}'


def _details(name: str, message: str, code: object) -> str:
    error: dict[str, Any] = {"name": name, "message": message[:MOST_ERROR_TEXT]}
    if isinstance(code, str | int) and not isinstance(code, bool):
        error["code"] = code if isinstance(code, int) and abs(code) < 2**53 else str(code)[:200]
    return encode(error)


def failure_of(error: BaseException) -> str:
    """Return what follows the id of a response that carries what a service raised.

    Threads: any; it runs the error's own ``__str__``.
    """
    return f'"type":"error","error":{told(error)}}}'


def told(error: BaseException) -> str:
    """Return what is told of an error, as JSON.

    Threads: any; it runs the error's own ``__str__``.
    """
    try:
        message = str(error)
    except Exception:  # user code
        message = ""
    try:
        code = getattr(error, "code", None)
    except Exception:  # user code
        code = None
    return _details(type(error).__name__, message, code)


def unknown_service(service: int | str) -> str:
    """Return what follows the id of the response for a service that is not there.

    Threads: any; pure.
    """
    kind = "string" if isinstance(service, str) else "number"
    # The model's own text, its slip included.
    return failure("TypeError", f"Not a function: Servcie ID {str(service)[:200]} [{kind}]", UNKNOWN_SERVICE)


UNKNOWN_SERVICE = "UNKNOWN-SERVICE"
TOO_BUSY = failure("TooBusy", "too many calls are waiting here already", "TOO-BUSY")
TOO_BIG = failure("MessageTooBig", "the answer is larger than a message may be", "TOO-BIG")
NOT_KEPT = failure("Error", "it has run already, and its answer is not kept", "NOT-KEPT")
BYTES = failure("TypeError", "Binary data must be sent from a SimpleReadStream")
