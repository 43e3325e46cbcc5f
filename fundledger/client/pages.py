"""Python client: reader of lists that a service returns in pages."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, TypeVar

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
        given = {name: value for name, value in query.items() if value is not None}
        while True:
            page = self._decode(await connection.ask("GET", path, query=given))
            for item in page.items:
                yield item
            if page.following is None:
                return
            given[self._position] = str(page.following)
