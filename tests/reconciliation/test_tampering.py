"""Edited rows of the ledger: any edit of a row is a finding, and it hides no other finding of `verify`.

For each edit, constraints and triggers are removed, the row is changed, and the triggers are restored.
"""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import pytest

from fundledger.database.statements import load
from fundledger.ledger.model.batch import Resplit
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import TEXT_MAX, Report
from fundledger.security.keys import FileKeys
from tests.support.database import ONE_SHARD, Databases
from tests.support.ledger import Ledger, capture, codes, posted, reversal, transfer, voucher
from tests.support.running import run
from tests.support.tampering import errors_of, findings_of, unguarded


class History(NamedTuple):
    """The names of the rows of a ledger that verifies and has a row of each kind."""

    ledger: Ledger
    numbers: dict[str, int]
    payment: str
    reversed: str
    refused: str


async def fill(ledger: Ledger) -> History:
    a, b = await ledger.account("m:1", balance=1000), await ledger.account("m:2", metadata='{"k":1}')
    payments = [transfer(a, b, amount, reference=f"order {amount}") for amount in (10, 20, 30)]
    for payment in payments:
        assert posted(await ledger.post_one(payment))
    undone = reversal(payments[0])
    assert posted(await ledger.post_one(undone))
    refused = transfer(b, a, 10_000)
    assert not posted(await ledger.post_one(refused))
    assert posted(await ledger.post_one(capture(await ledger.hold("h:captured", a, 50), b, 40)))
    await ledger.hold("h:open", a, 70)
    bank = await ledger.account("bank:busy", "bank")
    assert posted(await ledger.post_one(voucher((a, -3), (b, 2), (bank, 1))))
    assert codes(await ledger.post(*(transfer(bank, a, 1) for _ in range(3)))) == ["posted"] * 3
    buffered = await ledger.account("m:3", buffered=True)
    assert codes(await ledger.post(*(transfer(bank, buffered, 1) for _ in range(3)))) == ["posted"] * 3
    split = await ledger.account("m:4", balance=100)
    assert await ledger.post_one(Resplit(split, 2, "a test", "tests"))
    await ledger.account("m:odd", balance=1)
    await ledger.freeze(b)
    await ledger.prove()
    frozen = await ledger.account("m:frozen", balance=1)
    await ledger.tamper("UPDATE ledger.sub_accounts SET version = version + 1 WHERE account_number = $1", frozen.number)
    assert codes(await ledger.post(transfer(frozen, a, 1))) == ["account-frozen"]
    assert await ledger.count("integrity_findings") == 1
    numbers = {row["id"]: row["number"] for row in await ledger.connection.fetch("SELECT * FROM ledger.accounts")}
    return History(ledger, numbers, str(payments[2].id), str(undone.id), str(refused.id))


@pytest.fixture(scope="module")
async def template(postgres: Databases, keys: FileKeys) -> AsyncIterator[tuple[str, History]]:
    """Return the name of a database with a history and without guards against edits. Each test gets a copy."""
    async with postgres.a_database() as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        history = await fill(ledger)
        await ledger.connection.execute(unguarded("ledger"))
        await ledger.close()
        yield dsn.partition("@/")[2].partition("?")[0], history


class Edited:
    def __init__(self, dsn: str, keys: FileKeys, history: History) -> None:
        self.dsn = dsn
        self.keys = keys
        self.history = history

    async def edit(self, statement: str) -> None:
        names = {
            "payment": self.history.payment,
            "reversed": self.history.reversed,
            "refused": self.history.refused,
            **{name.replace(":", ""): number for name, number in self.history.numbers.items()},
        }
        connection = await asyncpg.connect(self.dsn)
        try:
            for part in statement.format(**names).split(";"):
                done = await connection.execute(part)
                assert done not in ("UPDATE 0", "DELETE 0", "INSERT 0 0"), f"the tampering missed: {part}"
        finally:
            await connection.close()

    async def verify(self) -> Report:
        return await verify(self.dsn, self.keys)


@pytest.fixture
async def edited(postgres: Databases, keys: FileKeys, template: tuple[str, History]) -> AsyncIterator[Edited]:
    dsn = await postgres.empty(template[0])
    yield Edited(dsn, keys, template[1])
    await postgres.drop(dsn)


M1_ENTRY = "UPDATE ledger.entries SET {} WHERE account_number = {{m1}} AND seq = 2"
M1_ROW = "UPDATE ledger.sub_accounts SET {} WHERE account_number = {{m1}}"
M1 = "UPDATE ledger.accounts SET {} WHERE id = 'm:1'"
PAYMENT = "UPDATE ledger.vouchers SET {} WHERE id = '{{payment}}'"
HELD = "UPDATE ledger.holds SET {} WHERE id = 'h:open'"
BUFFERED = "UPDATE ledger.buffered_entries SET {} WHERE account_number = {{m3}} AND number = 2"
ENTRY_NAME, ROW_NAME, NAME = "account m:1 (number 1) slot 0 seq 2", "account m:1 (number 1) slot 0", "account m:1"

UNREADABLE: dict[str, tuple[str, str]] = {
    # fault: (how, the name of the row)
    **{
        f"an entry: {change}": (M1_ENTRY.format(change), ENTRY_NAME)
        for change in (
            "key_version = 99",
            "key_version = -1",
            "key_version = NULL",
            "posted_at = 'infinity'",
            "posted_at = '-infinity'",
            "posted_at = '4713-01-01 BC'",
            "posted_at = '20000-01-01'",
            "posted_at = NULL",
            "accounting_date = '0044-03-15 BC'",
            "accounting_date = 'infinity'",
            "accounting_date = NULL",
            "mac = '\\x00'",
            "mac = NULL",
            "amount = NULL",
            "balance_after = NULL",
            "amount = 9223372036854775807",
            "voucher_id = NULL",
            "voucher_id = NULL, vouchers = ARRAY[NULL::uuid]",
        )
    },
    **{
        f"a balance: {change}": (M1_ROW.format(change), ROW_NAME)
        for change in (
            "key_version = 99",
            "status = 300",
            "status = -1",
            "posted_at_us = NULL",
            "posted = NULL",
            "held = NULL",
            "posted = 9223372036854775807",
            "last_entry_mac = '\\x00'",
            "last_entry_mac = NULL",
            "mac = NULL",
            "slots = -1",
            "normal = 0",
            "bounded = NULL",
        )
    },
    **{
        f"an account: {change}": (M1.format(change), NAME)
        for change in (
            "key_version = 99",
            "created_at = 'infinity'",
            "created_at = '0001-01-01 BC'",
            "owner = NULL",
            "type = 'theft'",
            "currency = NULL",
            "mac = ''",
            "slots = NULL",
            "slots = 2",
            "slots = 0",
            "buffered = true",
            "buffered = NULL",
            "shard = 1",
        )
    },
    **{
        f"a voucher: {change}": (PAYMENT.format(change), "voucher {payment}")
        for change in (
            "key_version = 99",
            "lines = '{{}}'",
            "lines = '{{1}}'",
            "lines = '{{1,-30,2}}'",
            "lines = ARRAY[1, NULL, 2, 30]",
            "lines = ARRAY[NULL, -30, 2, 30]",
            "lines = NULL",
            "lines = '[0:3]={{{m1},-30,{m2},30}}'",
            "lines = ARRAY[ARRAY[{m1}, -30], ARRAY[{m2}, 30]]",
            "lines = ARRAY[1, -9223372036854775808, 2, 9223372036854775807]",
            "lines = ARRAY[999999, -30, 2, 30]",
            "posted_at = 'infinity'",
            "posted_at = '4713-01-01 BC'",
            "accounting_date = '-infinity'",
            "digest = NULL",
            "digest = '\\x00'",
            "mac = '\\x00'",
            "batch = NULL",
            "type = NULL",
            "metadata = '{{\"x\": 1}}'",
            "reverses = gen_random_uuid()",
            "hold = 'h:none'",
            "refusal = 'x'",
        )
    },
    **{
        f"a hold: {change}": (HELD.format(change), "hold h:open")
        for change in (
            "key_version = 99",
            "expires_at = 'infinity'",
            "created_at = '4713-01-01 BC'",
            "ended_at = '-infinity'",
            "status = 9",
            "status = 300",
            "account_number = 999999",
            "amount = NULL",
            "mac = '\\x00'",
            "voucher_id = gen_random_uuid()",
        )
    },
    **{
        f"a buffered credit: {change}": (BUFFERED.format(change), "account m:3: buffered credit 2 of 3")
        for change in (
            "key_version = 99",
            "posted_at = 'infinity'",
            "accounting_date = '0044-03-15 BC'",
            "amount = NULL",
            "voucher_id = NULL",
            "mac = '\\x00'",
        )
    },
}
M4 = "account m:4 (number "
UNREADABLE |= {
    # Rows that no MAC covers: only other rows reveal the edit.
    "an outbox entry is gone": (
        "DELETE FROM ledger.outbox WHERE '{payment}' = ANY (vouchers)",
        "voucher {payment}",
    ),
    "an outbox entry names another voucher": (
        "UPDATE ledger.outbox SET vouchers = ARRAY[gen_random_uuid()] WHERE '{payment}' = ANY (vouchers)",
        "voucher {payment}",
    ),
    "an outbox entry names a voucher twice": (
        "UPDATE ledger.outbox SET vouchers = vouchers || vouchers WHERE '{payment}' = ANY (vouchers)",
        "voucher {payment}",
    ),
    "an outbox entry stands twice": (
        (
            "INSERT INTO ledger.outbox (shard, batch, vouchers, at) SELECT shard, batch, vouchers, at FROM ledger.outbox"
            " WHERE '{payment}' = ANY (vouchers)"
        ),
        "voucher {payment}",
    ),
    **{
        f"an outbox entry: {change}": (
            f"UPDATE ledger.outbox SET {change} WHERE '{{payment}}' = ANY (vouchers)",
            "voucher {payment}",
        )
        for change in ("shard = 9", "batch = batch + 1", "at = 'infinity'", "at = NULL", "vouchers = NULL")
    },
    "a route is gone": ("DELETE FROM ledger.routes", M4),
    **{
        f"a route: {change}": (f"UPDATE ledger.routes SET {change}", M4)
        for change in ("slots = 1", "slots = 9", "slots = NULL", "buffered = true")
    },
    "a route of no account": (
        "UPDATE ledger.routes SET account_number = 999999",
        "account None (number 999999)",
    ),
    "route events are gone": ("DELETE FROM ledger.route_events", M4),
    "a route event: slots = 3": ("UPDATE ledger.route_events SET slots = 3", M4),
    "an account of a route: slots = 1": ("UPDATE ledger.accounts SET slots = 1 WHERE id = 'm:4'", M4),
    "the slots of a route's account": (
        "UPDATE ledger.sub_accounts SET slots = 1 WHERE account_number = {m4} AND slot = 0",
        M4,
    ),
    "the event of a freeze is gone": (
        "DELETE FROM ledger.account_events WHERE account_number = {m2}",
        "account m:2 (number 3) slot 0",
    ),
    "the event of a freeze: status = 1": (
        "UPDATE ledger.account_events SET status = 1 WHERE account_number = {m2}",
        "account m:2 (number 3) slot 0",
    ),
    "an event of no account": (
        "UPDATE ledger.account_events SET account_number = 999999 WHERE account_number = {m2}",
        "account None (number 999999)",
    ),
    "the row that did not match its MAC is gone": (
        "DELETE FROM ledger.integrity_findings WHERE account_number = {mfrozen}",
        "account m:frozen (number ",
    ),
    "a hold: shard = 9": (HELD.format("shard = 9"), "hold h:open"),
    "a hold: slot = 9": (HELD.format("slot = 9"), "hold h:open"),
    "a captured hold: voucher_id = NULL": (
        "UPDATE ledger.holds SET voucher_id = NULL WHERE id = 'h:captured'",
        "hold h:captured",
    ),
    "a captured hold: voucher_id of another": (
        "UPDATE ledger.holds SET voucher_id = '{payment}' WHERE id = 'h:captured'",
        "hold h:captured",
    ),
}
WHICH = "fundledger: database: FUNDLEDGER_ACCOUNT_DSN\n"
STANDING = "UPDATE ledger.sub_accounts SET posted = posted + 5 WHERE account_number = {modd}"
"""Another fault. Its finding must be reported beside each edit."""


@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_row_that_was_edited_is_named_and_hides_nothing_else(edited: Edited, what: str) -> None:
    statement, named = UNREADABLE[what]
    await edited.edit(STANDING)
    before = {(name, finding.subject) for name, finding in findings_of(await edited.verify())}
    assert {name for name, _ in before} >= {"mac_verifies_sub_accounts", "balance_equals_entries", "trial_balance"}
    await edited.edit(statement)
    report = await edited.verify()
    assert json.loads(msgspec.json.encode(report))["ok"] is False
    assert (report.error, errors_of(report)) == (None, {})
    found = {(name, finding.subject) for name, finding in findings_of(report)}
    named = named.format(payment=edited.history.payment)
    assert [subject for _, subject in found if subject.startswith(named)], found
    assert {(name, subject) for name, subject in before - found if name != "integrity_findings"} == set()


async def test_text_that_is_none_is_a_finding_of_its_row(edited: Edited) -> None:
    """A superuser can write bytes that are not UTF-8 into a column of type text."""
    await edited.edit("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
    for statement in (
        M1.format("owner = ('\\xff00'::bytea)::text"),
        PAYMENT.format("reference = ('\\xc328'::bytea)::text"),
        HELD.format("refusal = ('\\x80'::bytea)::text"),
    ):
        await edited.edit(statement)
    report = await edited.verify()
    assert (report.error, errors_of(report)) == (None, {})
    found = {finding.subject for _, finding in findings_of(report)}
    assert {"account m:1", f"voucher {edited.history.payment}", "hold h:open"} <= found
    msgspec.json.encode(report)


async def test_an_id_that_is_no_text_is_named_all_the_same(edited: Edited) -> None:
    await edited.edit("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
    await edited.edit(HELD.format("id = ('\\x1b5b324aff'::bytea)::text"))
    report = await edited.verify()
    assert "hold \\x1b[2J\\udcff" in {finding.subject for _, finding in findings_of(report)}
    msgspec.json.encode(report)


async def test_what_is_listed_is_bounded_and_all_is_counted(edited: Edited) -> None:
    await edited.edit(PAYMENT.format("reference = repeat('x', 100000), lines = array_fill(1::bigint, ARRAY[100001])"))
    await edited.edit(
        "INSERT INTO ledger.holds SELECT shard, 'h:' || n, account_number, slot, amount, captured, status, gen_random_uuid(), digest,"
        " refusal, created_at, expires_at, ended_at, key_version, mac, module FROM ledger.holds, generate_series(1, 150) AS n"
        " WHERE id = 'h:open'"
    )
    report = await edited.verify()
    checks = {check.name: check for check in report.checks}
    for name in ("mac_verifies_holds", "captures_match"):
        assert (checks[name].found, len(checks[name].findings)) == (150, 100)
    assert len(msgspec.json.encode(report)) < 200_000
    assert all(len(f.actual) < TEXT_MAX + 100 for _, f in findings_of(report))


LONG_LINES = """
UPDATE ledger.vouchers SET lines = (SELECT array_agg(hashint8extended(n, 0) % 1000000) FROM generate_series(1, 9000) AS n)
WHERE refusal IS NULL
"""
LONG_BATCHES = """
UPDATE ledger.outbox SET vouchers = (SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 5000)),
    modules = (SELECT array_agg(md5(n::text)) FROM generate_series(1, 5000) AS n)
"""
ARGUMENTS = {"read_outbox": (0, 2**40, 0, 5000, 10_000)}
READS = {
    # The view of `line_counts` stands in a released migration.
    **{
        name: text
        for name, text in load("fundledger.reconciliation").items()
        if "$" not in text and name != "line_counts"
    },
    "read_outbox": load("fundledger.app.account")["read_outbox"],
}


@pytest.mark.parametrize("name", READS)
async def test_an_array_of_a_row_is_decompressed_once(edited: Edited, name: str) -> None:
    """A subscript decompresses the whole array. With one for each element, the work grows with the square."""
    await edited.edit(LONG_LINES)
    await edited.edit(LONG_BATCHES)
    connection = await asyncpg.connect(edited.dsn)
    try:
        plan = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {READS[name]}", *ARGUMENTS.get(name, ())
        )
    finally:
        await connection.close()
    found = msgspec.json.decode(plan)[0]["Plan"]
    assert found["Shared Hit Blocks"] + found["Shared Read Blocks"] < 5_000


# --- The command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [
        "an entry: key_version = 99",
        "an entry: posted_at = 'infinity'",
        "a voucher: lines = ARRAY[1, NULL, 2, 30]",
        "an account: created_at = '0001-01-01 BC'",
        "a hold: status = 300",
        "an outbox entry is gone",
    ],
)
async def test_the_command_names_the_row_and_ends_with_1(
    edited: Edited, what: str, tmp_path: Path, keys_folder: Path
) -> None:
    shutil.copytree(keys_folder, tmp_path / "keys")
    statement, named = UNREADABLE[what]
    await edited.edit(STANDING)
    await edited.edit(statement)
    environment = {"FUNDLEDGER_DATA_DIR": str(tmp_path), "FUNDLEDGER_ACCOUNT_DSN": edited.dsn}
    done = await run("verify", "--json", env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, WHICH)
    report = json.loads(done.stdout)
    subjects = [finding["subject"] for check in report["checks"] for finding in check["findings"]]
    assert [subject for subject in subjects if subject.startswith(named.format(payment=edited.history.payment))]
    assert [subject for subject in subjects if subject.startswith("account m:odd")]
    done = await run("verify", env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr, "Traceback" in done.stdout) == (1, WHICH, False)
    assert named.format(payment=edited.history.payment) in done.stdout
    assert "THE BOOKS ARE WRONG" in done.stdout
