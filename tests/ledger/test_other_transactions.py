"""Queries for the state of other transactions, tested beside transactions that only one condition distinguishes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.ledger.store.queries import SQL
from fundledger.outbox.watermark import SQL as OUTBOX
from tests.support.database import ONE_SHARD, Databases

ENTRY = """
INSERT INTO ledger.entries (shard, account_number, slot, seq, voucher_id, amount, balance_after, accounting_date, posted_at,
                            key_version, mac)
VALUES (0, 1, 0, $1, gen_random_uuid(), 1, 1, '2026-01-02', now(), 1, 'm')
"""


@contextlib.asynccontextmanager
async def transaction(
    dsn: str, *statements: str
) -> AsyncIterator[tuple["asyncpg.Connection[asyncpg.Record]", int | None]]:
    """Open a transaction and run these statements in it. Yield the transaction id, None if it has none."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in ("BEGIN", *statements):
            await connection.execute(statement)
        yield connection, await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text::bigint")
    finally:
        await connection.close()


async def test_entry_writers_are_those_that_have_an_id_and_lock_the_entries_of_this_database(
    postgres: Databases,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        here, elsewhere = await postgres.new(), await postgres.new()
        stack.push_async_callback(postgres.drop, here)
        stack.push_async_callback(postgres.drop, elsewhere)
        entry = ENTRY.replace("$1", "1")
        given_id = "SELECT pg_current_xact_id()"
        _, writer = await stack.enter_async_context(transaction(here, entry))
        _, first = await stack.enter_async_context(transaction(here, ENTRY.replace("$1", "2")))
        # These are no writers: another relation, another mode, no id yet, another database with a relation of the same
        # number.
        await stack.enter_async_context(transaction(here, given_id, "LOCK TABLE ledger.vouchers IN ROW EXCLUSIVE MODE"))
        await stack.enter_async_context(transaction(here, given_id, "LOCK TABLE ledger.entries IN ACCESS SHARE MODE"))
        await stack.enter_async_context(transaction(here, "LOCK TABLE ledger.entries IN ROW EXCLUSIVE MODE"))
        await stack.enter_async_context(transaction(elsewhere, entry))
        own, _ = await stack.enter_async_context(transaction(here, ENTRY.replace("$1", "3")))
        rows = await own.fetch(SQL["entry_writers"])
        assert sorted(row["id"] for row in rows) == sorted([writer, first])


async def test_an_entry_writer_that_waits_for_its_lock_is_none_yet(postgres: Databases) -> None:
    async with postgres.a_database() as dsn, contextlib.AsyncExitStack() as stack:
        holder, _ = await stack.enter_async_context(transaction(dsn, "LOCK TABLE ledger.entries IN SHARE MODE"))
        waiter, _ = await stack.enter_async_context(transaction(dsn, "SELECT pg_current_xact_id()"))
        pid = waiter.get_server_pid()
        waiting = asyncio.create_task(waiter.execute(ENTRY.replace("$1", "1")))
        while not await holder.fetchval("SELECT pg_blocking_pids($1)", pid):
            await asyncio.sleep(0)  # polls the server once
        assert await holder.fetch(SQL["entry_writers"]) == []
        await holder.close()
        await waiting


async def test_running_transactions_are_those_asked_for_that_are_not_over(postgres: Databases) -> None:
    async with postgres.a_database() as dsn, contextlib.AsyncExitStack() as stack:
        _, one = await stack.enter_async_context(transaction(dsn, "SELECT pg_current_xact_id()"))
        _, two = await stack.enter_async_context(transaction(dsn, "SELECT pg_current_xact_id()"))
        async with transaction(dsn, "SELECT pg_current_xact_id()") as (_, over):
            pass
        own, _ = await stack.enter_async_context(transaction(dsn))
        for asked, running in (([one, over], [one]), ([two], [two]), ([over], []), ([], [])):
            assert [row["id"] for row in await own.fetch(SQL["running_transactions"], asked)] == running


async def test_running_are_the_other_transactions_of_this_database_that_have_an_id(postgres: Databases) -> None:
    async with contextlib.AsyncExitStack() as stack:
        here, elsewhere = await postgres.new(), await postgres.new()
        stack.push_async_callback(postgres.drop, here)
        stack.push_async_callback(postgres.drop, elsewhere)
        _, one = await stack.enter_async_context(transaction(here, "SELECT pg_current_xact_id()"))
        await stack.enter_async_context(transaction(here, "SELECT 1"))
        await stack.enter_async_context(transaction(elsewhere, "SELECT pg_current_xact_id()"))
        own, _ = await stack.enter_async_context(transaction(here, "SELECT pg_current_xact_id()"))
        assert [row["xid"] for row in await own.fetch(OUTBOX["running"])] == [one]


@pytest.mark.parametrize("statement", ["sample_ledger", "sample_fund"])
async def test_a_sample_has_the_id_of_its_own_transaction(postgres: Databases, statement: str) -> None:
    dsn = await postgres.standing(ONE_SHARD if statement == "sample_ledger" else None)
    async with transaction(dsn) as (connection, _):
        row = await connection.fetchrow(OUTBOX[statement])
        assert row is not None
        assert row["xid"] == await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
