"""Lost or exchanged keys: without the keys of the ledger, every command ends with an error and writes nothing."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.host.postgres.databases import migrate_account, migrate_fund
from fundledger.app.host.postgres.identity import OtherDatabase
from fundledger.security.keys import KeyFault, make_keys
from fundledger.settings import Settings
from tests.support.client import Client
from tests.support.database import Databases, prove_books
from tests.support.ledger import Ledger
from tests.support.running import RunningService, run
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

ACCOUNT = "merchant:m:available"


@pytest.fixture(scope="module")
async def written() -> AsyncIterator[RunningService]:
    """Return a stopped service whose ledger has a voucher."""
    service = RunningService(workers=1, fund=True)
    try:
        await service.start()
        async with Client(service.base_url, service.token) as client:
            await client.merchant(10)
        assert await service.stop() == 0
        yield service
    finally:
        await service.remove()


@pytest.fixture(params=["keys", "fund-keys"])
def folder(written: RunningService, request: pytest.FixtureRequest, tmp_path: Path):
    """Return the folder of the ledger's keys or of the fund service's keys. Restore it after the test."""
    path = written.data_dir / request.param
    shutil.copytree(path, tmp_path / "kept")
    yield path
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(tmp_path / "kept", path)


def take_away(folder: Path) -> None:
    shutil.rmtree(folder)


def empty(folder: Path) -> None:
    (folder / "mac-1.key").unlink()


def replace(folder: Path) -> None:
    (folder / "mac-1.key").unlink()
    make_keys(folder)


def rename(folder: Path) -> None:
    (folder / "mac-1.key").rename(folder / "mac-2.key")


COMMANDS = [
    ("serve",),
    ("migrate",),
    ("verify", "--json"),
    ("hot", "list"),
    ("hot", "split", ACCOUNT),
    ("jobs", "list"),
    ("jobs", "run", "hold_expiry", "--once"),
]


@pytest.mark.parametrize("lose", [take_away, empty, replace, rename])
async def test_no_command_goes_on_without_the_keys(written: RunningService, folder: Path, lose) -> None:
    lose(folder)
    left = sorted((path.name, path.read_bytes()) for path in folder.glob("*"))
    commands = COMMANDS if lose is take_away and folder.name == "keys" else [("serve",), ("verify", "--json")]
    for command in commands:
        done = await run(*command, env=written.environment, cwd=written.folder)
        line = done.stderr.strip().splitlines()[-1]
        assert done.returncode == (3 if command[0] == "verify" else 2), (command, done)
        assert "was written with key 1 (fingerprint " in line, (command, line)
        assert str(folder) in line and "nothing was changed" in line
        assert sorted((path.name, path.read_bytes()) for path in folder.glob("*")) == left, command
    assert folder.exists() == (lose is not take_away)


async def test_the_doctor_says_so(written: RunningService, folder: Path) -> None:
    empty(folder)
    done = await run("doctor", env=written.environment, cwd=written.folder)
    assert done.returncode == 1
    assert "BAD  database and keys" in done.stdout
    assert "was written with key 1 (fingerprint " in done.stdout


async def test_with_its_keys_again_everything_is_as_it_was(written: RunningService) -> None:
    report = await written.verify()
    assert report["ok"], [check for check in report["checks"] if not check["ok"]]


async def test_a_key_that_is_added_is_recorded_at_the_next_start_and_missed_from_then_on(
    written: RunningService,
) -> None:
    folder = written.data_dir / "keys"
    (folder / "mac-2.key").write_text("ab" * 32)
    (folder / "mac-2.key").chmod(0o600)
    await written.start()
    async with Client(written.base_url, written.token) as client:
        await client.merchant(10)
    assert (await written.verify())["ok"]
    assert await written.stop() == 0
    (folder / "mac-2.key").rename(folder / "elsewhere")
    done = await run("serve", env=written.environment, cwd=written.folder)
    assert (done.returncode, "key 2 (fingerprint " in done.stderr) == (2, True), done
    (folder / "elsewhere").rename(folder / "mac-2.key")
    await written.start()
    async with Client(written.base_url, written.token) as client:
        await client.merchant(10)
    assert (await written.verify())["ok"]
    assert await written.stop() == 0


# --- A ledger from before fingerprints --------------------------------------------------------------------------------


async def make_old(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP TABLE ledger.key_fingerprints")
    await connection.execute("DELETE FROM public.fundledger_migrations WHERE name LIKE '%_key_fingerprints.sql'")
    await connection.close()


@pytest.fixture
async def old(ledger: Ledger) -> Ledger:
    await ledger.account("m:1", balance=10)
    await ledger.account("m:2")
    await make_old(ledger.dsn)
    return ledger


async def fingerprints(dsn: str) -> list[asyncpg.Record] | None:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch("SELECT version, fingerprint FROM ledger.key_fingerprints")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()


async def test_an_old_ledger_gets_its_fingerprint_from_the_key_that_verifies_its_rows(
    old: Ledger, keys_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(keys_folder, tmp_path / "keys")
    (done,) = await migrate_account(old.dsn, Settings(data_dir=tmp_path))
    assert done.endswith("_key_fingerprints.sql")
    (row,) = await fingerprints(old.dsn)
    assert row["version"] == 1
    await prove_books(old.dsn, old.keys)


async def test_one_row_that_was_tampered_with_does_not_make_the_key_wrong(
    old: Ledger, keys_folder: Path, tmp_path: Path
) -> None:
    await old.tamper("UPDATE ledger.accounts SET owner = 'another' WHERE id = 'm:1'")
    shutil.copytree(keys_folder, tmp_path / "keys")
    await migrate_account(old.dsn, Settings(data_dir=tmp_path))
    assert await fingerprints(old.dsn)


@pytest.mark.parametrize("wrong", ["missing", "another"])
async def test_an_old_ledger_with_another_key_or_none_is_refused_and_not_migrated(
    old: Ledger, tmp_path: Path, wrong: str
) -> None:
    if wrong == "another":
        make_keys(tmp_path / "keys")
    with pytest.raises(KeyFault, match="the ledger was written with"):
        await migrate_account(old.dsn, Settings(data_dir=tmp_path))
    assert await fingerprints(old.dsn) is None
    assert (tmp_path / "keys").exists() == (wrong == "another")


# --- Another database at the same address -----------------------------------------------------------------------------


async def test_an_empty_database_in_the_place_of_a_ledger_is_not_filled(postgres: Databases, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first, other = await postgres.empty(), await postgres.empty()
    await migrate_account(first, settings)
    await migrate_fund(first, settings)
    for migrate in (migrate_account, migrate_fund):
        with pytest.raises(OtherDatabase, match="is empty"):
            await migrate(other, settings)
    connection = await asyncpg.connect(other)
    assert await connection.fetchval("SELECT to_regnamespace('ledger')") is None
    assert await connection.fetchval("SELECT to_regnamespace('fund')") is None
    await connection.close()
    await migrate_account(first, settings)


async def test_another_ledger_in_its_place_is_refused(postgres: Databases, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    await migrate_account(await postgres.empty(), settings)
    with pytest.raises(OtherDatabase, match="To use it anyway, remove"):
        await migrate_account(await postgres.new(), settings)


# --- Tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_that_is_missing_is_made_and_said_so(written: RunningService) -> None:
    before = written.token
    (written.data_dir / "dev-token").unlink()
    await written.start()
    try:
        await eventually(
            lambda: "dev-token was missing and a new token is created" in written.log.read_text(), "said so"
        )
        assert written.token != before
    finally:
        assert await written.stop() == 0
