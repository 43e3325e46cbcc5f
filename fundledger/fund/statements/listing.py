"""Bank statements of the fund service: the list of imported statements, read page by page."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from fundledger.fund.statements.matching import Outcome
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL


class StatementKey(NamedTuple):
    """The key of a statement. Lists are in the order of their keys."""

    channel: str
    statement_no: str


class ListedStatement(msgspec.Struct, frozen=True):
    """An imported statement. `total` and `difference` are sums over its lines. `counts` has a number for every
    outcome.
    """

    channel: str
    statement_no: str
    currency: str
    at: datetime
    module: str
    lines: int
    total: int
    difference: int
    counts: dict[Outcome, int]


async def list_statements(
    connection: AnyConnection, channel: str | None, after: StatementKey | None, limit: int
) -> list[ListedStatement]:
    """Return at most `limit` statements after the key `after`, of one channel or of all. Raises what asyncpg raises."""
    start = StatementKey(channel or "", "")
    start = start if after is None else max(start, after)
    rows = await connection.fetch(SQL["statements_list"], *start, channel, limit)
    return [
        ListedStatement(
            *(row["channel"], row["statement_no"], row["currency"], row["at"], row["module"], row["lines"]),
            *(int(row["total"]), int(row["difference"]), {outcome: row[outcome] for outcome in Outcome}),
        )
        for row in rows
    ]
