"""What the HTTP side of the fund service needs of parts that are put together elsewhere."""

from typing import Any, NamedTuple, Protocol


class Whose(NamedTuple):
    """A merchant, as limits know him: the account that money leaves, and the owner of that."""

    id: str
    owner: str


class Feed(Protocol):
    """`outbox/`: the events of the fund database. `lag_s`: for how long one cannot be read yet."""

    @property
    def lag_s(self) -> float: ...

    async def read(self, after: int, limit: int, wait_s: float, caller: str = "") -> Any:
        """A page, as JSON or for it. Raises TooManyWait, CallerWaitsTooMuch, and what asyncpg raises."""
