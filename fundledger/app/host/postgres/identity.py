"""Identity of Postgres databases: comparison of their ids and keys with the files in the data directory.

If the data directory was used with a database before, an empty or different database is refused. Such a database is
never initialised silently.
"""

from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from fundledger.app.host.preflight import CannotServe
from fundledger.database.statements import load
from fundledger.fund.store.migrate import fund_keys
from fundledger.ledger.store.keys import check_keys
from fundledger.security.key_record import UNCHANGED
from fundledger.security.keys import KeyFault, write_new

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ACCOUNT: Final = "account"
FUND: Final = "fund"
SQL = load("fundledger.app.host")
_FILES: Final = {ACCOUNT: "ledger-id", FUND: "fund-id"}
_MISSING: Final = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)


class OtherDatabase(CannotServe):
    """A database does not belong to this data directory, or its keys are missing."""


def keys_folder(data_dir: Path, which: str) -> Path:
    return data_dir / ("keys" if which == ACCOUNT else "fund-keys")


async def expect_own(connection: Connection, data_dir: Path, which: str) -> None:
    """Compare the id of a database with the id stored in the data directory, if one is stored. Writes nothing.

    Must not be called in a transaction. Raises OtherDatabase.
    """
    path = data_dir / _FILES[which]
    if not path.exists():
        return
    remembered, found = path.read_text().strip(), await _id_of(connection, which)
    if found != remembered:
        holds = "is empty" if found is None else f"is {found}"
        raise OtherDatabase(
            f"{data_dir} belongs to the {which} database {remembered}, but the one that was found {holds}: check that "
            f"all volumes are mounted and FUNDLEDGER_{which.upper()}_DSN is right. To use it anyway, remove {path}; "
            f"{UNCHANGED}"
        )


async def remember_own(connection: Connection, data_dir: Path, which: str) -> None:
    """Store the id of a migrated database in the data directory, unless one is stored."""
    path, found = data_dir / _FILES[which], await _id_of(connection, which)
    if found is not None and not path.exists():
        write_new(path, f"{found}\n")


async def expect_keys(connection: Connection, data_dir: Path, which: str) -> None:
    """Compare the keys in the data directory with the key records of a database, if the database has key records.
    Writes nothing. Must not be called in a transaction. Raises OtherDatabase.
    """
    folder = keys_folder(data_dir, which)
    try:
        if which == ACCOUNT:
            await check_keys(connection, folder)
        else:
            record = fund_keys(folder)
            record.check(await record.recorded(connection), {})
    except KeyFault as fault:
        raise OtherDatabase(str(fault)) from None
    except _MISSING:
        return


async def _id_of(connection: Connection, which: str) -> str | None:
    """Return the id of a database, None if it has no schema or a schema from before ids were introduced."""
    try:
        found = await connection.fetchval(SQL["ledger_id" if which == ACCOUNT else "fund_id"])
    except _MISSING:
        return None
    return None if found is None else str(found)
