"""Keys in the ledger's store: compare the key files with the key record in the database."""

import contextlib
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

import asyncpg

from fundledger.ledger.store.directory import account_message, message_of
from fundledger.ledger.store.queries import SQL
from fundledger.security.key_record import Evidence, KeyRecord
from fundledger.security.keys import FileKeys

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def ledger_keys(folder: Path) -> KeyRecord:
    return KeyRecord("ledger", folder, SQL)


async def open_keys(connection: Connection, folder: Path) -> FileKeys:
    """Return the keys of the ledger to which `connection` is connected. Do not call this function in a transaction.

    Writes nothing. A key that was added to the folder is used only after the next migration has recorded it. Raises
    KeyFault when a key is missing or differs.
    """
    return FileKeys(folder, await check_keys(connection, folder))


async def check_keys(connection: Connection, folder: Path) -> Collection[int]:
    """Compare the keys in a folder with the key record in the database. Return the recorded versions.

    The result is empty for a ledger that was created before keys were recorded. Writes nothing. Do not call this
    function in a transaction. Raises KeyFault when a key is missing or differs.
    """
    record = ledger_keys(folder)
    recorded = await record.recorded(connection)
    record.check(recorded, {} if recorded else await read_evidence(connection))
    return recorded


async def settle_keys(connection: Connection, folder: Path) -> FileKeys:
    """Check the keys in a folder, record new keys, and create the first key if no row was ever written with a key.

    Call this function in the transaction that brings the schema up to date. Raises KeyFault when a key is missing or
    differs.
    """
    record = ledger_keys(folder)
    recorded = await record.recorded(connection)
    return await record.settle(connection, recorded, {} if recorded else await read_evidence(connection))


async def read_evidence(connection: Connection) -> Evidence:
    """Return rows by which keys without a fingerprint can be checked: a list of `(content, MAC)` for each key version.

    The rows are the first accounts of each key version. A version that occurs only in sub-accounts has an empty list.
    Scans all accounts and sub-accounts.
    """
    found: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for row in await connection.fetch(SQL["key_versions"]):
        found[row["key_version"]] = []
    numbers = [row["number"] for row in await connection.fetch(SQL["key_evidence"])]
    try:
        rows = await connection.fetch(SQL["accounts_by_number"], numbers)
    except asyncpg.UndefinedColumnError:
        # The schema is not migrated yet, so its MACs are of layout 1.
        rows = await connection.fetch(SQL["accounts_of_layout_1"], numbers)
    for row in rows:
        # Rows that cannot be decoded are skipped here. The command `verify` reports such rows.
        with contextlib.suppress(Exception):
            message = message_of(row) if "layout" in row else account_message(row, 1, 1, False, row["key_version"])
            found[row["key_version"]].append((message, row["mac"]))
    return dict(found)
