"""Formats of vouchers: a voucher names its order, and the vouchers of an older order keep the format as posted."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from fundledger.client.types import StatementEntry, Voucher
from fundledger.fund.account_gateway import AccountGateway, GatewayFault, end_voucher_of, voucher_of
from fundledger.fund.model import drafts
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import VOUCHER_FORMAT, Kind, Order, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.store.orders import order_from, read_order, read_orders
from fundledger.ledger.model.voucher import digest_of
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.fund_world import an_order
from tests.support.running import RunningService
from tests.support.tampering import any_state


class Unanswered(AccountGateway):
    """An account gateway that loses the answers while `lost` is True."""

    lost = False

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[PostingResult | None]:
        verdicts = await super().post_vouchers(vouchers)
        if self.lost:
            raise GatewayFault("lost")
        return verdicts

    async def _reverse(self, order: Order) -> PostingResult | None:
        verdict = await super()._reverse(order)
        if self.lost:
            raise GatewayFault("lost")
        return verdict


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    worker = FundWorker(fund_database, service.base_url, service.fund_token, wait_s=0.3)
    worker.gateway = Unanswered(worker.accounts)
    async with worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


# --- Golden vouchers ------------------------------------------------------------------------------------------------

ORDER = an_order(Kind.PAYMENT, "no-1", 100, merchant="tea", channel="icbc", settle="later")
GOLDEN = {
    1: b'{"id":"%(id)s","type":"pay","entries":[{"account":"bank:icbc","side":"debit","amount":100},'
    b'{"account":"merchant:tea:pending","side":"credit","amount":100}],"reference":"fund:%(order)s"}',
    2: b'{"id":"%(id)s","type":"pay","entries":[{"account":"bank:icbc","side":"debit","amount":100},'
    b'{"account":"merchant:tea:pending","side":"credit","amount":100}],"reference":"fund:%(order)s",'
    b'"metadata":{"kind":"payment","order_no":"no-1"}}',
}
DIGESTS = {
    1: "0b2c883b9ae7607c6b4213d24ee51f4a1570fc7c5e0da632942bc90ced991073",
    2: "a6aeaa3e233d4ff0300dfe6bbcabe69d853085cf79a645a43580a160cbefa78d",
}


@pytest.mark.parametrize("format_", [1, 2])
def test_what_an_order_posts_never_changes(format_: int) -> None:
    order = msgspec.structs.replace(ORDER, voucher_format=format_)
    ids = {b"id": str(order.voucher_id).encode(), b"order": str(order.id).encode()}
    assert msgspec.json.encode(voucher_of(order)) == GOLDEN[format_] % ids
    voucher = voucher_of(order)
    lines = [(entry.account, entry.amount if entry.side == "credit" else -entry.amount) for entry in voucher.entries]
    meta = None if voucher.metadata is None else msgspec.json.encode(voucher.metadata).decode()
    digest = digest_of(voucher.type, lines, voucher.reference, meta, None, None)
    assert digest.hex() == DIGESTS[format_]


REFUND = an_order(
    *(Kind.REFUND, "r-1", 100),
    merchant="tea",
    channel="icbc",
    fee=1,
    from_pending=40,
    fee_waived=2,
    voucher_format=3,
    ending="bounced",
    end_set_off=9,
)
NAMED = b',"reference":"fund:%(order)s","metadata":{"kind":"refund","order_no":"r-1"}}'
REFUND_GOLDEN = {
    None: b'{"id":"%(id)s","type":"refund","entries":[{"account":"merchant:tea:pending","side":"debit","amount":40},'
    b'{"account":"merchant:tea:available","side":"debit","amount":59},{"account":"income:fee","side":"debit","amount":1},'
    b'{"account":"transit:refund:icbc","side":"credit","amount":100}]' + NAMED,
    "paid": b'{"id":"%(end)s","type":"refund_paid","entries":[{"account":"transit:refund:icbc","side":"debit","amount":100},'
    b'{"account":"bank:icbc","side":"credit","amount":100}]' + NAMED,
    "bounced": b'{"id":"%(end)s","type":"refund_bounced","entries":['
    b'{"account":"transit:refund:icbc","side":"debit","amount":100},{"account":"income:fee","side":"credit","amount":1},'
    b'{"account":"merchant:tea:pending","side":"credit","amount":40},'
    b'{"account":"merchant:tea:available","side":"credit","amount":50},'
    b'{"account":"merchant:tea:receivable","side":"credit","amount":9}]' + NAMED,
}


@pytest.mark.parametrize("ending", REFUND_GOLDEN)
def test_what_a_refund_with_an_end_posts_never_changes(ending: Any) -> None:
    named = {"id": REFUND.voucher_id, "end": REFUND.end_voucher_id, "order": REFUND.id}
    ids = {name.encode(): str(id_).encode() for name, id_ in named.items()}
    voucher = voucher_of(REFUND) if ending is None else end_voucher_of(REFUND, ending)
    assert msgspec.json.encode(voucher) == REFUND_GOLDEN[ending] % ids


def test_a_refund_of_an_earlier_format_credits_the_bank_account() -> None:
    early = msgspec.structs.replace(REFUND, voucher_format=2, ending=None)
    accounts = {entry.account for entry in voucher_of(early).entries}
    assert accounts == {"merchant:tea:pending", "merchant:tea:available", "income:fee", "bank:icbc"}
    with pytest.raises(AssertionError):
        end_voucher_of(early, "paid")


def test_the_metadata_of_an_order_is_canonical() -> None:
    """Keys are sorted, because the account service stores them sorted and accepts sorted metadata with less work."""
    meta = voucher_of(msgspec.structs.replace(ORDER, voucher_format=2)).metadata
    assert meta is not None
    assert list(meta) == sorted(meta) == ["kind", "order_no"]


# --- Statements -----------------------------------------------------------------------------------------------------


async def lines_of(worker: FundWorker, account: str) -> list[StatementEntry]:
    return [line async for line in worker.accounts.entries(account)]


async def test_the_statement_of_a_merchant_names_the_order_of_each_line(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    channel = f"c-{worker.salt}"
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "undone", 70)
    await worker.pay(merchant, "later", 300, settle="later")
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
    await worker.done("settlement", merchant=merchant, order_no="s")
    reason = {"reason": "wrong"}
    undo = {"order_no": "u", "of_kind": "payment", "of_order_no": "undone", **reason}
    await worker.done("reversal", merchant=merchant, **undo)
    for number, ending in (("w", "paid"), ("b", "bounced")):
        order = await worker.done("withdrawal", merchant=merchant, order_no=number, amount=50, channel=channel)
        ended = await worker.batcher.end(order.id, ending, f"ref-{number}", None, "m")
        assert isinstance(ended, Taken)
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=20)
    adjusted = {"order_no": "a", "amount": 5, "direction": "credit", **reason}
    await worker.done("adjustment", merchant=merchant, **adjusted)
    found = await lines_of(worker, f"merchant:{merchant}:available")
    assert [(line.type, line.kind, line.order_no) for line in found] == [
        ("pay", "payment", "p"),
        ("pay", "payment", "undone"),
        ("refund", "refund", "r"),
        ("settle", "settlement", "s"),
        ("reversal", "reversal", "u"),
        ("withdraw", "withdrawal", "w"),
        ("withdraw", "withdrawal", "b"),
        ("withdraw_bounced", "withdrawal", "b"),
        ("chargeback", "chargeback", "c"),
        ("adjustment", "adjustment", "a"),
    ]
    assert all(line.reference is not None and line.reference.startswith("fund:") for line in found)
    transit = await lines_of(worker, f"transit:payout:{channel}")
    assert ("withdraw_paid", "withdrawal", "w") in [(line.type, line.kind, line.order_no) for line in transit]


# --- Orders in the first format -------------------------------------------------------------------------------------


async def begin_as_before(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """Create orders in the first format whose vouchers are posted without an answer.

    All of them are `posting`, or have an end that is not recorded as posted.
    """
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    with monkeypatch.context() as before:
        before.setattr(drafts, "VOUCHER_FORMAT", 1)
        before.setattr(drafts, "REFUND_FORMAT", 1)
        await worker.pay(merchant, "p", 1_000)
        await worker.pay(merchant, "undone", 70)
        drawn = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=channel)
        worker.gateway.lost = True  # type: ignore[attr-defined]
        refund = {"merchant": merchant, "payment_order_no": "p"}
        undo = {"merchant": merchant, "of_kind": "payment", "of_order_no": "undone", "reason": "wrong"}
        orders = [
            await worker.pay(merchant, "q", 5),
            await worker.done("refund", order_no="r", amount=100, **refund),
            await worker.done("withdrawal", merchant=merchant, order_no="v", amount=40, channel=channel),
            await worker.done("reversal", order_no="u", **undo),
        ]
        assert {order.state for order in orders} == {State.POSTING}
        assert isinstance(await worker.batcher.end(drawn.id, "paid", "ref", None, "m"), Taken)
        worker.gateway.lost = False  # type: ignore[attr-defined]
    return [*orders, drawn]


async def recover(worker: FundWorker) -> None:
    while await worker.value("SELECT count(*) FROM fund.orders WHERE due_at IS NOT NULL"):
        await worker.recoverer.recover_some()


async def states(worker: FundWorker, orders: Sequence[Order]) -> list[str]:
    found = [await read_order(worker.pool, order.id) for order in orders]
    return [str(order.state) for order in found if order is not None]


async def test_vouchers_of_before_are_the_same_when_they_are_sent_again(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = await begin_as_before(worker, monkeypatch)
    had = await worker.of(f"m-{worker.salt}")
    assert VOUCHER_FORMAT == 2
    await recover(worker)
    assert await states(worker, orders) == ["posted", "posted", "posted", "posted", "paid"]
    assert await worker.of(f"m-{worker.salt}") == had == (1_000 - 50 + 5 - 100 - 40, 0, 0)


async def written_with(worker: FundWorker, format_: int) -> None:
    """Set this format for every order, as if the fund service had no other format."""
    ids = [row["id"] for row in await worker.pool.fetch("SELECT id FROM fund.orders")]
    for order in (await read_orders(worker.pool, ids)).values():
        order.voucher_format = format_
        worker.macs.seal(order)
        change = "UPDATE fund.orders SET voucher_format = $2, mac = $3 WHERE id = $1"
        await worker.pool.execute(change, order.id, format_, order.mac)


async def test_without_the_format_of_the_order_they_would_be_other_vouchers(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test before: the digests differ, so each order is stuck, and no money moves twice."""
    orders = await begin_as_before(worker, monkeypatch)
    had = await worker.of(f"m-{worker.salt}")
    await written_with(worker, 2)
    await recover(worker)
    assert await states(worker, orders) == ["stuck"] * 5
    assert await worker.of(f"m-{worker.salt}") == had
    await written_with(worker, 1)
    for order in orders:
        assert isinstance(await worker.batcher.retry(order.id, "person"), Taken)
    await recover(worker)
    assert await states(worker, orders) == ["posted", "posted", "posted", "posted", "paid"]


async def test_an_order_that_another_version_inserts_has_the_first_format(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    order = await worker.pay(merchant, "p", 5)
    assert await worker.value("SELECT voucher_format FROM fund.orders WHERE id = $1", order.id) == 2
    columns = await worker.value(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns WHERE table_schema = 'fund'"
        " AND table_name = 'orders' AND column_name NOT IN ('id', 'seq', 'voucher_format')"
    )
    insert = f"INSERT INTO fund.orders (id, {columns}) SELECT gen_random_uuid(), {columns} FROM fund.orders"
    async with any_state(worker.pool) as connection:
        old = connection.transaction()
        await old.start()
        inserted = await connection.fetchval(f"{insert} RETURNING voucher_format")
        await old.rollback()
    assert inserted == 1


def test_a_row_without_its_format_is_no_order() -> None:
    row: dict[str, Any] = {name: getattr(ORDER, name) for name in ORDER.__struct_fields__}
    assert order_from(row) == ORDER
    del row["voucher_format"]
    with pytest.raises(KeyError, match="voucher_format"):
        order_from(row)


def test_the_end_of_a_withdrawal_says_its_order_too() -> None:
    order = an_order(Kind.WITHDRAWAL, "w", 50, channel="c", ending="paid", voucher_format=2)
    assert end_voucher_of(order, "paid").metadata == {"kind": "withdrawal", "order_no": "w"}
