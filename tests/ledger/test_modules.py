"""Ids of modules: two modules may use the same id for different vouchers or holds, and each reads its own."""

import asyncpg
import pytest

from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import Drain
from fundledger.ledger.model.hold import EndHold, PlaceHold
from fundledger.ledger.statement.pages import read_statement
from fundledger.ledger.store.records import HoldTampered, VoucherTampered
from fundledger.ledger.store.sweep import Sweep
from fundledger.reconciliation.checks import verify
from fundledger.security import canonical
from tests.support.ledger import Ledger, code, codes, new_id, posted, reversal, transfer

MODULES = ("dev", "fund")


async def statement(ledger: Ledger, account: object) -> list[tuple[object, str, int]]:
    page, _ = await read_statement(
        ledger.connection,
        ledger.directory,
        account,  # type: ignore[arg-type]
        ledger.layout,
        100,
        None,
        None,
        None,
    )
    return [(line.voucher_id, line.type, line.amount) for line in page]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("buffered", [True, False])
async def test_two_modules_post_one_id_and_all_that_reads_it_stays_right(
    ledger: Ledger, buffered: bool, apart: bool
) -> None:
    bank = await ledger.account("bank", "bank")
    m = await ledger.account("m:1", buffered=buffered)
    id_ = new_id()
    asked = [transfer(bank, m, 5 + i, id_=id_, module=module, type_=f"of_{module}") for i, module in enumerate(MODULES)]
    outcomes = [(await ledger.post(one))[0] for one in asked] if apart else await ledger.post(*asked)
    assert all(map(posted, outcomes))
    again = await ledger.post(*asked)
    assert [(code(one), one.replay) for one in again] == [("posted", True)] * 2  # type: ignore[union-attr]
    if buffered:
        await ledger.post(Drain(m))
    of_bank = await statement(ledger, bank)
    assert sorted(of_bank, key=str) == sorted([(id_, "of_dev", 5), (id_, "of_fund", 6)], key=str)
    assert await statement(ledger, m) == [(id_, "of_dev", 5), (id_, "of_fund", 6)]
    assert [(await ledger.record(id_, module)).type for module in MODULES] == ["of_dev", "of_fund"]  # type: ignore[union-attr]
    assert await ledger.record(id_, "other") is None
    backward = [await ledger.post_one(reversal(one)) for one in asked]
    assert codes(backward) == ["posted", "posted"]
    assert codes([await ledger.post_one(reversal(asked[0]))]) == ["voucher-already-reversed"]
    assert await ledger.posted(m) == 0
    assert (await ledger.prove()).ok


async def test_a_hold_is_ended_and_captured_by_its_own_module_only(ledger: Ledger) -> None:
    a = await ledger.account("m:1", balance=100)
    for module in MODULES:
        assert code(await ledger.post_one(PlaceHold("h", a, 10, 0, module))) == "posted"
    stranger = transfer(a, await ledger.account("m:2"), 10, hold_id="h", module="other")
    assert code(await ledger.post_one(stranger)) == "hold-not-found"
    assert code(await ledger.post_one(EndHold("h", a, 0, "fund"))) == "posted"
    kept, ended = await ledger.read_hold("h", "dev"), await ledger.read_hold("h", "fund")
    assert kept is not None and ended is not None
    assert (kept.status.name, ended.status.name) == ("OPEN", "RELEASED")
    assert (await ledger.prove()).ok


VOUCHERS = {
    "module": "module = 'other'",
    "type": "type = 'other'",
    "reference": "reference = 'invoice 666'",
    "metadata": """metadata = '{"payee": "Mallory"}'""",
    "hold": "hold = 'h'",
    "reverses": "reverses = gen_random_uuid()",
    "shared_id": "shared_id = true",
    "layout": "layout = 1",
    "digest": "digest = digest || ''::bytea || 'x'",
    "posted_at": "posted_at = 'infinity'",
    "batch": "batch = batch + 1",
}


async def behind_its_back(ledger: Ledger, table: str, change: str) -> None:
    async with ledger.connection.transaction():
        await ledger.connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
        await ledger.tamper(f"UPDATE ledger.{table} SET {change}")
        await ledger.connection.execute(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {table}_append_only")
        await ledger.connection.execute(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {table}_no_truncate")


async def failing(ledger: Ledger) -> set[str]:
    return {check.name for check in (await verify(ledger.dsn, ledger.keys)).checks if not check.ok}


@pytest.mark.parametrize("field", VOUCHERS)
async def test_an_edited_voucher_is_refused_when_it_is_read_and_repeated(ledger: Ledger, field: str) -> None:
    a, b = await ledger.account("m:1"), await ledger.account("bank", "bank")
    asked = transfer(b, a, 5, reference="r", metadata='{"k":1}')
    await ledger.post(asked)
    await behind_its_back(ledger, "vouchers", VOUCHERS[field])
    module = "other" if field == "module" else "dev"
    with pytest.raises(VoucherTampered):
        await ledger.record(asked.id, module)
    if field != "module":
        assert code(await ledger.post_one(asked)) == "account-frozen"
    assert "mac_verifies_vouchers" in await failing(ledger)


async def test_a_reversal_whose_link_was_cleared_by_hand_is_found(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1"), await ledger.account("bank", "bank")
    asked = transfer(b, a, 5)
    back = reversal(asked)
    await ledger.post(asked, back)
    await behind_its_back(ledger, "vouchers", "reverses = NULL")
    with pytest.raises(VoucherTampered):
        await ledger.record(back.id)
    assert "mac_verifies_vouchers" in await failing(ledger)


HOLDS = {
    "digest": "digest = '\\x00'",
    "voucher_id": "voucher_id = gen_random_uuid()",
    "module": "module = 'other'",
    "shard": "shard = 9",
}


@pytest.mark.parametrize("field", HOLDS)
async def test_an_edited_hold_is_refused_when_it_is_read_and_ended(ledger: Ledger, field: str) -> None:
    a = await ledger.account("m:1", balance=100)
    hold = await ledger.hold("h", a, 10)
    await ledger.tamper(f"UPDATE ledger.holds SET {HOLDS[field]}")
    module = "other" if field == "module" else "dev"
    with pytest.raises(HoldTampered):
        await ledger.read_hold("h", module)
    assert code(await ledger.post_one(EndHold("h", a, hold.slot, module))) == "account-frozen"
    assert "mac_verifies_holds" in await failing(ledger)


ACCOUNTS = ("shard = 7", "slots = 3", "buffered = true", "module = 'other'", "owner = 'other'")


@pytest.mark.parametrize("change", ACCOUNTS)
async def test_an_edited_account_is_refused_by_a_worker_that_does_not_know_it(ledger: Ledger, change: str) -> None:
    a = await ledger.account("m:1")
    await ledger.tamper(f"UPDATE ledger.accounts SET {change} WHERE number = $1", a.number)
    other = await ledger.worker(1)
    with pytest.raises(Exception, match="does not match its MAC"):
        await other.directory.resolve(other.connection, ["m:1"])
    assert "mac_verifies_accounts" in await failing(ledger)


async def test_a_freeze_keeps_the_row_as_it_was_found(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    await ledger.tamper("UPDATE ledger.sub_accounts SET posted = 1000 WHERE account_number = $1", a.number)
    read = "SELECT posted, held, version, seq, status, mac FROM ledger.sub_accounts WHERE account_number = $1"
    found = await ledger.connection.fetchrow(read, a.number)
    for _ in range(3):
        assert code(await ledger.post_one(transfer(a, b, 500))) == "account-frozen"
    assert await ledger.connection.fetchrow(read, a.number) == found
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    assert await ledger.count("integrity_findings") == 1
    assert "mac_verifies_sub_accounts" in await failing(ledger)


@pytest.mark.parametrize("table", ["account_events", "integrity_findings"])
@pytest.mark.parametrize("how", ["edited", "first deleted", "last deleted", "all deleted"])
async def test_evidence_that_is_edited_or_gone_is_found(ledger: Ledger, table: str, how: str) -> None:
    for name in ("m:1", "m:2"):
        a = await ledger.account(name, balance=10)
        await ledger.tamper("UPDATE ledger.sub_accounts SET posted = 1000 WHERE account_number = $1", a.number)
        assert code(await ledger.post_one(transfer(a, a, 5))) == "account-frozen"
    assert "evidence_chained" not in await failing(ledger)
    which = {"first deleted": "WHERE seq = 1", "last deleted": "WHERE seq = 2", "all deleted": ""}
    edit = f"DELETE FROM ledger.{table} {which[how]}" if how in which else f"UPDATE ledger.{table} SET at = now()"
    await ledger.connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
    await ledger.connection.execute(edit)
    assert "evidence_chained" in await failing(ledger)


async def aged(ledger: Ledger) -> None:
    """Give every voucher, hold and account the MAC that it had before layout 2."""
    from fundledger.ledger.store.directory import account_message
    from fundledger.ledger.store.records import hold_message, voucher_message

    connection, key = ledger.connection, ledger.keys.current
    await connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER USER")
    for row in await connection.fetch("SELECT * FROM ledger.vouchers"):
        mac = key.tag(voucher_message(row, 1, key.version))
        await connection.execute("UPDATE ledger.vouchers SET layout = 1, mac = $2 WHERE id = $1", row["id"], mac)
    for row in await connection.fetch("SELECT * FROM ledger.holds"):
        mac = key.tag(hold_message(row, 1, key.version))
        await connection.execute("UPDATE ledger.holds SET layout = 1, mac = $2 WHERE id = $1", row["id"], mac)
    for row in await connection.fetch("SELECT * FROM ledger.accounts"):
        mac = key.tag(account_message(row, 1, row["slots"], row["buffered"], key.version))
        await connection.execute("UPDATE ledger.accounts SET layout = 1, mac = $2 WHERE id = $1", row["id"], mac)
    for guard in ("append_only", "no_truncate"):
        await connection.execute(f"ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_{guard}")


async def test_a_sweep_brings_over_what_verifies_and_reports_the_rest_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    good, bad = transfer(a, b, 1), transfer(a, b, 2, reference="right")
    await ledger.post(good, bad)
    await ledger.hold("h", a, 5)
    await aged(ledger)
    assert (await ledger.prove()).ok
    await ledger.connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER USER")
    await ledger.connection.execute("UPDATE ledger.vouchers SET reference = 'wrong' WHERE id = $1", bad.id)
    for guard in ("append_only", "no_truncate"):
        await ledger.connection.execute(f"ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_{guard}")
    with pytest.raises(VoucherTampered):
        await ledger.record(bad.id)
    sweep = Sweep(ledger.directory, ledger.layout)
    done = []
    for _ in range(3):
        async with ledger.connection.transaction():
            done.append((await sweep.step(ledger.connection))[0])
        sweep.begin()
    accounts, vouchers = await ledger.count("accounts"), await ledger.count("vouchers")
    assert done == [accounts + vouchers - 1 + 1, 0, 0]
    layouts = "SELECT id FROM ledger.vouchers WHERE layout = 1"
    assert [row["id"] for row in await ledger.connection.fetch(layouts)] == [bad.id]
    subjects = "SELECT kind, subject FROM ledger.integrity_findings"
    assert [tuple(row) for row in await ledger.connection.fetch(subjects)] == [("voucher", f"dev {bad.id}")]
    assert (await ledger.record(good.id)) is not None
    assert await failing(ledger) == {"voucher_matches_digest", "integrity_findings"}


async def test_a_sweep_goes_on_past_rows_that_cannot_be_read(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.account("m:3")
    bad = transfer(a, b, 2)
    await ledger.post(*(transfer(a, b, 1) for _ in range(3)), bad)
    for name in ("h1", "h2", "h3"):
        await ledger.hold(name, a, 5)
    await aged(ledger)
    connection = ledger.connection
    for table, change in (
        ("vouchers", f"posted_at = '0044-03-15 BC' WHERE id = '{bad.id}'"),
        ("holds", "created_at = '0044-03-15 BC' WHERE id = 'h2'"),
        ("accounts", f"created_at = '0044-03-15 BC' WHERE number = {other.number}"),
    ):
        await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER")
        await connection.execute(f"UPDATE ledger.{table} SET {change}")
    for guard in ("append_only", "no_truncate"):
        await connection.execute(f"ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_{guard}")
    sweep = Sweep(ledger.directory, ledger.layout)
    for _ in range(2):
        async with connection.transaction():
            await sweep.step(connection)
        sweep.begin()
    left = {
        table: [str(row[0]) for row in await connection.fetch(f"SELECT {key} FROM ledger.{table} WHERE layout = 1")]
        for table, key in (("vouchers", "id"), ("holds", "id"), ("accounts", "number"))
    }
    assert left == {"vouchers": [str(bad.id)], "holds": ["h2"], "accounts": [str(other.number)]}
    found = await connection.fetch("SELECT kind, subject FROM ledger.integrity_findings ORDER BY kind")
    assert [tuple(row) for row in found] == [
        ("account", f"number {other.number}"),
        ("hold", "dev h2"),
        ("voucher", f"dev {bad.id}"),
    ]


@pytest.mark.parametrize(
    "change",
    ["layout = 2", "layout = 2, mac = '', reference = 'x'", "layout = 3", "mac = ''", "layout = 2, module = 'other'"],
)
async def test_only_the_mac_of_a_voucher_may_change_and_only_to_layout_2(ledger: Ledger, change: str) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.post(transfer(a, b, 1))
    if change != "layout = 2":
        await aged(ledger)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await ledger.connection.execute(f"UPDATE ledger.vouchers SET {change}")


def test_the_layout_that_is_written_is_that_of_the_statements() -> None:
    assert canonical.LAYOUT == 2
