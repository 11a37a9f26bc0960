"""Who is on a presence channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Member:
    """One user on a presence channel: the id, and what the application's server says of that user (or None)."""

    id: str
    info: Any = None


class Members:
    """The users on a presence channel, as far as the server has told; empty while it is not subscribed.

    Iterating gives those of the moment it begins.

    Threads: every method from any thread; what changes it is the reader's.
    """

    def __init__(self) -> None:
        # Replaced or changed by one operation at a time, each of which is atomic: readers need no lock.
        self._by_id: dict[str, Member] = {}
        self.my_id: str | None = None

    @property
    def me(self) -> Member | None:
        """This client's own user, None while it is not subscribed."""
        return None if self.my_id is None else self._by_id.get(self.my_id)

    def get(self, user_id: str | int) -> Member | None:
        """Return the user of that id, which may be a number as the application has it; None when there is none.

        Threads: any.
        """
        return self._by_id.get(str(user_id))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, user_id: object) -> bool:
        return str(user_id) in self._by_id

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._by_id.values()))

    def reset(self, data: Any = None) -> None:
        """Take over what the server says at the subscription; nobody without it, or when it makes no sense.

        Threads: the reader.
        """
        presence = data.get("presence") if isinstance(data, dict) else None
        ids, users = (
            (presence.get("ids"), presence.get("hash")) if isinstance(presence, dict) else (None, None)
        )
        known = users if isinstance(users, dict) else {}
        # Of users of whom nothing is known, soketi has the id alone.
        listed = map(_text, ids if isinstance(ids, list) else ())
        self._by_id = {one: Member(one, known.get(one)) for one in (*listed, *known) if one}
        if data is None:
            self.my_id = None

    def add(self, data: Any) -> Member | None:
        """Add the user that ``data`` tells of; None when it tells of none.

        Threads: the reader.
        """
        user_id = _id(data)
        if user_id is None:
            return None
        member = self._by_id[user_id] = Member(user_id, data.get("user_info"))
        return member

    def remove(self, data: Any) -> Member | None:
        """Take out the user that ``data`` tells of and return it; None when there is none.

        Threads: the reader.
        """
        user_id = _id(data)
        return None if user_id is None else self._by_id.pop(user_id, None)


def _id(data: Any) -> str | None:
    return _text(data.get("user_id")) if isinstance(data, dict) else None


def _text(user_id: Any) -> str | None:
    # Applications number their users; the key of the server's own list is a text all the same.
    is_one = isinstance(user_id, str | int) and not isinstance(user_id, bool)
    return str(user_id) or None if is_one else None
