"""The MAC sweep of the fund database: rows of earlier layouts are verified and get MACs of the current layout.

A row that does not verify is kept, and is a finding.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs import sweep as sweeping
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.jobs.sweep import FundSweep
from fundledger.fund.model import drafts
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.order import VOUCHER_FORMAT, State
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.macs import open_macs, unswept_mac
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.migrate import migrate
from fundledger.fund.store.orders import read_orders
from fundledger.fund.store.queries import SQL
from fundledger.outbox.webhooks import Webhooks
from fundledger.security.keys import make_keys
from tests.fund.bank import Scripted
from tests.support.database import Databases
from tests.support.fund_books import check_shared, prove_fund
from tests.support.fund_ids import KEYS
from tests.support.fund_worker import FundWorker
from tests.support.fund_world import TAKEN_BACK
from tests.support.running import RunningService
from tests.support.tampering import any_state

OLD = {
    "orders": "layout = 1",
    "payments": "mac_key = 0",
    "withdrawal_days": "mac_key = 0",
    "payouts": "mac_key = 0",
}


async def nobody_else(_: Any) -> None:
    """Do nothing: no other process takes the lease."""


async def fill(worker: FundWorker) -> str:
    """Create orders of every kind. Return the id of the merchant."""
    merchant, channel = await worker.merchant(fee=Fee(basis_points=100)), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "q", 1_000)
    await worker.pay(merchant, "undone", 40)
    for order_no in ("later", "later2"):
        await worker.pay(merchant, order_no, 500, settle="later")
    with pytest.MonkeyPatch.context() as before:  # no refund of that time has an end
        before.setattr(drafts, "REFUND_FORMAT", VOUCHER_FORMAT)
        await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
        await worker.done("refund", merchant=merchant, order_no="r2", payment_order_no="later", amount=50)
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=10)
    await worker.done("settlement", merchant=merchant, order_no="s", amount=200)
    await worker.done("reversal", merchant=merchant, order_no="u", of_kind="payment", of_order_no="undone", reason="r")
    for order_no in ("w", "w2"):
        await worker.done("withdrawal", merchant=merchant, order_no=order_no, amount=70, channel=channel)
    bank = Scripted(Standing.PAID, Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {channel: bank}, Pace(rate=10_000)).pay_out_some()
    await worker.done("withdrawal", merchant=merchant, order_no="much", amount=1_000_000, channel=channel)
    members = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "r", "person": "alice"}
    await worker.requested("adjustment", order_no="a", **members)
    await worker.done("adjustment", order_no="b", **members)
    return merchant


async def age(worker: FundWorker) -> None:
    """Set each row back to its state before layout 2."""
    ids = [row["id"] for row in await worker.pool.fetch("SELECT id FROM fund.orders")]
    for order in (await read_orders(worker.pool, ids)).values():
        order.layout = 1
        worker.macs.seal(order)
        await worker.pool.execute("UPDATE fund.orders SET layout = 1, mac = $2 WHERE id = $1", order.id, order.mac)
    for table in ("payments", "withdrawal_days", "payouts"):
        await worker.pool.execute(f"UPDATE fund.{table} SET mac_key = 0, mac = ''")
    last = await worker.value("SELECT max(seq) FROM fund.orders")
    await worker.pool.execute(SQL["write_unswept"], last, unswept_mac(last, KEYS))
    await worker.start_worker()


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        await fill(worker)
        await age(worker)
        yield worker


async def left(worker: FundWorker) -> dict[str, int]:
    """Return the number of rows with an earlier layout, by table."""
    counts = {table: await worker.value(f"SELECT count(*) FROM fund.{table} WHERE {old}") for table, old in OLD.items()}
    return {table: count for table, count in counts.items() if count}


async def swept(worker: FundWorker, sweep: FundSweep | None = None) -> None:
    sweep = sweep or FundSweep(worker.pool, worker.posting)
    while (await sweep.step(nobody_else))[1]:
        pass


async def found(worker: FundWorker, account_dsn: str, checks_of: str = "mac_") -> list[str]:
    """Return the findings of checks whose name contains `checks_of`, without those about vouchers of other tests."""
    checks, _ = await check_shared(worker.dsn, account_dsn, worker.salt)
    return [finding.subject for check in checks if checks_of in check.name for finding in check.findings]


async def test_a_sweep_brings_everything_over_and_then_no_row_of_before_verifies(
    worker: FundWorker, service: RunningService
) -> None:
    assert set(await left(worker)) == set(OLD)
    await prove_fund(worker.dsn, service.dsn, worker.salt)
    await swept(worker)
    assert await left(worker) == {}
    assert await worker.value("SELECT count(*) FROM fund.unswept") == 0
    assert await worker.macs.write_found(worker.pool) == 0
    await prove_fund(worker.dsn, service.dsn, worker.salt)
    await worker.value("UPDATE fund.payments SET mac_key = 0, mac = '' WHERE refunded = 100")
    await worker.value("UPDATE fund.orders SET layout = 1 WHERE order_no = 'q'")
    assert len(await found(worker, service.dsn)) == 2
    for order_no in ("p", "q"):
        members = {
            "merchant": f"m-{worker.salt}",
            "order_no": f"new-{order_no}",
            "payment_order_no": order_no,
            "amount": 1,
        }
        answer = await worker.ask("refund", **members)
        assert isinstance(answer, OrderFault)
        assert answer.tampered


async def test_orders_go_on_before_the_sweep_has_come_to_them(worker: FundWorker, service: RunningService) -> None:
    merchant, channel = f"m-{worker.salt}", f"c-{worker.salt}"
    for order_no in ("p", "q", "later"):
        members = {"merchant": merchant, "order_no": f"x-{order_no}", "payment_order_no": order_no, "amount": 20}
        assert (await worker.done("refund", **members)).state is State.POSTED
    assert (await worker.done("settlement", merchant=merchant, order_no="s2")).state is State.POSTED
    withdrawal = await worker.done("withdrawal", merchant=merchant, order_no="w3", amount=5, channel=channel)
    assert withdrawal.state is State.POSTED
    await worker.batcher.end(withdrawal.id, "bounced", None, "r", "m")
    await swept(worker)
    assert await left(worker) == {}
    await prove_fund(worker.dsn, service.dsn, worker.salt)


EDITS = {
    "payments": ("UPDATE fund.payments SET refunded = 0, fee_returned = 0 WHERE refunded = 100", "refund"),
    "withdrawal_days": ("UPDATE fund.withdrawal_days SET amount = 1", "withdrawal"),
    "payouts": (
        "UPDATE fund.payouts SET amount = 1 WHERE amount = 70 AND ctid = (SELECT min(ctid) FROM fund.payouts)",
        "",
    ),
    "orders: its terms": ("UPDATE fund.orders SET amount = 2000 WHERE order_no = 'q'", ""),
    "orders: its reversal": ("UPDATE fund.orders SET reversed_by = NULL WHERE order_no = 'undone'", ""),
    "orders: what did not reverse it": ("UPDATE fund.orders SET reversed_by = id WHERE order_no = 'q'", ""),
    "orders: its state": (
        "UPDATE fund.orders SET state = 'refused', problem = '{}', posted_at = NULL WHERE order_no = 'q'",
        "",
    ),
    "orders: its state, told": (
        """WITH edited AS (UPDATE fund.orders SET state = 'posted', problem = NULL, posted_at = created_at WHERE order_no = 'much'
           RETURNING id, merchant) INSERT INTO fund.events (order_id, merchant, kind, state, at)
           SELECT id, merchant, 'withdrawal', 'posted', now() FROM edited""",
        "",
    ),
    "orders: its refusal, told": (
        """WITH edited AS (UPDATE fund.orders SET state = 'refused', problem = '{}', posted_at = NULL WHERE order_no = 'q'
           RETURNING id, merchant) INSERT INTO fund.events (order_id, merchant, kind, state, at)
           SELECT id, merchant, 'payment', 'refused', now() FROM edited""",
        "",
    ),
}


@pytest.mark.parametrize("what", EDITS)
async def test_a_row_of_before_that_is_false_gets_no_mac(
    worker: FundWorker, service: RunningService, what: str
) -> None:
    statement, kind = EDITS[what]
    async with any_state(worker.pool) as fund:
        await fund.execute(statement)
    merchant = f"m-{worker.salt}"
    members = {"merchant": merchant, "order_no": "next", "amount": 30}
    for sweeps in (0, 1):
        if sweeps:
            await swept(worker)
        if kind:
            more = {"payment_order_no": "p"} if kind == "refund" else {"channel": f"c-{worker.salt}"}
            answer = await worker.ask(kind, **members, **more)
            assert isinstance(answer, OrderFault), (sweeps, answer)
            assert answer.tampered
    table = what.partition(":")[0]
    assert (await left(worker)).get(table) == 1
    assert await worker.value("SELECT count(*) FROM fund.unswept") == 0
    assert await worker.macs.write_found(worker.pool) >= 1
    assert any(table in subject or subject.startswith("order ") for subject in await found(worker, service.dsn))


NO_MAC = "mac_key = 0, mac = ''"
ALLOWED_EDITS: dict[str, tuple[str, list[str]]] = {
    # name of the edited row: (edit, reported rows)
    "a sum": (
        f"UPDATE fund.payments SET refunded = 0, fee_returned = 0, {NO_MAC} WHERE refunded = 100",
        ["payment: fee_returned", "payment: refunded"],
    ),
    "a day": (f"UPDATE fund.withdrawal_days SET amount = 1, {NO_MAC}", ["withdrawals"]),
    "the terms of a payout": (f"UPDATE fund.payouts SET amount = 1, {NO_MAC}", ["payout: amount"] * 2),
    "the outcome of a payout": (f"UPDATE fund.payouts SET outcome = 'bounced', {NO_MAC}", ["payout: outcome"] * 2),
    "a withdrawal that was paid": (
        """
        ALTER TABLE fund.events DISABLE TRIGGER ALL;
        DELETE FROM fund.events WHERE order_id = '{id}' AND state IN ('sent', 'paid');
        ALTER TABLE fund.events ENABLE ALWAYS TRIGGER events_append_only;
        ALTER TABLE fund.events ENABLE ALWAYS TRIGGER events_no_truncate;
        UPDATE fund.orders SET state = 'posted', ending = NULL, end_voucher_id = NULL, channel_ref = NULL, layout = 1,
            mac = decode('{mac}', 'hex') WHERE id = '{id}'
        """,
        ["end", "payout: outcome", "payout: state", "voucher"],
    ),
}


@pytest.mark.parametrize("edited", ALLOWED_EDITS)
async def test_an_edit_that_a_restored_unswept_row_allows_is_found(
    worker: FundWorker, service: RunningService, edited: str
) -> None:
    """An attacker restores the row of `fund.unswept` and MACs of layout 1, and edits columns without cover."""
    before = await worker.pool.fetchrow("SELECT until_seq, mac FROM fund.unswept")
    id_ = await worker.value("SELECT id FROM fund.orders WHERE order_no = 'w'")
    (old,) = (await read_orders(worker.pool, [id_])).values()
    old.state, old.ending, old.end_voucher_id, old.channel_ref = State.POSTED, None, None, None
    worker.macs.seal(old)
    await swept(worker)
    await worker.pool.execute(SQL["write_unswept"], *before)
    assert old.mac is not None
    statement, reported = ALLOWED_EDITS[edited]
    async with any_state(worker.pool) as fund:
        await fund.execute(statement.format(id=id_, mac=old.mac.hex()))
    assert await found(worker, service.dsn) == []
    subjects = await found(worker, service.dsn, "fund_")
    assert sorted(re.sub(r" [^:]*", "", subject, count=1) for subject in subjects) == reported


async def test_a_sweep_may_end_anywhere_and_many_may_run(
    worker: FundWorker, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 2)

    class Cut(Exception):
        pass

    turns = 0

    async def cut(_: Any) -> None:
        nonlocal turns
        turns += 1
        if turns % 3 == 0:
            raise Cut

    async def interrupted() -> None:
        """Run the sweep in a process that dies in each third transaction and starts again."""
        sweep, steps = FundSweep(worker.pool, worker.posting), 0
        while steps < 400:
            steps += 1
            try:
                if not (await sweep.step(cut))[1]:
                    return
            except Cut:
                if steps % 2:
                    sweep = FundSweep(worker.pool, worker.posting)

    merchant = f"m-{worker.salt}"
    refunds = [
        worker.ask("refund", merchant=merchant, order_no=f"n{i}", payment_order_no="q", amount=1) for i in range(10)
    ]
    await asyncio.gather(interrupted(), interrupted(), swept(worker), *refunds)
    await swept(worker)
    assert turns > 10
    assert await left(worker) == {}
    assert await worker.value("SELECT count(*) FROM fund.unswept") == 0
    await prove_fund(worker.dsn, service.dsn, worker.salt)


async def test_a_step_that_was_cancelled_is_done_again(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 3)
    for _ in range(200):
        step = asyncio.ensure_future(FundSweep(worker.pool, worker.posting).step(nobody_else))
        await asyncio.wait([step], timeout=0.02)
        step.cancel()
        await asyncio.wait([step])
        if not await left(worker):
            break
    await swept(worker)
    assert await left(worker) == {}


async def test_the_migration_gives_merchants_rules_and_webhooks_their_macs(
    postgres: Databases, tmp_path: Path, service: RunningService
) -> None:
    dsn = await postgres.new_fund()
    connection = await asyncpg.connect(dsn)
    async with FundWorker(dsn, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(fee=Fee(basis_points=100), withdrawal_fee=Fee(fixed=3))
        await Webhooks(worker.pool, worker.macs).add(merchant, "https://example.com/", None, "tests")
        await connection.execute(TAKEN_BACK)
        await migrate(connection, tmp_path / "fund-keys")
        macs = await open_macs(connection, make_keys(tmp_path / "fund-keys"))
        assert macs.unswept_until is None, "there are no orders"
        there = await Merchants(worker.pool, worker.gateway, macs).read(merchant)
        assert there is not None
        assert len(there.fee_rules) == 2
        shown, bad = await Webhooks(worker.pool, macs).of(merchant)
        assert (len(shown), bad) == (1, [])
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await connection.execute("UPDATE fund.fee_rules SET fixed = 7")
    await connection.close()
    await postgres.drop(dsn)
