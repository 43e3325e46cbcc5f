"""MACs of orders: a row that was not written with the key moves no money, is not returned, and affects no other row."""

import logging
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import Kind, Order, SplitPart, State
from fundledger.fund.store.macs import OrderMacs, open_macs, trusted_mac
from fundledger.fund.store.migrate import migrate
from fundledger.fund.store.orders import read_order
from fundledger.reconciliation.reading import connected, snapshot
from fundledger.security.keys import KeyFault, make_keys
from fundledger.security.mac import MacKey
from tests.fund.bank import Scripted
from tests.support.database import Databases
from tests.support.fund_books import check_fund, prove_fund
from tests.support.fund_ids import KEYS, MACS, order_id
from tests.support.fund_worker import FundWorker
from tests.support.fund_world import TAKEN_BACK, an_order, write
from tests.support.running import RunningService
from tests.support.tampering import any_state

UNCOVERED = {"due_at", "seq", "mac", "mac_key"}
"""Columns that no MAC covers: the time of the next step, the sequence of lists, and the MAC itself."""
BECAME = {"state", "problem", "posted_at", "reversed_by", "stuck_from", "voucher_format"}
"""Columns that layout 1 did not cover."""


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token, wait_s=3.0) as worker:
        yield worker


def an_order_with_everything() -> Order:
    order = an_order(Kind.WITHDRAWAL, "w", 100, State.PAID, fee=1, ending="paid")
    for name in Order.__struct_fields__:
        if getattr(order, name) is None and name not in UNCOVERED:
            ids = ("of_order", "of_voucher", "end_voucher_id", "reversed_by", "payee")
            setattr(order, name, order.id if name in ids else 1 if name == "fee_version" else "x")
    order.parts = [SplitPart("a", 60, 6, 1), SplitPart("b", 40)]
    order.problem = b"{}"
    return order


@pytest.mark.parametrize("name", sorted(set(Order.__struct_fields__) - UNCOVERED))
def test_every_term_of_an_order_is_under_its_mac(name: str) -> None:
    order = an_order_with_everything()
    MACS.seal(order)
    assert MACS.verifies(order)
    there = getattr(order, name)
    if name == "kind":
        other: Any = Kind.REFUND
    elif name == "state":
        other = State.SENT
    elif name in ("created_at", "posted_at"):
        other = there.replace(microsecond=1)
    elif isinstance(there, int):
        other = there + 1
    elif isinstance(there, bytes):
        other = there + b"x"
    elif isinstance(there, str):
        other = there + "x"
    elif isinstance(there, list):
        other = [*there[:-1], SplitPart("b", 40, 1)]
    else:
        other = order_id("other", "m", "1")
    setattr(order, name, other)
    assert not MACS.verifies(order)
    if name in ("channel", "channel_ref", "reason", "ticket", "approved_by", "ending", "fee_version", "of_order") or (
        name in BECAME - {"state"}
    ):
        setattr(order, name, None)
        assert not MACS.verifies(order)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        *(("merchant", "c"), ("amount", 41), ("fee", 1), ("tax", 1), ("set_off", 1), ("to_receivable", 1)),
        *(("end_set_off", 1), ("fee_version", 3), ("keeps_fee", True)),
    ],
)
def test_each_term_of_a_part_is_under_the_mac_of_its_order(field: str, other: Any) -> None:
    order = an_order_with_everything()
    MACS.seal(order)
    assert order.parts is not None
    order.parts[1] = msgspec.structs.replace(order.parts[1], **{field: other})
    assert not MACS.verifies(order)
    order.parts = order.parts[:1]
    assert not MACS.verifies(order)
    assert {field for field in SplitPart.__struct_fields__ if field} == {
        *("merchant", "amount", "fee", "tax", "set_off", "to_receivable", "end_set_off", "fee_version"),
        "keeps_fee",
    }


def test_the_mac_of_a_split_order_stays_as_it_is() -> None:
    order = an_order(Kind.SPLIT_PAYMENT, "p", 100, fee=7, tax=1, parts=[SplitPart("a", 60, 7, 1), SplitPart("b", 40)])
    MACS.seal(order)
    assert order.mac is not None
    assert order.mac.hex()[:32] == "3c642543f73d9a41c20c0e9c06c96756"


def test_a_mac_is_of_one_key_and_of_one_order() -> None:
    class Others:
        current = MacKey(1, bytes(32))

        def by_version(self, version: int) -> MacKey:
            return self.current

    order, other = an_order(Kind.PAYMENT, "p", 100), an_order(Kind.PAYMENT, "q", 100)
    MACS.seal(order)
    assert not OrderMacs(Others()).verifies(order)
    other.mac, other.mac_key = order.mac, order.mac_key
    assert not MACS.verifies(other)


def test_the_mac_of_a_released_order_stays_as_it_is() -> None:
    order = an_order(Kind.PAYMENT, "p", 100, fee=1)
    MACS.seal(order)
    assert order.mac is not None
    assert order.mac.hex()[:32] == "65e72ae02717f5a63e9334947f07ffd9"
    order.layout = 1
    MACS.seal(order)
    assert order.mac.hex()[:32] == "3ab462cc9ce5f7d94d31eab85c126520"


def test_the_mac_of_a_column_that_was_added_later_stays_as_it_is() -> None:
    later = an_order(Kind.PAYMENT, "p", 100, fee=1, settle="later", settle_on=date(2026, 3, 4))
    everything = an_order(Kind.WITHDRAWAL, "w", 100, fee=1, takes_all=True)
    for order, mac in ((later, "825da499189fef5790b5e2d9e360dab3"), (everything, "eb983332a367a5de306b51778b1f32a1")):
        MACS.seal(order)
        assert order.mac is not None
        assert order.mac.hex()[:32] == mac


def test_an_order_of_layout_1_verifies_only_while_the_sweep_goes_on() -> None:
    order = an_order(Kind.PAYMENT, "p", 100, layout=1, seq=7)
    MACS.seal(order)
    assert OrderMacs(KEYS, None, 7).verifies(order)
    assert not OrderMacs(KEYS, None, 6).verifies(order)
    assert not OrderMacs(KEYS, 7, None).verifies(order)
    order.mac = order.mac_key = None
    assert OrderMacs(KEYS, 7, 7).verifies(order)
    assert not OrderMacs(KEYS, 6, 7).verifies(order)
    assert not OrderMacs(KEYS, 7, None).verifies(order)
    assert not OrderMacs(KEYS, 7, 7).verifies(msgspec.structs.replace(order, layout=2))


async def tampered_with(worker: FundWorker, edit: str, order: Order) -> None:
    async with any_state(worker.pool) as fund:
        await fund.execute(f"UPDATE fund.orders SET {edit} WHERE id = $1", order.id)


async def test_an_order_that_was_invented_is_not_posted_and_holds_up_no_other(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 100)

    async def away(*_: object) -> None:
        raise GatewayFault("cut")

    with monkeypatch.context() as cut:
        cut.setattr(worker.gateway, "post_vouchers", away)
        left = await worker.pay(merchant, "left", 5)
    invented = an_order(
        Kind.PAYMENT, "invented", 7_777_777, State.POSTING, merchant=merchant, channel=channel, due_at=left.created_at
    )
    connection = await asyncpg.connect(worker.dsn)
    for mac in (None, b"x" * 32, left.mac):
        await write(connection, [invented])
        forged = "UPDATE fund.orders SET mac = $2, mac_key = $3, layout = CASE WHEN $2::bytea IS NULL THEN 1 ELSE 2 END WHERE id = $1"
        await connection.execute(forged, invented.id, mac, None if mac is None else 1)
        for _ in range(3):
            await worker.recoverer.recover_some()
        assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", invented.id) == "posting"
        assert await worker.accounts.voucher(invented.voucher_id) is None
        await connection.execute("ALTER TABLE fund.orders DISABLE TRIGGER ALL")
        await connection.execute("DELETE FROM fund.orders WHERE id = $1", invented.id)
        for trigger in ("no_delete", "no_truncate", "first_state", "transition"):
            await connection.execute(f"ALTER TABLE fund.orders ENABLE ALWAYS TRIGGER orders_{trigger}")
    await connection.close()
    assert await worker.of(merchant) == (105, 0, 0)
    findings = [record for record in caplog.records if getattr(record, "event", "") == "integrity_finding"]
    assert len(findings) == 1
    assert findings[0].levelno == logging.CRITICAL


@pytest.mark.parametrize(
    "edit",
    [
        "amount = 700",
        "merchant = 'x'",
        "mac = NULL, mac_key = NULL, layout = 1",
        "layout = 1",
        "mac_key = 7",
        "fee = 9",
    ],
)
async def test_an_order_that_was_edited_before_it_was_posted_is_not_posted(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)

    async def away(*_: object) -> None:
        raise GatewayFault("cut")

    with monkeypatch.context() as cut:
        cut.setattr(worker.gateway, "post_vouchers", away)
        order = await worker.pay(merchant, "left", 5)
    await tampered_with(worker, edit, order)
    await worker.recoverer.recover_some()
    assert await worker.accounts.voucher(order.voucher_id) is None
    retried = await worker.batcher.retry(order.id, "person")
    assert isinstance(retried, OrderFault)
    assert retried.tampered
    repeated = await worker.ask(
        "payment", merchant=merchant, order_no="left", amount=5, currency="CNY", channel=f"c-{worker.salt}"
    )
    assert isinstance(repeated, OrderFault)
    assert repeated.tampered
    assert await worker.of(merchant) == (100, 0, 0)


async def test_what_is_about_an_edited_payment_moves_nothing_and_others_do(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    payment, _ = await worker.pay(merchant, "p", 100), await worker.pay(merchant, "q", 50)
    await tampered_with(worker, "amount = 100000", payment)
    for kind, members in (
        ("refund", {"payment_order_no": "p", "amount": 10}),
        ("chargeback", {"payment_order_no": "p", "amount": 10}),
        ("reversal", {"of_kind": "payment", "of_order_no": "p", "reason": "r"}),
    ):
        answer = await worker.ask(kind, merchant=merchant, order_no=kind, **members)
        assert isinstance(answer, OrderFault), kind
        assert answer.tampered
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="q", amount=10)
    assert refund.state is State.POSTED
    assert await worker.of(merchant) == (140, 0, 0)


@pytest.mark.parametrize("edit", ["amount = 1000", "ending = NULL", "fee = 1", "channel = channel || 'x'"])
async def test_an_edited_withdrawal_is_neither_sent_nor_ended(worker: FundWorker, edit: str) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    if edit == "ending = NULL":
        ended = await worker.batcher.end(order.id, "paid", "ref", None, "m")
        assert isinstance(ended, Taken)
        edit = "ending = NULL, end_voucher_id = NULL, state = 'posted'"
    await tampered_with(worker, edit, order)
    bank = Scripted(Standing.PAID)
    pace = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)
    await Payouts(worker.pool, worker.batcher, {channel: bank, f"{channel}x": bank}, pace).pay_out_some()
    assert bank.refs == []
    before = await worker.of(merchant)
    for ending in ("paid", "bounced"):
        answer = await worker.batcher.end(order.id, ending, "ref", None, "m")  # type: ignore[arg-type]
        assert isinstance(answer, OrderFault)
        assert answer.tampered
    await worker.recoverer.recover_some()
    assert await worker.of(merchant) == before


async def test_an_end_and_an_approval_that_were_written_by_sql_move_nothing(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=f"c-{worker.salt}")
    await tampered_with(worker, "ending = 'bounced', due_at = clock_timestamp()", order)
    members = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "r", "person": "alice"}
    adjustment = await worker.requested("adjustment", order_no="a", **members)
    forged = "state = 'posting', approved_by = 'person:bob', due_at = clock_timestamp()"
    await tampered_with(worker, forged, adjustment)
    await worker.recoverer.recover_some()
    assert await worker.of(merchant) == (400, 0, 0)


async def test_terms_that_change_are_sealed_anew(worker: FundWorker, service: RunningService) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    await worker.batcher.end(order.id, "bounced", None, "closed", "m")
    members = {"merchant": merchant, "amount": 5, "direction": "credit", "reason": "r", "person": "alice"}
    await worker.done("adjustment", order_no="a", **members)
    await worker.requested("adjustment", order_no="b", **members)
    for row in await worker.pool.fetch("SELECT id, mac FROM fund.orders"):
        there = await read_order(worker.pool, row["id"])
        assert there is not None
        assert MACS.verifies(there), there
    await prove_fund(worker.dsn, service.dsn, worker.salt)


async def test_verify_names_an_edited_order(worker: FundWorker, service: RunningService) -> None:
    merchant = await worker.merchant()
    payment = await worker.pay(merchant, "p", 500)
    await prove_fund(worker.dsn, service.dsn, worker.salt)
    await tampered_with(worker, "ticket = 'other', module = 'other'", payment)
    async with snapshot(worker.dsn) as fund, snapshot(service.dsn) as account, connected(worker.dsn) as later:
        checks, _ = await check_fund(fund, later, account)
    subjects = [
        finding.subject for check in checks for finding in check.findings if check.name == "mac_verifies_orders"
    ]
    assert subjects == [f"order {payment.id} (payment p of {merchant})"]


async def test_one_that_does_not_verify_posts_what_was_invented(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the tests above: no row is verified."""
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 100)
    invented = an_order(Kind.PAYMENT, "i", 7, State.POSTING, merchant=merchant, channel=channel)
    connection = await asyncpg.connect(worker.dsn)
    await write(connection, [invented])
    await connection.execute(
        "UPDATE fund.orders SET mac = NULL, mac_key = NULL, layout = 1, due_at = created_at WHERE id = $1", invented.id
    )
    await connection.close()
    monkeypatch.setattr(OrderMacs, "verifies", lambda *_: True)
    await worker.recoverer.recover_some()
    assert await worker.of(merchant) == (107, 0, 0)


# --- Orders from before MACs ----------------------------------------------------------------------------------------


async def test_orders_of_before_are_trusted_up_to_the_last_one_and_that_is_under_a_mac(
    postgres: Databases, tmp_path: Any
) -> None:
    dsn = await postgres.new_fund()
    connection = await asyncpg.connect(dsn)
    await write(connection, [an_order(Kind.PAYMENT, "old", 100)])
    await connection.execute("UPDATE fund.orders SET mac = NULL, mac_key = NULL, layout = 1")
    await connection.execute(
        f"""{TAKEN_BACK}; DROP TABLE fund.trusted_orders; DELETE FROM public.fundledger_fund_migrations WHERE number = 10;
           ALTER TABLE fund.orders DROP COLUMN mac, DROP COLUMN mac_key"""
    )
    await migrate(connection, tmp_path / "fund-keys")
    keys = make_keys(tmp_path / "fund-keys")
    macs = await open_macs(connection, keys)
    old, new = an_order(Kind.PAYMENT, "old", 100), an_order(Kind.PAYMENT, "new", 100)
    old.seq, new.seq = 1, 2
    old.layout = new.layout = 1
    assert macs.verifies(old)
    assert not macs.verifies(new)
    assert await connection.fetchval("SELECT mac FROM fund.trusted_orders") == trusted_mac(1, keys)
    await connection.execute("UPDATE fund.trusted_orders SET until_seq = 1000")
    with pytest.raises(KeyFault):
        await open_macs(connection, keys)
    assert not OrderMacs(KEYS).verifies(msgspec.structs.replace(old))
    await connection.close()
    await postgres.drop(dsn)


async def test_an_attempt_that_was_prepared_from_an_older_row_changes_nothing(
    worker: FundWorker, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel reports a second reason while the refusal of the first end is still being processed."""
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    posting = worker.posting

    async def ends_later(_: Order) -> None:
        raise GatewayFault("made by a test")

    with monkeypatch.context() as away:
        away.setattr(posting, "end", ends_later)
        await worker.batcher.end(order.id, "bounced", None, "first", "m")
        older = await read_order(worker.pool, order.id)
        await worker.batcher.end(order.id, "bounced", None, "second", "m")
    assert older is not None
    await posting._end_again(older, b"{}")
    there = await read_order(worker.pool, order.id)
    assert there is not None
    assert (there.reason, there.attempt, MACS.verifies(there)) == ("second", 0, True)
    await posting.end(there)
    await prove_fund(worker.dsn, service.dsn, worker.salt)
