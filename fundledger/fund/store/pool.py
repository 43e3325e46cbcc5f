"""Store of the fund service: the pool of connections to its database."""

from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


BY_INDEX: Final = {
    "jit": "off",
    # A query plan may be cached while a table is empty. It must not scan the table after the table has grown.
    "enable_seqscan": "off",
}


class _Lasting(_Connection):
    """A connection that is not reset when it is released to the pool. This saves a round trip. It is safe, because no
    query changes the state of the session.
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
