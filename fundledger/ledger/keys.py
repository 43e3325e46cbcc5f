"""The keys of a ledger, compared with what its database says of them."""

import contextlib
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

import asyncpg

from fundledger.ledger.directory import account_message, message_of
from fundledger.ledger.statements import SQL
from fundledger.security.key_record import Evidence, KeyRecord
from fundledger.security.keys import FileKeys

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def ledger_keys(folder: Path) -> KeyRecord:
    return KeyRecord("ledger", folder, SQL)


async def open_keys(connection: Connection, folder: Path) -> FileKeys:
    """The keys of the ledger that the connection reaches; one that was added is used from the next migration on, which
    records it. Writes nothing; not to be called in a transaction.

    Raises KeyFault when one is missing or is another one.
    """
    return FileKeys(folder, await check_keys(connection, folder))


async def check_keys(connection: Connection, folder: Path) -> Collection[int]:
    """Compare the keys in a folder with what the ledger's database says. Answers the versions that it has a record of;
    none in a ledger of before there were records. Writes nothing; not to be called in a transaction. Raises KeyFault.
    """
    record = ledger_keys(folder)
    recorded = await record.recorded(connection)
    record.check(recorded, {} if recorded else await read_evidence(connection))
    return recorded


async def settle_keys(connection: Connection, folder: Path) -> FileKeys:
    """As `KeyRecord.settle`, of the ledger."""
    record = ledger_keys(folder)
    recorded = await record.recorded(connection)
    return await record.settle(connection, recorded, {} if recorded else await read_evidence(connection))


async def read_evidence(connection: Connection) -> Evidence:
    """Some accounts of each key version, and each version that sub-accounts have. Reads all accounts once."""
    found: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for row in await connection.fetch(SQL["key_versions"]):
        found[row["key_version"]] = []
    numbers = [row["number"] for row in await connection.fetch(SQL["key_evidence"])]
    try:
        rows = await connection.fetch(SQL["accounts_by_number"], numbers)
    except asyncpg.UndefinedColumnError:
        # A schema that is not migrated yet: its MACs are of layout 1.
        rows = await connection.fetch(SQL["accounts_of_layout_1"], numbers)
    for row in rows:
        # What cannot even be read is for `verify` to find.
        with contextlib.suppress(Exception):
            message = message_of(row) if "layout" in row else account_message(row, 1, 1, False, row["key_version"])
            found[row["key_version"]].append((message, row["mac"]))
    return dict(found)
