"""A stand-in until the streams are here."""

from typing import Any


def is_stream(value: object) -> bool:
    return False


class Streams:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.uploads: dict[str, Any] = {}

    def response(self, call: Any, message: dict[str, Any]) -> None:
        pass

    def binary(self, frame: bytes) -> None:
        self.session.count_invalid()

    def control(self, message: dict[str, Any]) -> None:
        pass

    def pull(self, message: dict[str, Any]) -> None:
        pass

    def end(self, error: Exception) -> None:
        pass

    def upload(self, args: Any) -> Any:
        from connman.rpc.codec import encode

        return encode(args), None

    def unwrap(self, args: list[Any]) -> list[Any]:
        return args

    def send(self, request_id: int, window: int | None, value: object) -> None:
        pass

    def open(self, service: int | str, args: Any, timeout: float | None) -> Any:
        raise NotImplementedError


class Stream:
    """A stand-in."""
