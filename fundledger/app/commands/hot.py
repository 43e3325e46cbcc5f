"""CLI commands `fundledger hot list`, `split` and `merge`: hot accounts, with or without a running service."""

import json

import asyncpg

from fundledger.app.account.jobs.table import open_books
from fundledger.app.host.postgres.databases import database
from fundledger.app.host.preflight import CannotServe
from fundledger.database.migrations import SchemaFault
from fundledger.faults import Fault
from fundledger.hotspot.rebalancer import SQL
from fundledger.ledger.model.batch import Outcome, Resplit
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.rules.slots import SLOTS_MAX
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.session import Session
from fundledger.security.keys import KeyFault
from fundledger.settings import Settings


async def run_list(settings: Settings, *, as_json: bool = False) -> int:
    """Print the accounts that are hot or split, with the reason. Raises CannotServe."""
    try:
        async with database(settings) as dsn:
            connection = await _connect(dsn)
            try:
                rows = await connection.fetch(SQL["list_hot"])
            finally:
                await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"cannot read hot accounts: {error}") from None
    if as_json:
        print(json.dumps({"accounts": [dict(row) for row in rows]}, default=lambda at: at.isoformat()))
        return 0
    width = max([len(row["id"]) for row in rows], default=0)
    for row in rows:
        since = row["since"].isoformat(timespec="seconds")
        details = f"utilisation {row['utilisation']:.2f}  {row['slots']} slots  since {since}  {row['reason'] or ''}"
        print(f"{row['id']:{width}}  {row['state']:7}  {details}".rstrip())
    if not rows:
        print("no account is hot or split")
    return 0


async def run_resplit(settings: Settings, account_id: str, slots: int, reason: str) -> int:
    """Split or merge an account. Return 1 if the ledger refuses, 0 otherwise. Raises CannotServe."""
    if not 1 <= slots <= SLOTS_MAX:
        raise CannotServe(f"--slots {slots}: accepted is 1 to {SLOTS_MAX}")
    try:
        async with database(settings) as dsn:
            outcome = await _resplit(dsn, settings, account_id, slots, reason)
    except (OSError, KeyFault, AccountTampered, SchemaFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"cannot split or merge the account: {error}") from None
    if isinstance(outcome, Fault):
        raise CannotServe(f"cannot split or merge the account: {outcome}")
    if outcome.refusal is not None:
        print(f"refused: {outcome.refusal.detail}")
        return 1
    print(f"{account_id}: {slots} {'slot' if slots == 1 else 'slots'}{', as before' if outcome.replay else ''}")
    return 0


async def _resplit(dsn: str, settings: Settings, account_id: str, slots: int, reason: str) -> Outcome | Fault:
    books = await open_books(settings, dsn)
    connection = await _connect(dsn)
    session = Session(dsn, "fundledger hot")
    try:
        account = (await books.directory.resolve(connection, [account_id])).get(account_id)
        if account is None:
            raise CannotServe(f"there is no account {account_id}")
        if account.type.platform:
            raise CannotServe(f"{account_id} is a platform account: its slots are fixed when the ledger is initialised")
        return (await post_vouchers(session, books, [Resplit(account, slots, reason, "operator")]))[0]
    finally:
        await session.close()
        await connection.close()


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "fundledger hot"})
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise CannotServe(f"cannot connect to the account database: {error or type(error).__name__}") from None
