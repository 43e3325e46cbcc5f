"""Python client: reader of lists that a service returns in pages."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from fundledger.client.connection import Answer, Connection, decoder

Item = TypeVar("Item")


class Pages(Generic[Item]):
    """Reader of a list that a service returns in pages. The member `name` of a page has the items; their type is
    `items`.

    `following` is the name of the member that has the position of the next page. On the last page this member is
    missing or None. `position` is the name of the query parameter that sends the position.
    """

    def __init__(
        self, items: type[list[Item]], name: str, following: str = "next_cursor", position: str = "cursor"
    ) -> None:
        fields: list[Any] = [("items", items), ("following", str | int | None, None)]
        names = {"items": name, "following": following}
        self._decode: Callable[[Answer], Any] = decoder(msgspec.defstruct("Page", fields, rename=names))
        self._position = position

    async def read(self, connection: Connection, path: str, query: Mapping[str, str | None]) -> AsyncIterator[Item]:
        """Yield the items of all pages. Query parameters that are None are omitted. Raises Refused and faults."""
        position: str | None = None
        while True:
            items, position = await self.page(connection, path, query, position)
            for item in items:
                yield item
            if position is None:
                return

    async def page(
        self, connection: Connection, path: str, query: Mapping[str, str | None], position: str | None
    ) -> tuple[list[Item], str | None]:
        """Return the items of the page at a position, and the position of the next page, None on the last page.
        Raises Refused and faults.
        """
        given = {name: value for name, value in query.items() if value is not None}
        if position is not None:
            given[self._position] = position
        page = self._decode(await connection.ask("GET", path, query=given))
        return page.items, None if page.following is None else str(page.following)


class Page(Protocol):
    """A page of a list. `next_cursor`: the cursor of the next page, None on the last page."""

    @property
    def next_cursor(self) -> str | None: ...


AnyPage = TypeVar("AnyPage", bound=Page)


async def each_page(
    connection: Connection, path: str, query: Mapping[str, str | None], decode: Callable[[Answer], AnyPage]
) -> AsyncIterator[AnyPage]:
    """Yield all pages of a list. Query parameters that are None are omitted. Raises Refused and faults."""
    given = {name: value for name, value in query.items() if value is not None}
    while True:
        page = decode(await connection.ask("GET", path, query=given))
        yield page
        if page.next_cursor is None:
            return
        given["cursor"] = page.next_cursor
