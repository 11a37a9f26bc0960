"""A file that is read again when it has changed: tokens and keys come and go while the relay runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from connman.errors import InvalidOption

logger = logging.getLogger("connman.relay")

LARGEST_FILE = 16 * 1024 * 1024
SETTLED = 2.0
"""Seconds after a change in which another may leave the same time stamp: so long the file is read anyway."""

_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """Hold what ``parse`` makes of a file's bytes, and read it again when it has changed.

    It is looked at when `get` is called, at most once in ``interval`` seconds. When it cannot be read any more, or
    ``parse`` raises InvalidOption, what was read before stays, and the log says why, once for each change. A change that
    ``is_whole`` denies is taken when nobody has written for two seconds: until then the rest may be on its way.

    Raises: InvalidOption when it cannot be read or parsed the first time.
    Threads: one at a time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parse: Callable[[bytes], _T],
        *,
        interval: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        is_whole: Callable[[bytes], bool] = lambda _content: True,
    ) -> None:
        self._path = Path(path)
        self._parse = parse
        self._is_whole = is_whole
        self._interval = interval
        self._now = now
        self._looked_at = now()
        self._seen: tuple[int, ...] = ()
        self._settled = False
        self._content = b""
        self._complaint = ""
        self._value = self._parsed(self._read())

    def get(self) -> _T:
        """Return what the file holds, as it was at most ``interval`` seconds ago.

        Threads: one at a time.
        """
        now = self._now()
        if now - self._looked_at >= self._interval:
            self._looked_at = now
            self._refresh()
        return self._value

    def _refresh(self) -> None:
        try:
            if self._settled and self._stamp(self._path.stat()) == self._seen:
                return
            before = self._content
            content = self._read()
            if not (self._settled or self._is_whole(content)):
                self._content = before  # it is looked at again, since it has not settled
            elif content != before:
                self._value = self._parsed(content)
                logger.info("%s has been read again", self._path.name)
            self._complaint = ""
        except (InvalidOption, OSError) as error:
            text = str(error)
            # A broken file is looked at again and again, and told of once.
            if text != self._complaint:
                self._complaint = text
                logger.error("%s, so what it said before goes on to hold", text)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                # Of the file that is open, and before it is read: what is written meanwhile shows in the next look.
                status = os.fstat(file.fileno())
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise InvalidOption(f"{self._path} cannot be read: {error.strerror}") from None
        if len(content) > LARGEST_FILE:
            raise InvalidOption(f"{self._path} is larger than {LARGEST_FILE} bytes")
        self._seen = self._stamp(status)
        # Or written by a clock that is ahead of ours: nothing is told by its age then.
        self._settled = abs(time.time() - status.st_mtime) > SETTLED
        self._content = content
        return content

    def _parsed(self, content: bytes) -> _T:
        try:
            return self._parse(content)
        except InvalidOption as error:
            raise InvalidOption(f"{self._path}: {error}") from None

    @staticmethod
    def _stamp(status: os.stat_result) -> tuple[int, ...]:
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
