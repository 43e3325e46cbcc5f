"""Connections to the fund database."""

from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


BY_INDEX: Final = {
    "jit": "off",
    # A plan that is cached while a table is empty must not scan the table after it has grown.
    "enable_seqscan": "off",
}


class _Lasting(_Connection):
    """A connection that is not reset when it is released. This saves a round trip, and is safe because no session state
    is used.
    """

    def get_reset_query(self) -> str:
        return ""


async def open_pool(dsn: str, name: str, size: int) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a pool of at most `size` connections. Raises what asyncpg raises."""
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        connection_class=_Lasting,
        command_timeout=30,
        server_settings={"application_name": name[:63], **BY_INDEX},
    )
