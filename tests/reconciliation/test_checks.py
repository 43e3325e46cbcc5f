"""The checks of `verify`: each one fails on books that verify except for one fault, made while the guards are off."""

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.ledger.model.voucher import Voucher
from fundledger.reconciliation.checks import verify
from fundledger.reconciliation.report import FINDINGS_MAX
from fundledger.security.keys import FileKeys, make_keys
from tests.support.ledger import Ledger, capture, codes, posted, reversal, transfer
from tests.support.running import run

GUARDED = ("vouchers", "entries", "account_events", "integrity_findings", "outbox", "line_counts")


@pytest.fixture
async def used(ledger: Ledger) -> AsyncIterator[Ledger]:
    """Return a ledger that verifies and has a row of each kind."""
    a, b = await ledger.account("m:1", balance=1000), await ledger.account("m:2", metadata='{"k":1}')
    payments: list[Voucher] = [transfer(a, b, amount, reference=f"order {amount}") for amount in (10, 20, 30)]
    for payment in payments:
        assert posted(await ledger.post_one(payment))
    assert posted(await ledger.post_one(reversal(payments[0])))
    assert not posted(await ledger.post_one(transfer(b, a, 10_000)))
    assert posted(await ledger.post_one(capture(await ledger.hold("h:captured", a, 50), b, 40)))
    await ledger.hold("h:open", a, 70)
    bank = await ledger.account("bank:busy", "bank")
    assert codes(await ledger.post(*(transfer(bank, a, 1) for _ in range(3)))) == ["posted"] * 3
    buffered = await ledger.account("m:3", buffered=True)
    assert codes(await ledger.post(*(transfer(bank, buffered, 1) for _ in range(3)))) == ["posted"] * 3
    await ledger.freeze(b)
    await ledger.prove()
    yield ledger


async def corrupt(ledger: Ledger, statement: str) -> None:
    """Execute a statement as a superuser while the triggers are disabled. Enable them again."""
    async with ledger.connection.transaction():
        for table in GUARDED:
            await ledger.connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
        await ledger.connection.execute(statement)
        for table in GUARDED:
            for trigger in ("append_only", "no_truncate"):
                await ledger.connection.execute(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {table}_{trigger}")


A = "(SELECT number FROM ledger.accounts WHERE id = 'm:1')"
NEWEST = "(SELECT id FROM ledger.vouchers WHERE type = 'pay' AND refusal IS NULL AND hold IS NULL ORDER BY posted_at DESC LIMIT 1)"
LAST = f"(SELECT max(seq) FROM ledger.entries WHERE account_number = {A})"
COPY = """INSERT INTO ledger.vouchers (shard, id, module, type, digest, lines, reference, metadata, hold, reverses, refusal, batch,
          accounting_date, posted_at, key_version, mac)
          SELECT shard, {id}, module, type, digest, lines, reference, metadata, hold, reverses, refusal, batch, accounting_date,
          posted_at, key_version, mac FROM ledger.vouchers WHERE id = {of}"""

CORRUPTIONS: dict[str, tuple[str, set[str]]] = {
    # fault: (statement, checks that must notice)
    "how long a chain of evidence is": (
        "UPDATE ledger.chains SET seq = seq + 1 WHERE name = 'account_events'",
        {"evidence_chained"},
    ),
    "an entry's amount": (
        f"UPDATE ledger.entries SET amount = amount + 1 WHERE account_number = {A} AND seq = 2",
        {"entries_linked", "chain_verifies", "voucher_equals_entries"},
    ),
    "an entry's balance": (
        f"UPDATE ledger.entries SET balance_after = balance_after + 1 WHERE account_number = {A} AND seq = 2",
        {"entries_linked", "chain_verifies"},
    ),
    "an entry's voucher": (
        f"UPDATE ledger.entries SET voucher_id = gen_random_uuid() WHERE account_number = {A} AND seq = 2",
        {"chain_verifies", "voucher_equals_entries"},
    ),
    "an entry's time": (
        f"UPDATE ledger.entries SET posted_at = posted_at - interval '1 year' WHERE account_number = {A} AND seq = 3",
        {"chain_verifies", "entries_linked"},
    ),
    "an entry's accounting date": (
        f"UPDATE ledger.entries SET accounting_date = accounting_date + 1 WHERE account_number = {A} AND seq = 2",
        {"chain_verifies"},
    ),
    "an entry in the middle is gone": (
        f"DELETE FROM ledger.entries WHERE account_number = {A} AND seq = 2",
        {"entries_linked", "voucher_equals_entries"},
    ),
    "the last entry is gone": (
        f"DELETE FROM ledger.entries WHERE account_number = {A} AND seq = {LAST}",
        {"balance_equals_entries", "voucher_equals_entries"},
    ),
    "two entries changed places": (
        f"""UPDATE ledger.entries SET seq = -seq WHERE account_number = {A} AND seq IN (2, 3);
            UPDATE ledger.entries SET seq = 5 + seq WHERE account_number = {A} AND seq < 0""",
        {"chain_verifies", "entries_linked"},
    ),
    "an entry was invented": (
        f"""INSERT INTO ledger.entries SELECT shard, account_number, slot, 100, gen_random_uuid(), 1, balance_after,
            accounting_date, posted_at, key_version, mac FROM ledger.entries WHERE account_number = {A} AND seq = 2""",
        {"entries_linked", "chain_verifies", "voucher_equals_entries", "balance_equals_entries"},
    ),
    "a summary names another voucher": (
        "UPDATE ledger.entries SET vouchers[2] = gen_random_uuid() WHERE vouchers IS NOT NULL",
        {"chain_verifies", "voucher_equals_entries", "summary_equals_vouchers"},
    ),
    "a summary names a voucher less": (
        "UPDATE ledger.entries SET vouchers = vouchers[2:] WHERE vouchers IS NOT NULL",
        {"chain_verifies", "voucher_equals_entries", "summary_equals_vouchers", "line_counts"},
    ),
    "a number of lines": ("UPDATE ledger.line_counts SET extra = extra + 1", {"line_counts"}),
    "what waits in the buffer": (
        """ALTER TABLE ledger.buffered_entries DISABLE TRIGGER ALL;
           UPDATE ledger.buffered_entries SET amount = amount + 1 WHERE number = 2""",
        {"mac_verifies_buffered", "voucher_equals_entries", "trial_balance", "guards_in_force"},
    ),
    "one that waits in the buffer is gone": (
        "DELETE FROM ledger.buffered_entries WHERE number = 2",
        {"mac_verifies_buffered", "voucher_equals_entries", "trial_balance"},
    ),
    "an entry of nobody": (
        f"""INSERT INTO ledger.entries SELECT shard, 999999, slot, seq, voucher_id, amount, balance_after,
            accounting_date, posted_at, key_version, mac FROM ledger.entries WHERE account_number = {A} AND seq = 2""",
        {"entries_linked", "voucher_equals_entries"},
    ),
    "a balance": (
        f"UPDATE ledger.sub_accounts SET posted = posted + 5 WHERE account_number = {A}",
        {"mac_verifies_sub_accounts", "balance_equals_entries", "trial_balance"},
    ),
    "a held amount": (
        f"UPDATE ledger.sub_accounts SET held = held + 1 WHERE account_number = {A}",
        {"mac_verifies_sub_accounts", "holds_open"},
    ),
    "a status": (
        f"UPDATE ledger.sub_accounts SET status = 1 WHERE account_number = {A}",
        {"mac_verifies_sub_accounts"},
    ),
    "a floor": (
        f"UPDATE ledger.sub_accounts SET bounded = false WHERE account_number = {A}",
        {"sub_account_floor"},
    ),
    "a sub-account is gone": (
        f"DELETE FROM ledger.sub_accounts WHERE account_number = {A}",
        {"sub_accounts_complete", "entries_linked", "trial_balance", "holds_open"},
    ),
    "an owner": ("UPDATE ledger.accounts SET owner = 'thief' WHERE id = 'm:1'", {"mac_verifies_accounts"}),
    "a currency": (
        "UPDATE ledger.accounts SET currency = 'USD' WHERE id = 'm:1'",
        {"mac_verifies_accounts", "voucher_sums_to_zero", "trial_balance", "mac_verifies_sub_accounts"},
    ),
    "a type that is not in the chart": (
        "UPDATE ledger.accounts SET type = 'savings' WHERE id = 'm:1'",
        {"mac_verifies_accounts", "sub_account_floor"},
    ),
    "an account is gone": (
        "DELETE FROM ledger.accounts WHERE id = 'm:1'",
        {"mac_verifies_sub_accounts", "voucher_matches_digest"},
    ),
    "a voucher's lines": (
        f"UPDATE ledger.vouchers SET lines[2] = lines[2] + 1, lines[4] = lines[4] - 1 WHERE id = {NEWEST}",
        {"mac_verifies_vouchers", "voucher_matches_digest", "voucher_equals_entries"},
    ),
    "a voucher's reference": (
        f"UPDATE ledger.vouchers SET reference = 'order 9' WHERE id = {NEWEST}",
        {"voucher_matches_digest"},
    ),
    "a voucher's digest": (
        f"UPDATE ledger.vouchers SET digest = sha256('x') WHERE id = {NEWEST}",
        {"mac_verifies_vouchers", "voucher_matches_digest"},
    ),
    "a refusal became a payment": (
        "UPDATE ledger.vouchers SET refusal = NULL WHERE refusal IS NOT NULL",
        {"mac_verifies_vouchers", "voucher_equals_entries"},
    ),
    "a payment became a refusal": (
        f"UPDATE ledger.vouchers SET refusal = 'no' WHERE id = {NEWEST}",
        {"mac_verifies_vouchers", "voucher_equals_entries"},
    ),
    "a voucher is gone": (f"DELETE FROM ledger.vouchers WHERE id = {NEWEST}", {"voucher_equals_entries"}),
    "a voucher stands twice": (
        f"ALTER TABLE ledger.vouchers DROP CONSTRAINT vouchers_id_once; {COPY.format(id='id', of=NEWEST)}",
        {"voucher_once", "guards_in_force"},
    ),
    "a voucher was copied": (
        COPY.format(id="gen_random_uuid()", of=NEWEST),
        {"mac_verifies_vouchers", "voucher_equals_entries"},
    ),
    "an unbalanced voucher": (
        f"""ALTER TABLE ledger.vouchers DROP CONSTRAINT vouchers_sum_to_zero;
            UPDATE ledger.vouchers SET lines[2] = lines[2] + 1 WHERE id = {NEWEST}""",
        {"voucher_sums_to_zero", "guards_in_force"},
    ),
    "a reversal of something else": (
        f"""UPDATE ledger.vouchers SET reverses = {NEWEST} WHERE reverses IS NOT NULL""",
        {"reversal_mirrors", "voucher_matches_digest"},
    ),
    "a hold's amount": (
        "UPDATE ledger.holds SET amount = amount + 1 WHERE id = 'h:open'",
        {"mac_verifies_holds", "holds_open"},
    ),
    "a hold's end": ("UPDATE ledger.holds SET status = 2 WHERE id = 'h:open'", {"mac_verifies_holds", "holds_open"}),
    "a captured amount": (
        "UPDATE ledger.holds SET captured = captured - 1 WHERE id = 'h:captured'",
        {"mac_verifies_holds", "captures_match"},
    ),
    "the voucher of a capture": (
        f"UPDATE ledger.holds SET voucher_id = {NEWEST} WHERE id = 'h:captured'",
        {"captures_match"},
    ),
    "a hold is gone": ("DELETE FROM ledger.holds WHERE id = 'h:open'", {"holds_open"}),
    "a hold of nobody's sub-account": (
        "UPDATE ledger.holds SET shard = 7 WHERE id = 'h:open'",
        {"holds_of_accounts"},
    ),
    "an entry of the outbox is gone": (
        f"DELETE FROM ledger.outbox WHERE {NEWEST} = ANY (vouchers)",
        {"outbox_equals_vouchers"},
    ),
    "a route without its event": (
        f"INSERT INTO ledger.routes (account_number, slots) VALUES ({A}, 1)",
        {"routes_equal_events"},
    ),
    "why an account was frozen is gone": ("DELETE FROM ledger.account_events", {"status_equals_events"}),
    "an integrity freeze without evidence": (
        f"UPDATE ledger.sub_accounts SET status = 4 WHERE account_number = {A}",
        {"freezes_have_findings", "status_equals_events", "mac_verifies_sub_accounts"},
    ),
    "a row that once did not verify": (
        "INSERT INTO ledger.integrity_findings (shard, account_number, slot, evidence, kind) VALUES (0, 1, 0, '{}', 'x')",
        {"integrity_findings"},
    ),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_what_was_made_wrong_is_found_by_every_check_that_is_meant_to(used: Ledger, what: str) -> None:
    statement, expected = CORRUPTIONS[what]
    await corrupt(used, statement)
    report = await verify(used.dsn, used.keys)
    assert not report.ok
    found = {check.name for check in report.checks if not check.ok}
    assert expected <= found
    for check in report.checks:
        assert check.ok == (check.found == 0)
        assert len(check.findings) == min(check.found, FINDINGS_MAX)


async def test_every_check_has_been_seen_to_fail(used: Ledger) -> None:
    names = {check.name for check in (await verify(used.dsn, used.keys)).checks}
    assert names == set().union(*(expected for _, expected in CORRUPTIONS.values()))


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE ledger.sub_accounts DROP CONSTRAINT sub_accounts_floor",
        "ALTER TABLE ledger.vouchers DISABLE TRIGGER vouchers_append_only",
        "ALTER TABLE ledger.entries ENABLE TRIGGER entries_append_only",
        "DROP TRIGGER entries_no_truncate ON ledger.entries",
        "DROP INDEX ledger.vouchers_reversed_once",
    ],
)
async def test_a_guard_that_is_not_in_force_is_a_finding(used: Ledger, statement: str) -> None:
    await used.connection.execute(statement)
    report = await verify(used.dsn, used.keys)
    assert [check.name for check in report.checks if not check.ok] == ["guards_in_force"]


async def test_verification_while_payments_go_on_sees_one_moment(used: Ledger) -> None:
    """Writes that commit during the verification are either completely visible or not at all."""
    a = (await used.open("m:1")).view.account
    b = (await used.open("bank:funding:CNY", "bank")).view.account
    stop = asyncio.Event()

    async def paying() -> None:
        while not stop.is_set():
            await used.post(transfer(b, a, 1), transfer(a, b, 1))

    task = asyncio.create_task(paying())
    try:
        for _ in range(10):
            assert (await verify(used.dsn, used.keys)).ok
    finally:
        stop.set()
        await task


async def test_a_row_under_a_key_that_there_is_not_is_a_finding_of_that_row(used: Ledger) -> None:
    await used.tamper("UPDATE ledger.holds SET key_version = 9 WHERE id = 'h:open'")
    report = await verify(used.dsn, used.keys)
    (check,) = [check for check in report.checks if not check.ok]
    (finding,) = check.findings
    assert (check.name, check.rows, finding.subject) == ("mac_verifies_holds", 2, "hold h:open")
    assert "no MAC key of version 9" in finding.actual


async def test_another_installations_key_verifies_nothing(used: Ledger, tmp_path: Path) -> None:
    report = await verify(used.dsn, make_keys(tmp_path))
    found = {check.name for check in report.checks if not check.ok}
    assert found == {
        "chain_verifies",
        "mac_verifies_sub_accounts",
        "mac_verifies_accounts",
        "mac_verifies_vouchers",
        "mac_verifies_holds",
        "mac_verifies_buffered",
        "evidence_chained",
    }


# --- The command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def data_dir(tmp_path: Path, keys: FileKeys, keys_folder: Path) -> Path:
    """Return a data directory with the keys of the ledgers of this run."""
    shutil.copytree(keys_folder, tmp_path / "data" / "keys")
    return tmp_path / "data"


async def verify_command(ledger: Ledger, data_dir: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {"FUNDLEDGER_DATA_DIR": str(data_dir), "FUNDLEDGER_ACCOUNT_DSN": ledger.dsn}
    done = await run("verify", *arguments, env=environment, cwd=data_dir)
    return done.returncode, done.stdout, done.stderr


async def test_the_command_prints_one_object_and_ends_with_0_or_1(used: Ledger, data_dir: Path) -> None:
    status, out, err = await verify_command(used, data_dir, "--json")
    report = json.loads(out)
    assert (status, err, report["ok"]) == (0, "fundledger: database: FUNDLEDGER_ACCOUNT_DSN\n", True)
    assert {"ok", "checks", "vouchers", "entries", "accounts", "trial_balance", "elapsed_s"} <= set(report)
    assert all({"name", "ok", "rows", "findings"} <= set(check) for check in report["checks"])
    assert report["trial_balance"] == {"CNY": 0}
    assert [report["vouchers"], report["accounts"]] == [await used.count(table) for table in ("vouchers", "accounts")]
    assert report["entries"] == await used.count("entries") + 4, "two summaries of three lines count as six"
    await corrupt(used, CORRUPTIONS["a balance"][0])
    status, out, _ = await verify_command(used, data_dir, "--json")
    report = json.loads(out)
    assert (status, report["ok"], report["trial_balance"]) == (1, False, {"CNY": 5})
    status, out, _ = await verify_command(used, data_dir)
    assert status == 1
    assert "m:1" in out
    assert "balance_equals_entries" in out


async def unproved(status: int, cwd: Path, **environment: str) -> str:
    """Return the error of a command that ends without a proof. Its line and its JSON object must have the same text."""
    environment = {f"FUNDLEDGER_{name}": value for name, value in environment.items()}
    done = await run("verify", "--json", env=environment, cwd=cwd)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("fundledger: database")]
    assert (done.returncode, len(lines)) == (status, 1), done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["checks"]) == (False, [])
    assert report["error"] in done.stderr
    done = await run("verify", env=environment, cwd=cwd)
    assert (done.returncode, done.stdout) == (status, "")
    return str(report["error"])


async def test_the_command_without_a_database_is_one_line(tmp_path: Path) -> None:
    assert "there is no ledger" in await unproved(2, tmp_path, DATA_DIR=str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


async def test_a_bad_setting_is_status_2(tmp_path: Path) -> None:
    assert "WORKERS" in await unproved(2, tmp_path, DATA_DIR=str(tmp_path), WORKERS="many")


@pytest.mark.parametrize("dsn", ["postgres://h:port/x", "nonsense", "postgresql:///x?sslmode=maybe"])
async def test_a_dsn_that_names_nothing_is_status_2(data_dir: Path, dsn: str) -> None:
    assert "DSN" in await unproved(2, data_dir, DATA_DIR=str(data_dir), ACCOUNT_DSN=dsn)


async def test_a_database_that_is_gone_is_status_3(used: Ledger, data_dir: Path) -> None:
    gone = used.dsn.replace("test_", "no_test_")
    assert "does not exist" in await unproved(3, data_dir, DATA_DIR=str(data_dir), ACCOUNT_DSN=gone)
    nowhere = "postgresql://x@127.0.0.1:1/x"
    assert "ConnectionRefused" in await unproved(3, data_dir, DATA_DIR=str(data_dir), ACCOUNT_DSN=nowhere)


async def test_keys_that_are_gone_are_status_3_and_none_are_made(used: Ledger, data_dir: Path) -> None:
    key = data_dir / "keys" / "mac-1.key"
    key.chmod(0o644)
    assert "readable by others" in await unproved(3, data_dir, DATA_DIR=str(data_dir), ACCOUNT_DSN=used.dsn)
    key.unlink()
    assert "has no key" in await unproved(3, data_dir, DATA_DIR=str(data_dir), ACCOUNT_DSN=used.dsn)
    assert list(key.parent.iterdir()) == []


async def test_vouchers_from_before_there_was_an_outbox_are_in_none(used: Ledger) -> None:
    await corrupt(used, "DELETE FROM ledger.outbox")
    found = [check.name for check in (await verify(used.dsn, used.keys)).checks if not check.ok]
    assert found == ["outbox_equals_vouchers"]
    await used.tamper("UPDATE public.fundledger_migrations SET applied_at = now() + interval '1 hour' WHERE number = 5")
    assert (await verify(used.dsn, used.keys)).ok


async def test_a_record_of_the_keys_that_was_edited_blinds_nothing(used: Ledger, data_dir: Path) -> None:
    await used.connection.execute("INSERT INTO ledger.key_fingerprints VALUES (1, '0123456789abcdef')")
    await corrupt(used, CORRUPTIONS["a balance"][0])
    status, out, _ = await verify_command(used, data_dir, "--json")
    report = json.loads(out)
    found = {check["name"] for check in report["checks"] if not check["ok"]}
    assert (status, found) == (
        1,
        {"keys_match_record", "balance_equals_entries", "mac_verifies_sub_accounts", "trial_balance"},
    )


async def test_a_key_that_is_missing_is_status_3_with_all_checks(used: Ledger, data_dir: Path) -> None:
    await used.connection.execute("INSERT INTO ledger.key_fingerprints VALUES (7, '0123456789abcdef')")
    await corrupt(used, CORRUPTIONS["a balance"][0])
    status, out, err = await verify_command(used, data_dir, "--json")
    report = json.loads(out)
    assert (status, report["ok"]) == (3, False)
    assert report["error"] in err
    assert "key 7" in report["error"]
    assert {check["name"] for check in report["checks"] if not check["ok"]} >= {
        "balance_equals_entries",
        "trial_balance",
    }


async def test_a_database_that_goes_away_leaves_the_checks_that_were_made(used: Ledger) -> None:
    async def end() -> None:
        connection = await asyncpg.connect(used.dsn)
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'fundledger verify'"
        )
        await connection.close()

    def progress(what: str, _: int) -> None:
        if what == "the vouchers":
            thread = threading.Thread(target=lambda: asyncio.run(end()))
            thread.start()
            thread.join()

    report = await verify(used.dsn, used.keys, progress)
    assert not report.ok
    assert report.error is not None
    made = {check.name: check.ok for check in report.checks}
    assert made["chain_verifies"] and made["mac_verifies_accounts"]
    assert not made["mac_verifies_vouchers"]
    assert "trial_balance" not in made


async def test_a_check_that_fails_is_not_ok_and_the_others_are_made(used: Ledger) -> None:
    names = {check.name for check in (await verify(used.dsn, used.keys)).checks}
    await corrupt(used, CORRUPTIONS["a balance"][0])
    await used.connection.execute("DROP TABLE ledger.holds; ALTER TABLE ledger.vouchers RENAME reverses TO reversed")
    report = await verify(used.dsn, used.keys)
    assert report.error is None
    assert {check.name for check in report.checks} == names
    failed = {check.name for check in report.checks if check.error is not None}
    assert failed == {
        "mac_verifies_vouchers",
        "voucher_matches_digest",
        "voucher_sums_to_zero",
        "mac_verifies_holds",
        "holds_open",
        "holds_of_accounts",
        "captures_match",
        "reversal_mirrors",
    }
    found = {check.name for check in report.checks if not check.ok} - failed
    assert found >= {"mac_verifies_sub_accounts", "balance_equals_entries", "trial_balance", "guards_in_force"}


async def test_verification_changes_nothing(used: Ledger) -> None:
    before = await used.state()
    await verify(used.dsn, used.keys)
    assert await used.state() == before
    connection = await asyncpg.connect(used.dsn)
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
    await connection.close()
