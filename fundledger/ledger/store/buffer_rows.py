"""Buffered credits in the ledger's store: read, write and delete rows of `buffered_entries`. See `rules.buffer`."""

from collections.abc import Iterable
from typing import Any, Final

import asyncpg
import msgspec

from fundledger.ledger.context import Books
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import BALANCE_MAX, Account, Status, SubAccount
from fundledger.ledger.model.batch import Batch, BufferedCredit
from fundledger.ledger.rules.buffer import what_is_wrong
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.rows import take
from fundledger.security import canonical

KNOWN_MAX: Final = 10_000


async def read_deferred(
    connection: "asyncpg.Connection[asyncpg.Record]",
    books: Books,
    batch: Batch,
    accounts: Iterable[Account],
    known: dict[int, SubAccount],
) -> list[Account]:
    """Return the accounts whose credits the batch posts directly. Add the accounts whose credits it buffers to
    `batch.deferred`.

    `known[number]` is the cached slot 0 of an account that takes buffered credits. No row is locked, because the write
    of the batch fails if an account no longer takes buffered credits. Raises KeyFault, asyncpg errors.
    """
    if len(known) > KNOWN_MAX:
        known.clear()
    unknown: dict[int, list[Account]] = {}
    for account in accounts:
        seen = known.get(account.number)
        if seen is None:
            unknown.setdefault(account.shard, []).append(account)
        else:
            batch.deferred[account.number] = seen
    unsuited = []
    for shard, of_shard in unknown.items():
        by_number = {account.number: account for account in of_shard}
        rows = await connection.fetch(SQL["read_sub_accounts"], shard, list(by_number), [0] * len(of_shard))
        for row in rows:
            account = by_number.pop(row[0])
            take(batch, books, account, shard, row)
            first = batch.sub_accounts.pop(account.number << 16)
            if first.status == Status.OPEN and first.buffered and abs(first.posted) < BALANCE_MAX // 2:
                batch.deferred[account.number] = known[account.number] = first
            else:
                # The caller locks the row and reads it again. If the row does not verify then, the caller records a
                # finding.
                batch.tampered.pop(account.number << 16, None)
                unsuited.append(account)
        unsuited += by_number.values()
    return unsuited


async def write_buffered(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
    """Insert the buffered credits of a batch. Fails (SQLSTATE FL002) if an account no longer takes buffered credits."""
    of: dict[int, int] = {}
    for number, _, _ in batch.buffered:
        of[number] = of.get(number, 0) + 1
    at = dict.fromkeys(of, 0)
    key = batch.key
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
    for account_number, (module, voucher_id), amount in batch.buffered:
        at[account_number] += 1
        row = (account_number, at[account_number], of[account_number], voucher_id, amount)
        message = canonical.buffered_2(
            module,
            account_number,
            batch.number,
            at[account_number],
            of[account_number],
            voucher_id.bytes,
            amount,
            batch.date_ordinal,
            batch.posted_at_us,
            key.version,
        )
        for column, value in zip(columns, (*row, key.tag(message), module), strict=True):
            column.append(value)
    accounts = [batch.deferred[number].account for number in sorted(of)]
    await connection.execute(
        SQL["write_buffered"],
        batch.number,
        batch.accounting_date,
        clock.moment(batch.posted_at_us),
        key.version,
        *columns,
        [account.number for account in accounts],
        [account.shard for account in accounts],
    )


async def read_backlog(
    connection: "asyncpg.Connection[asyncpg.Record]",
    books: Books,
    batch: Batch,
    numbers: Iterable[int],
    rows_max: int | None = None,
) -> None:
    """Read and verify the buffered credits of these accounts. The caller has locked slot 0 of each account.

    Raises KeyFault.

    `rows_max`: maximum number of rows to read for each account, oldest first; None for all. All rows that one batch
    wrote are read together, even if their number exceeds `rows_max`.
    """
    wanted = list(numbers)
    batch.backlog = {number: [] for number in wanted}
    for row in await connection.fetch(SQL["read_buffered"], wanted, rows_max):
        batch.backlog[row["account_number"]].append(buffered_credit(row))
    for number, rows in batch.backlog.items():
        if batch.sub_accounts[number << 16].status == Status.FROZEN_INTEGRITY:
            # The account was frozen earlier, so its buffered credits are kept as evidence and are not drained.
            continue
        wrong = what_is_wrong(books.keys, number, rows)
        if wrong is not None:
            batch.tampered[number << 16] = msgspec.json.encode({"buffered": wrong}).decode()
            batch.sub_accounts[number << 16].status = Status.FROZEN_INTEGRITY


def buffered_credit(row: Iterable[Any]) -> BufferedCredit:
    """Decode a row of `sql/read_buffered.sql`."""
    _, batch, number, of, voucher_id, amount, accounting_date, posted_at, key_version, mac, module = row
    us = clock.us(posted_at)
    return BufferedCredit(batch, number, of, voucher_id, amount, accounting_date, us, key_version, mac, module)


async def delete_drained(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
    """Delete the buffered rows that this batch posts. Fails with SQLSTATE FL001 if one of these rows is missing."""
    keys = list(dict.fromkeys((number, row.batch) for number, row in batch.drained))
    numbers, batches = [number for number, _ in keys], [of for _, of in keys]
    await connection.execute(SQL["delete_drained"], numbers, batches, len(batch.drained))
