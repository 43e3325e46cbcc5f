"""The key record of a database: no other keys are accepted, and keys are created once, with the schema."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.fund.store.queries import SQL
from fundledger.security.key_record import KeyRecord, fingerprint
from fundledger.security.keys import KeyFault, make_keys
from fundledger.security.mac import MacKey
from tests.support.database import Databases

FIRST, SECOND, OTHER = (MacKey(version, bytes([fill]) * 32) for version, fill in ((1, 0xA1), (2, 0xA2), (1, 0xB1)))
MESSAGE = b"a row"


def folder_of(path: Path, **keys: int) -> Path:
    """Create a folder with these keys: `mac_1=0xA1` is key 1 with 32 bytes of value 0xA1."""
    folder = path / "keys"
    folder.mkdir(mode=0o700)
    for name, fill in keys.items():
        file = folder / f"{name.replace('_', '-')}.key"
        file.touch(mode=0o600)
        file.write_text(f"{fill:02x}" * 32)
    return folder


def row(key: MacKey) -> tuple[bytes, bytes]:
    return MESSAGE, key.tag(MESSAGE)


def test_a_fingerprint_is_stable_and_distinguishes_keys() -> None:
    """Databases contain fingerprints. With another algorithm, every key would be reported as the wrong one."""
    assert fingerprint(FIRST) == FIRST.tag(b"finger_1").hex()[:16]
    assert fingerprint(FIRST) == "3444372487708d65"
    assert len({fingerprint(MacKey(1, bytes([fill]) * 32)) for fill in range(50)}) == 50


BOTH = {"mac_1": 0xA1, "mac_2": 0xA2}
CHECKS = {
    # keys in the folder, fingerprints in the database, rows by key version, the error
    "nothing anywhere": ({}, {}, {}, None),
    "a key that nothing was written with yet": ({"mac_1": 0xA1}, {}, {}, None),
    "the key of its fingerprint": ({"mac_1": 0xA1}, {1: FIRST}, {}, None),
    "both keys": (BOTH, {1: FIRST, 2: SECOND}, {}, None),
    "a new key beside the recorded one": (BOTH, {1: FIRST}, {}, None),
    "no key": (
        {},
        {1: FIRST},
        {},
        r"was written with key 1 \(fingerprint .{16}\), .* does not contain it: restore mac-1.key",
    ),
    "one of two": ({"mac_2": 0xA2}, {1: FIRST, 2: SECOND}, {}, "does not contain it: restore mac-1.key"),
    "another key": ({"mac_1": 0xB1}, {1: FIRST}, {}, "mac-1.key is a different key .* restore the original key"),
    "one of two is another": (
        {"mac_1": 0xA1, "mac_2": 0xB1},
        {1: FIRST, 2: SECOND},
        {},
        "mac-2.key is a different key",
    ),
    "no fingerprint, and a row that verifies": ({"mac_1": 0xA1}, {}, {1: [row(FIRST)]}, None),
    "no fingerprint, and one of the rows verifies": ({"mac_1": 0xA1}, {}, {1: [row(OTHER), row(FIRST)]}, None),
    "no fingerprint, and no row verifies": (
        {"mac_1": 0xA1},
        {},
        {1: [row(OTHER), row(SECOND)]},
        "with a different key than .*mac-1.key: none of its first 2 rows verifies",
    ),
    "no fingerprint, and no key": ({}, {}, {1: [row(FIRST)]}, r"was written with key 1, but .* does not contain it"),
    "no fingerprint, and no row was read": ({"mac_1": 0xA1}, {}, {1: []}, None),
    "a fingerprint is believed, not a row": ({"mac_1": 0xA1}, {1: FIRST}, {1: [row(OTHER)]}, None),
    "a row of the key that is not recorded": (BOTH, {1: FIRST}, {1: [], 2: [row(OTHER)]}, "different key than .*mac-2"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_a_database_goes_with_its_keys_and_no_others(tmp_path: Path, case: str) -> None:
    keys, recorded, evidence, wrong = CHECKS[case]
    record = KeyRecord("ledger", folder_of(tmp_path, **keys), {})
    marks = {version: fingerprint(key) for version, key in recorded.items()}
    if wrong is None:
        record.check(marks, evidence)
        return
    with pytest.raises(KeyFault, match=wrong) as caught:
        record.check(marks, evidence)
    assert str(caught.value).startswith("the ledger was written with")
    assert str(caught.value).endswith("; nothing was changed")


# --- In a database --------------------------------------------------------------------------------------------------


@pytest.fixture
async def connection(postgres: Databases) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    dsn = await postgres.new_fund()
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()
    await postgres.drop(dsn)


async def test_a_schema_without_the_table_has_no_fingerprints(postgres: Databases, tmp_path: Path) -> None:
    dsn = await postgres.empty()
    connection = await asyncpg.connect(dsn)
    assert await KeyRecord("fund database", tmp_path, SQL).recorded(connection) == {}
    await connection.close()
    await postgres.drop(dsn)


async def test_the_first_key_is_made_and_recorded_with_the_schema_and_never_again(connection, tmp_path: Path) -> None:
    record = KeyRecord("fund database", tmp_path / "keys", SQL)
    assert await record.recorded(connection) == {}
    keys = await record.settle(connection, {}, {})
    assert keys.current.version == 1
    recorded = await record.recorded(connection)
    assert recorded == {1: fingerprint(keys.current)}
    again = await record.settle(connection, recorded, {})
    assert fingerprint(again.current) == recorded[1]
    (tmp_path / "keys" / "mac-1.key").unlink()
    for marks, evidence in ((recorded, {}), ({}, {1: [row(FIRST)]})):
        with pytest.raises(KeyFault, match="does not contain it"):
            await record.settle(connection, marks, evidence)
    assert list((tmp_path / "keys").iterdir()) == []
    assert await record.recorded(connection) == recorded


async def test_a_key_that_is_new_is_recorded_beside_the_others(connection, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, mac_1=0xA1)
    record = KeyRecord("fund database", folder, SQL)
    await record.settle(connection, {}, {1: [row(FIRST)]})
    assert await record.recorded(connection) == {1: fingerprint(FIRST)}
    (folder / "mac-2.key").touch(mode=0o600)
    (folder / "mac-2.key").write_text("a2" * 32)
    keys = await record.settle(connection, await record.recorded(connection), {})
    assert keys.current.version == 2
    assert await record.recorded(connection) == {1: fingerprint(FIRST), 2: fingerprint(SECOND)}


async def test_a_database_with_rows_and_an_empty_folder_gets_no_new_key(connection, tmp_path: Path) -> None:
    """No row can be read, so that no key can be checked. A new key would hide that the old one is missing."""
    record = KeyRecord("fund database", folder_of(tmp_path), SQL)
    with pytest.raises(KeyFault, match="does not contain it"):
        await record.settle(connection, {}, {1: []})
    assert list(record.folder.iterdir()) == []
    assert await record.recorded(connection) == {}
    assert make_keys(record.folder).current.version == 1
