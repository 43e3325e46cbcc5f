"""Start-up step of the host in the dev profile: two persons, a maker and a checker, with tokens in files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg

from fundledger.fund.model.person import Role
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.persons import add_person, change_person, new_token, read_persons
from fundledger.security.keys import FileKeys, write_new
from fundledger.security.tokens import read_token
from fundledger.settings import Settings

DEV_PERSONS: Final = {"dev-maker": Role.MAKER, "dev-checker": Role.CHECKER}
"""The role of each person that exists in the dev profile, by name."""
DEV_PERSON_FILES: Final = tuple(f"{name}-token" for name in DEV_PERSONS)


async def make_dev_persons(dsn: str, settings: Settings) -> None:
    """Create the missing persons of DEV_PERSONS, and the missing files with their tokens. A person whose file is
    missing gets a new token. A disabled person is not changed. Raises KeyFault, and what asyncpg raises.
    """
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        macs = await open_macs(connection, FileKeys(settings.data_dir / "fund-keys"))
        known = {person.name: person for person in await read_persons(connection, macs)}
        for name, role in DEV_PERSONS.items():
            path = token_file(settings, name)
            token, person = read_token(path), known.get(name)
            if token is None and (person is None or person.disabled_at is None):
                token = new_token(name)
                write_new(path, token + "\n")
                if person is not None:
                    await change_person(connection, macs, name, datetime.now(UTC), token=token)
            if token is not None and person is None:
                await add_person(connection, macs, name, [role], "first start", datetime.now(UTC), token)
    finally:
        await connection.close()


def token_file(settings: Settings, name: str) -> Path:
    """Return the path of the file with the token of a person of DEV_PERSONS."""
    return settings.data_dir / f"{name}-token"
