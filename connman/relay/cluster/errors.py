"""What may come of asking other relays for a spare, beside a spare and none."""

from connman.errors import ConnmanError


class BrokerLost(ConnmanError):
    """The broker cannot be asked now: whether there is such a provider elsewhere is not known.

    Threads: a value.
    """


class RemoteRefused(ConnmanError):
    """The relay that has the name gave no spare, and this is why.

    Threads: a value.
    """

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")

    def __reduce__(self) -> tuple[type["RemoteRefused"], tuple[int, str]]:
        return RemoteRefused, (self.code, self.reason)
