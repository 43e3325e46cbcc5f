"""`fundledger hot list|split|merge`: hot accounts, for operators; beside the service, or without it."""

import json
from datetime import time
from zoneinfo import ZoneInfo

import asyncpg

from fundledger.app.claims import CannotServe
from fundledger.app.databases import database
from fundledger.app.settings import Settings
from fundledger.database.migrations import SchemaFault
from fundledger.hotspot.keeper import SQL
from fundledger.ledger.batch import Outcome, Resplit
from fundledger.ledger.books import Books
from fundledger.ledger.clock import AccountingCalendar
from fundledger.ledger.directory import AccountTampered, Directory
from fundledger.ledger.fault import Fault
from fundledger.ledger.keys import open_keys
from fundledger.ledger.migrate import read_layout
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.session import Session
from fundledger.ledger.slots import SLOTS_MAX
from fundledger.security.keys import KeyFault


async def run_list(settings: Settings, *, as_json: bool = False) -> int:
    """Print the accounts that are hot or split, and why. Raises CannotServe."""
    try:
        async with database(settings) as dsn:
            connection = await _connect(dsn)
            try:
                rows = await connection.fetch(SQL["list_hot"])
            finally:
                await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"hot accounts cannot be read: {error}") from None
    if as_json:
        print(json.dumps({"accounts": [dict(row) for row in rows]}, default=lambda at: at.isoformat()))
        return 0
    width = max([len(row["id"]) for row in rows], default=0)
    for row in rows:
        since = row["since"].isoformat(timespec="seconds")
        told = f"utilisation {row['utilisation']:.2f}  {row['slots']} slots  since {since}  {row['reason'] or ''}"
        print(f"{row['id']:{width}}  {row['state']:7}  {told}".rstrip())
    if not rows:
        print("no account is hot or split")
    return 0


async def run_resplit(settings: Settings, account_id: str, slots: int, reason: str) -> int:
    """Splits or merges an account; 1 when that is refused. Raises CannotServe."""
    if not 1 <= slots <= SLOTS_MAX:
        raise CannotServe(f"--slots {slots}: accepted is 1 to {SLOTS_MAX}")
    try:
        async with database(settings) as dsn:
            outcome = await _resplit(dsn, settings, account_id, slots, reason)
    except (OSError, KeyFault, AccountTampered, SchemaFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotServe(f"the account cannot be split or merged: {error}") from None
    if isinstance(outcome, Fault):
        raise CannotServe(f"the account cannot be split or merged: {outcome}")
    if outcome.refusal is not None:
        print(f"refused: {outcome.refusal.detail}")
        return 1
    print(f"{account_id}: {slots} {'slot' if slots == 1 else 'slots'}{', as before' if outcome.replay else ''}")
    return 0


async def _resplit(dsn: str, settings: Settings, account_id: str, slots: int, reason: str) -> Outcome | Fault:
    connection = await _connect(dsn)
    keys = await open_keys(connection, settings.data_dir / "keys")
    directory = Directory(keys)
    session = Session(dsn, "fundledger hot")
    try:
        account = (await directory.resolve(connection, [account_id])).get(account_id)
        if account is None:
            raise CannotServe(f"there is no account {account_id}")
        if account.type.platform:
            raise CannotServe(f"{account_id} is a platform account: its slots are fixed when the ledger is initialised")
        calendar = AccountingCalendar(ZoneInfo(settings.accounting_timezone), settings.accounting_cut or time(0))
        books = Books(keys, directory, await read_layout(connection), calendar, 0)
        return (await post_vouchers(session, books, [Resplit(account, slots, reason, "operator")]))[0]
    finally:
        await session.close()
        await connection.close()


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "fundledger hot"})
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise CannotServe(f"the account database cannot be reached: {error or type(error).__name__}") from None
