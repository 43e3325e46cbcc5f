"""Database errors: for each class, whether nothing was written or the outcome is unknown. Also a full disk."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.http.readiness import Readiness
from fundledger.database.failures import severity, was_rolled_back
from fundledger.faults import GuardHit, OutcomeUnknown, Unavailable
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.ledger import posting
from fundledger.ledger.model.batch import Outcome
from fundledger.ledger.posting import post_vouchers
from tests.support.client import Client, new_id, voucher
from tests.support.database import Databases
from tests.support.fund_worker import FundWorker
from tests.support.ledger import Ledger, transfer
from tests.support.running import RunningService, short_folder
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF '{code}' = 'FATAL' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF;
  RAISE EXCEPTION 'made by a test' USING ERRCODE = '{code}';
END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON {table} {when} FOR EACH ROW EXECUTE FUNCTION fail();
"""
AT_ONCE, AT_COMMIT = "NOT DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"
# (SQLSTATE, fault that a caller of the account service gets if each attempt ends with it)
CLASSES = [
    ("53100", Unavailable),  # disk full
    ("53200", Unavailable),  # out of memory
    ("53300", Unavailable),  # too many connections
    ("28P01", Unavailable),  # the password of the role was renewed
    ("53400", Unavailable),  # a configured limit
    ("57014", Unavailable),  # cancelled
    ("55P03", Unavailable),  # a lock was not available
    ("25006", Unavailable),  # read only
    ("40001", Unavailable),  # serialization
    ("40P01", Unavailable),  # deadlock
    ("23514", GuardHit),  # a constraint
    ("XX000", GuardHit),  # a bug of the server
]


async def fails(dsn: str, code: str, table: str, when: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(FAIL.format(code=code, table=table, when=when))
    await connection.close()


async def works(dsn: str, table: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"DROP TRIGGER fail ON {table}")
    await connection.close()


@pytest.mark.parametrize("when", [AT_ONCE, AT_COMMIT])
@pytest.mark.parametrize(("code", "expected"), CLASSES)
async def test_an_error_before_the_commit_is_never_an_unknown_outcome(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, code: str, expected: type, when: str
) -> None:
    monkeypatch.setattr(posting, "RETRY_FOR_S", -1.0)
    bank, shop = await ledger.account("bank:a", "bank"), await ledger.account("shop")
    commands = [transfer(bank, shop, 5) for _ in range(3)]
    await fails(ledger.dsn, code, "ledger.vouchers", when)
    for locked in (False, True):
        answers = await post_vouchers(ledger.session, ledger.books, commands, locked=locked)
        if when is AT_COMMIT and code in ("53200", "53400"):
            # Such an error of COMMIT AND CHAIN may be raised when the next transaction begins, after the commit.
            assert {type(answer) for answer in answers} == {OutcomeUnknown}
        else:
            assert {type(answer) for answer in answers} == {expected}
    await works(ledger.dsn, "ledger.vouchers")
    answers = await post_vouchers(ledger.session, ledger.books, commands)
    assert all(isinstance(answer, Outcome) and not answer.replay for answer in answers)
    await ledger.prove()


async def test_a_shutdown_in_the_middle_is_an_unknown_outcome_where_it_could_be_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the connection during a write. If the query commits itself, the outcome is unknown."""
    monkeypatch.setattr(posting, "RETRY_FOR_S", -1.0)
    bank, shop = await ledger.account("bank:a", "bank"), await ledger.account("shop")
    command = transfer(bank, shop, 5)
    await fails(ledger.dsn, "FATAL", "ledger.vouchers", AT_ONCE)
    assert {type(a) for a in await post_vouchers(ledger.session, ledger.books, [command])} == {OutcomeUnknown}
    # Under locks the commit is a separate query, which was never sent.
    answers = await post_vouchers(ledger.session, ledger.books, [command], locked=True)
    assert {type(a) for a in answers} == {Unavailable}
    await works(ledger.dsn, "ledger.vouchers")
    answers = await post_vouchers(ledger.session, ledger.books, [command])
    assert isinstance(answers[0], Outcome)
    await ledger.prove()


def test_what_the_client_says_proves_nothing() -> None:
    for error in (
        OSError("gone"),
        TimeoutError(),
        asyncpg.InterfaceError("closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.DiskFullError("made up, without a severity"),
    ):
        assert not was_rolled_back(error)


@pytest.mark.parametrize("code", ["08P01", "08006", "08003", "57P01", "57P03"])
def test_what_a_pooler_says_of_a_connection_that_ended_proves_nothing(code: str) -> None:
    error = asyncpg.PostgresError.new({"S": "ERROR", "V": "ERROR", "C": code, "M": "server conn crashed?"})
    assert severity(error) == "ERROR"
    assert not was_rolled_back(error)


@pytest.mark.parametrize("kind", ["payment", "refund"])
@pytest.mark.parametrize(
    ("code", "when", "undone"),
    [(code, when, True) for code, _ in CLASSES if code != "40P01" for when in (AT_ONCE, AT_COMMIT)]
    + [("FATAL", AT_ONCE, None), ("FATAL", AT_COMMIT, False)],
)
async def test_an_order_that_was_rolled_back_is_answered_as_not_kept(
    fund_database: str, service: RunningService, code: str, when: str, undone: bool | None, kind: str
) -> None:
    async with FundWorker(fund_database, service.base_url, service.token) as worker:
        merchant = await worker.merchant()
        await worker.pay(merchant, "1", 100)
        more = {"merchant": merchant, "order_no": "2", "amount": 10}
        more |= {"payment_order_no": "1"} if kind == "refund" else {"currency": "CNY", "channel": "simulator"}
        await fails(fund_database, code, "fund.orders", when)
        answer = await worker.ask(kind, **more)
        assert isinstance(answer, OrderFault), answer
        # If an order is inserted under locks, the commit is a separate query.
        assert answer.undone is (kind == "refund" if undone is None else undone)
        await works(fund_database, "fund.orders")
        answer = await worker.ask(kind, **more)
        assert isinstance(answer, Taken)
        assert not answer.replay


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        yield pool


async def test_a_database_that_reads_and_writes_is_ready_however_many_ask(pool: asyncpg.Pool) -> None:
    readiness = Readiness(pool)
    for _ in range(30):
        found = await asyncio.gather(*(readiness.why_not(5.0) for _ in range(8)))
        assert set(found) == {None}


async def test_one_that_is_read_only_is_not_ready(database: str) -> None:
    settings = {"default_transaction_read_only": "on"}
    async with asyncpg.create_pool(database, min_size=1, max_size=2, server_settings=settings) as pool:
        assert await Readiness(pool).why_not(5.0) == "the database takes no writes: it is read only"


async def test_a_write_that_is_slow_is_no_failure(pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    from fundledger.app.http import readiness

    monkeypatch.setitem(readiness.SQL, "try_to_write", "SELECT false FROM (SELECT pg_sleep(5)) s")
    asked = Readiness(pool)
    assert await asked.why_not(0.5) is None
    assert asked._write is not None
    asked._write.cancel()
    await asyncio.gather(asked._write, return_exceptions=True)


async def test_a_disk_that_is_too_full_to_open_a_connection_takes_no_writes(pool: asyncpg.Pool) -> None:
    """Postgres ends a new connection with this error, for example if it cannot write the cache file of the catalog."""
    await pool.execute("""
        CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'could not write init file' USING ERRCODE = 'disk_full'; END $$;
        CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION public.refuse();
    """)
    assert await Readiness(pool).why_not(5.0) == "the database takes no writes: DiskFullError"


async def test_one_that_does_not_answer_is_not_ready(postgres: Databases) -> None:
    dsn = await postgres.new()
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    await postgres.drop(dsn)
    assert await Readiness(pool).why_not(5.0) == "the database does not answer"
    pool.terminate()


def fill(file: Path) -> None:
    """Append to a file until its disk is full."""
    with file.open("ab", buffering=0) as opened, contextlib.suppress(OSError):
        while True:
            opened.write(b"\0" * 65536)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
async def test_a_disk_that_is_full_is_reported_and_nothing_is_left_unknown() -> None:
    folder = short_folder()
    small = folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420m,mode=711", "none", small], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    service = RunningService(workers=1, fund=True, data_dir=small / "data")
    try:
        await service.start()
        async with Client(service.base_url, service.token) as client, Client(service.fund_url, service.token) as fund:
            bank, shop = await client.bank(), await client.merchant()
            assert (await client.pay(bank, shop, 1)).status == 201
            ballast = small / "ballast"
            fill(ballast)
            sent = [voucher(bank, shop, 1, new_id()) for _ in range(400)]
            answers = [await client.post("/v1/vouchers", body) for body in sent]
            problems = [answer.problem for answer in answers if answer.status != 201]
            assert problems
            assert set(problems) == {"unavailable"}
            for each in (client, fund):

                async def is_not_ready(each: Client = each) -> bool:
                    # Postgres may have deleted WAL meanwhile.
                    fill(ballast)
                    return (await each.get("/readyz")).status == 503

                await eventually(is_not_ready, "readiness says so")
                assert b"takes no writes" in (await each.get("/readyz")).body
            ballast.unlink()
            for each in (client, fund):

                async def is_ready(each: Client = each) -> bool:
                    return (await each.get("/readyz")).status == 200

                await eventually(is_ready, "there is room again")
            again = [await client.post("/v1/vouchers", body) for body in sent]
            assert {answer.status for answer in again} <= {200, 201}
            for before, now in zip(answers, again, strict=True):
                assert now.status == (200 if before.status == 201 else 201), (
                    "what was answered unavailable was not written"
                )
            assert (await client.balance(shop))["posted"] == 401
        assert (await service.verify())["ok"]
        assert await service.stop() == 0
    finally:
        await service.remove()
        subprocess.run(["umount", "-l", small], check=True)
        shutil.rmtree(folder, ignore_errors=True)
