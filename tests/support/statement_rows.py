"""Tables of rows for SQL statements: a statement runs directly on prepared rows, and all its changes are compared.

A file of cases has blocks. A value that a line does not name comes from the `default` lines.

    default orders kind=payment merchant=m state=posted
    == mark_ended: a claim
    given orders a state=sent ending=paid     the first value is the primary key
    given 3 events seq=# order_id=a           three rows; `#` is their number
    setup ALTER TABLE ...                     runs first, if a constraint forbids the given rows
    held orders b                             another transaction holds the row (each `with` has a database of its own then)
    meanwhile UPDATE ...                      another transaction executes this, and commits when the statement waits for it
    show id state                             columns of the returned rows to compare
    unordered                                 the order of the returned rows is not defined
    with a                                    arguments; each `with` starts from the given rows, `again` from the last call
    row id=a state=paid
    orders a: state sent -> paid, due_at +5m -> null
    + events order_id=a state=paid at=now
    locked orders b

A UUID is written as a label of at most 16 characters (`@label` within JSON); labels have the order of their UUIDs. A
time is `now`, `+5m` or `-5m`, relative to the start of the transaction, or ISO 8601. An interval is `5m`. Null columns are
not shown. Inserted rows are in the order of their generated key, which is not shown.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import itertools
import re
import shlex
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from fundledger.ledger.store.accounts import Layout
from tests.support.database import Databases
from tests.support.row_cases import Block, Call, parse, shown, shown_pairs
from tests.support.tampering import any_state


@dataclasses.dataclass
class Table:
    """The columns of a table. `key`: columns of the primary key, or all columns of a table without one. `types`: SQL
    types by column.
    """

    name: str
    key: list[str]
    types: dict[str, str]
    generated: set[str]


# --- Running ---


async def outcome(
    databases: Databases,
    layout: Layout | None,
    statements: dict[str, str],
    defaults: dict[str, dict[str, str]],
    block: Block,
) -> list[list[str]]:
    """Return the outcome of each call of a block, on a database of this layout; with None, on a fund database."""
    async with contextlib.AsyncExitStack() as stack:
        if not block.held and not block.meanwhile:
            connection = await asyncpg.connect(await databases.standing(layout))
            stack.push_async_callback(connection.close)
            return await (await StatementRows(connection, statements, defaults).start()).run(block)
        dsn = await (databases.new(layout) if layout else databases.new_fund())
        stack.push_async_callback(databases.drop, dsn)
        connection, other = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        stack.push_async_callback(other.close)
        return await (await StatementRows(connection, statements, defaults).start()).run_held(block, other)


class StatementRows:
    """Runs blocks of cases on a database, each in a transaction that is rolled back. Use `run`."""

    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        statements: dict[str, str],
        defaults: dict[str, dict[str, str]],
    ) -> None:
        self.connection = connection
        self._statements = statements
        self._defaults = defaults
        self._tables: dict[str, Table] = {}

    async def start(self) -> "StatementRows":
        # No index sorts the rows of a statement that does not request an order.
        await self.connection.execute(
            "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET TimeZone = 'UTC'"
        )
        for name, column, kind, place, generated in await self.connection.fetch(_COLUMNS):
            table = self._tables.setdefault(name, Table(name, [], {}, set()))
            table.types[column] = kind
            if generated:
                table.generated.add(column)
            if place is not None:
                table.key.append(column)
        for table in self._tables.values():
            table.key = table.key or list(table.types)
        return self

    async def run(self, block: Block) -> list[list[str]]:
        """Return the outcome of each call, in the format of a file of cases.

        The given rows are inserted in their order and then, after a rollback, in the reverse order. The outcome has to
        be the same, because a server stores rows in any order.
        """
        found = await self._run(block, backwards=False)
        if len(_repeated(block.given)) > 1:
            assert await self._run(block, backwards=True) == found, "depends on the stored order of rows"
        return found

    async def _run(self, block: Block, *, backwards: bool) -> list[list[str]]:
        found: list[list[str]] = []
        for call in block.calls:
            if call.again:
                continue
            chain = [call, *_following(block.calls, call)]
            async with self._rolled_back():
                now = await self.connection.fetchval("SELECT now()")
                for command in block.setup:
                    await self.connection.execute(command)
                await self._give(block.given, now, backwards=backwards)
                found += [await self._call(block, of, now) for of in chain]
        return found

    async def run_held(self, block: Block, other: "asyncpg.Connection[asyncpg.Record]") -> list[list[str]]:
        """Run one call of a statement while another connection interferes.

        The given rows are committed. The other connection either locks the rows that `held` names, or executes
        `meanwhile` and commits after the statement has begun to wait.
        """
        now = await self.connection.fetchval("SELECT now()")
        pid = self.connection.get_server_pid()
        await self._give(block.given, now)
        transaction = other.transaction()
        await transaction.start()
        for line in block.held:
            table, key = self._table(line.split()[0]), line.split()[1]
            kind = table.types[table.key[0]]
            query = f"SELECT FROM {table.name} WHERE {table.key[0]} = $1 FOR UPDATE"
            await other.execute(query, parse(key, kind, now))
        for command in block.meanwhile:
            await other.execute(command)
        async with self.connection.transaction():
            await self.connection.execute(
                "SET LOCAL lock_timeout = '200ms'" if block.held else "SET LOCAL lock_timeout = '60s'"
            )
            call = asyncio.create_task(self._call(block, block.calls[0], now))
            while block.meanwhile and not call.done() and not await other.fetchval("SELECT pg_blocking_pids($1)", pid):
                await asyncio.sleep(0)  # polls the server once
            if block.meanwhile:
                await transaction.commit()
            found = await call
        if block.held:
            await transaction.rollback()
        return [found]

    @contextlib.asynccontextmanager
    async def _rolled_back(self) -> AsyncIterator[None]:
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            yield
        finally:
            await transaction.rollback()

    def _table(self, name: str) -> Table:
        return next(table for full, table in self._tables.items() if name in (full, full.partition(".")[2]))

    async def _give(self, lines: list[str], now: dt.datetime, *, backwards: bool = False) -> None:
        """Insert the given rows. An order may be given in any state. Backwards, no foreign key is enforced."""
        orders = any("orders" in line.split()[:2] for line in lines)
        async with any_state(self.connection) if orders else contextlib.nullcontext():
            numbered = list(enumerate(_repeated(lines), 1))
            if backwards:
                await self.connection.execute("SET LOCAL session_replication_role = replica")
            await self._insert(numbered[::-1] if backwards else numbered, now)
            await self.connection.execute("SET LOCAL session_replication_role = origin")

    async def _insert(self, numbered: list[tuple[int, str]], now: dt.datetime) -> None:
        for number, line in numbered:
            name, *words = shlex.split(line)
            table = self._table(name)
            values = dict(self._defaults.get(name, {}))
            if "seq" in table.generated:
                values.setdefault("seq", str(number))
            if words and "=" not in words[0]:
                values[table.key[0]] = words.pop(0)
            values.update(word.split("=", 1) for word in words)
            columns = ", ".join(values)
            places = ", ".join(f"${i}" for i in range(1, len(values) + 1))
            await self.connection.execute(
                f"INSERT INTO {table.name} ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places})",
                *(parse(text, table.types[column], now) for column, text in values.items()),
            )

    async def _call(self, block: Block, call: Call, now: dt.datetime) -> list[str]:
        statement = self._statements[block.statement]
        tables = [table for table in self._tables.values() if re.search(rf"\b{re.escape(table.name)}\b", statement)]
        before = [await self._content(table) for table in tables]
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            prepared = await self.connection.prepare(statement)
            kinds = [parameter.name for parameter in prepared.get_parameters()]
            words = shlex.split(call.arguments)
            assert len(words) == len(kinds), f"{block.statement} has {len(kinds)} parameters"
            rows = await prepared.fetch(*(parse(word, kind, now) for word, kind in zip(words, kinds, strict=True)))
        except asyncpg.PostgresError as error:
            await transaction.rollback()
            return [f"error {error.sqlstate} {getattr(error, 'constraint_name', None) or ''}".strip()]
        await transaction.commit()
        found = [
            "row " + shown_pairs([pair for pair in row.items() if not block.show or pair[0] in block.show], now)
            for row in rows
        ]
        found = sorted(found) if block.unordered else found
        for table, old in zip(tables, before, strict=True):
            found += _changes(table, old, await self._content(table), now)
        return _counted([" ".join(line.split()) for line in found]) or ["none"]

    async def _content(self, table: Table) -> dict[tuple[Any, ...], dict[str, Any]]:
        columns = ", ".join(f'"{column}"' for column in table.types)
        rows = await self.connection.fetch(f"SELECT {columns}, xmax::text AS locked FROM {table.name}")
        return {tuple(row[column] for column in table.key): dict(row) for row in rows}


def _counted(lines: list[str]) -> list[str]:
    """Join many identical lines into one line with their number."""
    groups = [(line, len(list(of))) for line, of in itertools.groupby(lines)]
    return [part for line, n in groups for part in ([f"{line} ({n} times)"] if n > 9 else [line] * n)]


def _repeated(lines: list[str]) -> list[str]:
    """Expand a line: `given 3 events seq=# ...` is three rows, numbered from 1."""
    found = []
    for line in lines:
        times, _, rest = line.partition(" ")
        found += [rest.replace("#", str(i)) for i in range(1, int(times) + 1)] if times.isdigit() else [line]
    return found


def _following(calls: list[Call], call: Call) -> list[Call]:
    following = []
    for of in calls[next(i for i, other in enumerate(calls) if other is call) + 1 :]:
        if not of.again:
            break
        following.append(of)
    return following


def _changes(
    table: Table,
    old: dict[tuple[Any, ...], dict[str, Any]],
    new: dict[tuple[Any, ...], dict[str, Any]],
    now: dt.datetime,
) -> list[str]:
    short = table.name.partition(".")[2]
    found = []
    for key in sorted(old, key=str):
        name = "/".join(shown(part, now) for part in key)
        if key not in new:
            found.append(f"- {short} {name}")
            continue
        changed = [c for c in table.types if shown(old[key][c], now) != shown(new[key][c], now)]
        if changed:
            pairs = (f"{c} {shown(old[key][c], now)} -> {shown(new[key][c], now)}" for c in changed)
            found.append(f"{short} {name}: {', '.join(pairs)}")
        elif new[key]["locked"] not in (
            "0",
            old[key]["locked"],
        ):  # a lock of an earlier, rolled back call remains visible
            found.append(f"locked {short} {name}")
    # The generated key has the order of insertion.
    for key in sorted(
        (key for key in new if key not in old), key=lambda key: [(part is None, str(type(part)), part) for part in key]
    ):
        values = ((c, new[key][c]) for c in table.types if c not in table.generated)
        found.append(f"+ {short} {shown_pairs(values, now)}")
    return found


_COLUMNS = """
SELECT n.nspname || '.' || c.relname, a.attname, format_type(a.atttypid, NULL), array_position(i.indkey::int2[], a.attnum),
       a.attidentity <> '' OR (a.attname = 'seq' AND a.atthasdef)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind = 'r' AND n.nspname IN ('fund', 'ledger', 'outbox', 'daemons')
ORDER BY n.nspname, c.relname, array_position(i.indkey::int2[], a.attnum), a.attnum
"""
