"""The two databases of the services: each is found and migrated, embedded or external."""

from pathlib import Path

import asyncpg
import pytest

from fundledger.app.commands.books import run_migrate
from fundledger.app.commands.doctor import run_doctor
from fundledger.app.host.postgres.databases import Dsns, databases, migrate_account, migrate_fund
from fundledger.app.host.preflight import CannotServe
from fundledger.security.keys import FileKeys
from fundledger.settings import Settings
from tests.support.client import Client
from tests.support.database import Databases, prove_books
from tests.support.running import RunningService

NOWHERE = "postgresql://someone:verysecret@127.0.0.1:1/none"


async def tables(dsn: str, schema: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = $1"
        return int(await connection.fetchval(query, schema))
    finally:
        await connection.close()


async def test_migrate_brings_both_up_to_date_and_the_second_time_does_nothing(
    postgres: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account, fund = await postgres.empty(), await postgres.empty()
    settings = Settings(data_dir=tmp_path, account_dsn=account, fund_dsn=fund)
    assert await run_migrate(settings) == 0
    told = capsys.readouterr().out.splitlines()
    assert "applied 0001_ledger.sql (account)" in told
    assert "applied 0001_orders.sql (fund)" in told
    assert await tables(account, "ledger") > 0 < await tables(fund, "fund")
    assert await tables(account, "fund") == 0 == await tables(fund, "ledger")
    assert await run_migrate(settings) == 0
    assert capsys.readouterr().out == "the schema is up to date\n"


async def test_without_the_fund_service_nothing_is_asked_of_its_database(postgres: Databases, tmp_path: Path) -> None:
    account = await postgres.empty()
    settings = Settings(data_dir=tmp_path, account_dsn=account, fund_dsn=NOWHERE, fund="off")
    assert await run_migrate(settings) == 0
    async with databases(settings) as dsns:
        assert dsns == Dsns(account, None)


async def test_one_database_may_hold_both(postgres: Databases, tmp_path: Path) -> None:
    both = await postgres.empty()
    for _ in range(2):
        await migrate_account(both, Settings(data_dir=tmp_path))
        await migrate_fund(both, Settings(data_dir=tmp_path))
    assert await tables(both, "ledger") > 0 < await tables(both, "fund")
    await prove_books(both, FileKeys(tmp_path / "keys"))


async def test_each_database_that_is_configured_switches_its_own_embedded_one_off(postgres: Databases) -> None:
    elsewhere = await postgres.empty()
    async with RunningService(fund=True, env={"FUNDLEDGER_ACCOUNT_DSN": elsewhere}) as platform:
        async with Client(platform.fund_url, platform.token) as client:
            made = await client.post("/v1/merchants", {"id": "m", "name": "A shop", "currency": "CNY"})
            assert made.status == 201, made
        assert await tables(elsewhere, "ledger") > 0
        assert await tables(elsewhere, "fund") == 0
        assert await tables(platform.fund_dsn, "fund") > 0
        assert not (platform.data_dir / "account-dsn").exists()
        report = await platform.verify()
        assert report["ok"]
        assert report["fund"]["orders"] == 0
        assert await platform.stop() == 0
        assert (await platform.verify())["fund"]["orders"] == 0
    await postgres.drop(elsewhere)


async def test_a_fund_database_that_cannot_be_reached_is_one_line(postgres: Databases, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, account_dsn=await postgres.empty(), fund_dsn=NOWHERE)
    with pytest.raises(CannotServe, match="the fund database cannot be reached") as refused:
        await run_migrate(settings)
    assert "verysecret" not in str(refused.value)


async def test_the_doctor_looks_at_both_and_at_the_account_service(
    postgres: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account, fund = await postgres.empty(), await postgres.empty()
    asked = Settings(data_dir=tmp_path, account_dsn=account, fund_dsn=fund, account_url="http://127.0.0.1:1")
    await migrate_account(account, asked)
    assert await run_doctor(asked) == 1
    told = capsys.readouterr().out
    assert "BAD  fund schema              missing 0001_orders.sql" in told
    assert "BAD  account service          http://127.0.0.1:1 does not answer" in told
    await migrate_fund(fund, asked)
    await run_doctor(asked)
    assert "ok   fund schema" in capsys.readouterr().out
