"""Tax on fees: the part of a fee that is tax is credited to `tax:output`, and returned with the fee. Rules that return no
fee, and rules for one currency.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fundledger.fund.bills import read_bill
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import FeeRuleBody
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Fee
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long

TAX = {"tax_basis_points": 600}
INCLUDED = Fee(basis_points=100, **TAX)
ADDED = Fee(basis_points=100, tax_mode="added", **TAX)


class Books:
    """The platform's income and tax, from the balances at the beginning of a test."""

    def __init__(self, worker: FundWorker) -> None:
        self.worker = worker

    async def begin(self) -> "Books":
        self.income, self.tax = await self._now()
        return self

    async def _now(self) -> tuple[int, int]:
        return await self.worker.balance("income:fee"), await self.worker.balance("tax:output")

    async def grown(self) -> tuple[int, int]:
        """Return the growth of income and tax."""
        income, tax = await self._now()
        return income - self.income, tax - self.tax


async def refund(worker: FundWorker, merchant: str, of: str, amount: int, number: str, kind: str = "refund") -> Order:
    return await worker.done(kind, merchant=merchant, order_no=number, payment_order_no=of, amount=amount)


@pytest.mark.parametrize(
    ("rule", "fee", "tax"), [(INCLUDED, 100, 6), (ADDED, 106, 6), (Fee(basis_points=100), 100, 0)], ids=str
)
async def test_the_merchant_bears_the_fee_and_the_tax_is_no_income(
    worker: FundWorker, rule: Fee, fee: int, tax: int
) -> None:
    merchant, books = await worker.merchant(fee=rule), await Books(worker).begin()
    order = await worker.pay(merchant, "p", 10_000)
    assert (order.fee, order.tax) == (fee, tax)
    assert await worker.of(merchant) == (10_000 - fee, 0, 0)
    assert await books.grown() == (fee - tax, tax)


async def test_a_tax_that_is_added_never_takes_more_than_the_amount(worker: FundWorker) -> None:
    merchant, books = await worker.merchant(fee=Fee(fixed=97, tax_mode="added", **TAX)), await Books(worker).begin()
    order = await worker.pay(merchant, "p", 100)
    assert (order.fee, order.tax) == (100, 6)
    assert await worker.of(merchant) == (0, 0, 0)
    assert await books.grown() == (94, 6)


async def test_settlements_charge_the_tax_in_parts_that_come_to_it(worker: FundWorker) -> None:
    merchant, books = (
        await worker.merchant(fee=Fee(basis_points=1000, tax_basis_points=3000)),
        await Books(worker).begin(),
    )
    paid = await worker.pay(merchant, "p", 1_001, settle="later")
    assert (paid.fee, paid.tax) == (100, 23)
    assert await books.grown() == (0, 0)
    shares = [
        (order.amount, order.fee, order.tax)
        for order in [
            await worker.done("settlement", merchant=merchant, order_no=f"s{i}", amount=amount)
            for i, amount in enumerate((333, 334, 334))
        ]
    ]
    assert shares == [(333, 33, 7), (334, 33, 7), (334, 34, 9)]
    assert await books.grown() == (77, 23)
    row = await worker.pool.fetchrow(
        "SELECT tax, tax_settled, tax_returned FROM fund.payments WHERE merchant = $1", merchant
    )
    assert tuple(row) == (23, 23, 0)


async def test_the_tax_comes_back_with_the_fee_to_the_last_unit(worker: FundWorker) -> None:
    merchant, books = await worker.merchant(fee=INCLUDED), await Books(worker).begin()
    await worker.pay(merchant, "p", 10_000)
    orders = [await refund(worker, merchant, "p", amount, f"r{i}") for i, amount in enumerate((3_333, 3_334, 3_333))]
    assert [(order.fee, order.tax) for order in orders] == [(33, 1), (33, 2), (34, 3)]
    assert await worker.of(merchant) == (0, 0, 0)
    assert await books.grown() == (0, 0)


async def test_a_refund_before_the_settlement_waives_the_fee_and_its_tax(worker: FundWorker) -> None:
    merchant, books = await worker.merchant(fee=INCLUDED), await Books(worker).begin()
    await worker.pay(merchant, "p", 10_000, settle="later")
    order = await refund(worker, merchant, "p", 5_000, "r")
    assert (order.fee, order.tax, order.fee_waived) == (0, 0, 50)
    settled = await worker.done("settlement", merchant=merchant, order_no="s")
    assert (settled.amount, settled.fee, settled.tax) == (5_000, 50, 3)
    assert await worker.of(merchant) == (4_950, 0, 0)
    assert await books.grown() == (47, 3)
    rest = await refund(worker, merchant, "p", 5_000, "r2")
    assert (rest.fee, rest.tax) == (50, 3)
    assert await books.grown() == (0, 0)


async def test_a_chargeback_keeps_the_fee_and_its_tax(worker: FundWorker) -> None:
    merchant, books = await worker.merchant(fee=INCLUDED), await Books(worker).begin()
    await worker.pay(merchant, "p", 10_000)
    order = await refund(worker, merchant, "p", 10_000, "c", "chargeback")
    assert (order.fee, order.tax) == (0, 0)
    assert await worker.of(merchant) == (0, 0, 100)
    assert await books.grown() == (94, 6)


async def test_a_reversal_takes_the_tax_back(worker: FundWorker) -> None:
    merchant, books = await worker.merchant(fee=ADDED), await Books(worker).begin()
    await worker.pay(merchant, "p", 10_000)
    members = {"of_kind": "payment", "of_order_no": "p", "reason": "twice"}
    order = await worker.done("reversal", merchant=merchant, order_no="v", **members)
    assert (order.fee, order.tax) == (106, 6)
    assert await worker.of(merchant) == (0, 0, 0)
    assert await books.grown() == (0, 0)


@pytest.mark.parametrize("ending", ["paid", "bounced"])
async def test_a_withdrawal_pays_the_tax_on_its_fee_unless_it_bounces(worker: FundWorker, ending: Any) -> None:
    merchant, books = (
        await worker.merchant(withdrawal_fee=Fee(fixed=200, tax_mode="added", **TAX)),
        await Books(worker).begin(),
    )
    await worker.pay(merchant, "p", 10_000)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=9_788, channel=f"c-{worker.salt}")
    assert (order.state, order.fee, order.tax) == (State.POSTED, 212, 12)
    assert await worker.of(merchant) == (0, 0, 0)
    assert isinstance(await worker.batcher.end(order.id, ending, None, "r", "bank"), Taken)
    assert await worker.of(merchant) == ((0, 0, 0) if ending == "paid" else (10_000, 0, 0))
    assert await books.grown() == ((200, 12) if ending == "paid" else (0, 0))


async def test_a_fee_with_tax_is_set_off_and_parked_like_any_other(worker: FundWorker) -> None:
    """The debt is repaid from what the merchant is credited: the amount less the fee and its tax."""
    merchant, books = await worker.merchant(fee=INCLUDED), await Books(worker).begin()
    await worker.pay(merchant, "p", 1_000)
    await worker.debit(merchant, "d", 990)
    await refund(worker, merchant, "p", 1_000, "c", "chargeback")
    assert await worker.of(merchant) == (0, 0, 1_000)
    order = await worker.pay(merchant, "q", 500)
    assert (order.fee, order.tax, order.set_off) == (5, 0, 495)
    assert await worker.of(merchant) == (0, 0, 505)
    assert await books.grown() == (14, 1)


@settings(max_examples=unless_long(10, 200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.sampled_from(["settlement", "refund", "chargeback"]), st.integers(1, 100)), max_size=6),
    st.integers(0, 2_000),
    st.sampled_from(["included", "added"]),
    st.sampled_from(["now", "later"]),
)
async def test_tax_and_income_never_exceed_the_fee_and_end_at_it(
    worker: FundWorker, amount: int, steps: list[tuple[str, int]], points: int, mode: Any, settle: str
) -> None:
    serial = await worker.value("SELECT count(*) FROM fund.merchants")
    rule = Fee(basis_points=1_500, tax_basis_points=points, tax_mode=mode)
    merchant, books = await worker.merchant(f"h{serial}", fee=rule), await Books(worker).begin()
    paid = await worker.pay(merchant, "p", amount, settle=settle)
    charged = paid.fee, paid.tax
    if settle == "now":
        await worker.pay(merchant, "more", 400)  # so that a refund of the last part does not need the fee
    at_first = await books.grown()
    for number, (kind, part) in enumerate([*steps, ("settlement", 400), ("refund", 400)]):
        members = {"merchant": merchant, "order_no": str(number)}
        row = await worker.pool.fetchrow("SELECT * FROM fund.payments WHERE order_id = $1", paid.id)
        if kind == "settlement":
            has = amount if row is None and settle == "later" else 0 if row is None else row["amount"] - row["settled"]
            answer = await worker.ask(kind, **members, amount=part) if has >= part else None
        else:
            left = amount if row is None else row["amount"] - row["refunded"] - row["charged_back"]
            share = min(part, left)
            answer = await worker.ask(kind, **members, payment_order_no="p", amount=share) if share else None
        assert answer is None or isinstance(answer, Taken | Refusal), answer
    row = await worker.pool.fetchrow("SELECT * FROM fund.payments WHERE order_id = $1", paid.id)
    if row is None:
        return
    income, tax = await books.grown()
    kept_fee = (
        row["fee_settled"] - row["fee_returned"] + (at_first[0] + at_first[1] - charged[0] if settle == "now" else 0)
    )
    kept_tax = row["tax_settled"] - row["tax_returned"] + (at_first[1] - charged[1] if settle == "now" else 0)
    assert (income, tax) == (kept_fee - kept_tax, kept_tax)
    assert 0 <= row["tax_settled"] - row["tax_returned"] <= row["fee_settled"] - row["fee_returned"] <= charged[0]
    if row["refunded"] == amount and row["fee_settled"] == row["fee_returned"]:
        assert row["tax_settled"] == row["tax_returned"]


# --- Rules that return no fee ---


async def test_a_fee_that_is_not_returned_stays_with_its_tax(worker: FundWorker) -> None:
    merchant, books = (
        await worker.merchant(fee=Fee(basis_points=100, returned="none", **TAX)),
        await Books(worker).begin(),
    )
    paid = await worker.pay(merchant, "p", 10_000)
    assert (paid.fee, paid.tax) == (100, 6)
    await worker.pay(merchant, "more", 10_000)
    order = await refund(worker, merchant, "p", 10_000, "r")
    assert (order.fee, order.tax, order.fee_waived) == (0, 0, 0)
    assert await worker.of(merchant) == (9_800, 0, 0)
    assert await books.grown() == (188, 12)


async def test_the_policy_is_that_of_the_rule_which_charged_the_fee(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100, returned="none"))
    await worker.pay(merchant, "p", 10_000)
    soon = datetime.now(UTC) + timedelta(seconds=30)
    rule = FeeRuleBody(product="payment", basis_points=200, effective_at=soon)
    await worker.approved(ChangeKind.FEE_RULE, f"{merchant} payment *", rule)
    await worker.merchants.look()
    version = await worker.value("SELECT max(version) FROM fund.fee_rules WHERE merchant = $1", merchant)
    worker.days_back = -1
    late = await worker.pay(merchant, "late", 10_000)
    assert (late.fee, late.fee_version) == (200, version)
    assert (await refund(worker, merchant, "p", 5_000, "r")).fee == 0
    assert (await refund(worker, merchant, "late", 5_000, "r2")).fee == 100


KEEPS = Fee(basis_points=100, returned="none")


async def bounce(worker: FundWorker, order: Order) -> None:
    answer = await worker.batcher.end(order.id, "bounced", None, "returned", "bank")
    assert isinstance(answer, Taken)
    assert answer.order.state is State.BOUNCED


async def settle(worker: FundWorker, merchant: str, number: str = "s", amount: int | None = None) -> tuple[int, int]:
    order = await worker.done("settlement", merchant=merchant, order_no=number, amount=amount)
    return order.amount, order.fee


async def test_the_fee_is_due_again_with_the_money_of_a_refund_that_bounced(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=KEEPS)
    await worker.pay(merchant, "p", 10_000, settle="later")
    first = await refund(worker, merchant, "p", 5_000, "r1")
    await refund(worker, merchant, "p", 5_000, "r2")
    await bounce(worker, first)
    assert await settle(worker, merchant) == (5_000, 100)


async def test_a_chargeback_waives_the_fee_of_its_own_part_only(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=KEEPS)
    await worker.pay(merchant, "p", 10_000, settle="later")
    first = await refund(worker, merchant, "p", 9_000, "r1")
    charged = await refund(worker, merchant, "p", 1_000, "c", kind="chargeback")
    assert (charged.from_pending, charged.fee_waived) == (1_000, 10)
    await bounce(worker, first)
    assert await settle(worker, merchant) == (9_000, 90)


async def test_the_fee_of_a_settlement_that_is_reversed_is_due_again(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=KEEPS)
    await worker.pay(merchant, "p", 10_000, settle="later")
    assert await settle(worker, merchant, "s", 5_000) == (5_000, 50)
    await refund(worker, merchant, "p", 5_000, "r")
    named = {"of_kind": "settlement", "of_order_no": "s", "reason": "wrong"}
    await worker.done("reversal", merchant=merchant, order_no="v", **named)
    assert await settle(worker, merchant, "s2") == (5_000, 100)


async def test_a_settlement_is_not_reversed_if_more_tax_than_fee_would_be_left(worker: FundWorker) -> None:
    """A later refund would return a part of a fee of 0, and all of the tax."""
    merchant = await worker.merchant(fee=Fee(fixed=11, tax_basis_points=2_000))
    paid = await worker.pay(merchant, "p", 609, settle="later")
    assert (paid.fee, paid.tax) == (11, 2)
    await bounce(worker, await refund(worker, merchant, "p", 215, "r1"))
    await refund(worker, merchant, "p", 264, "c", kind="chargeback")
    for number, amount in (("s1", 340), ("s2", 3), ("s3", 2)):
        await settle(worker, merchant, number, amount)
    back = await refund(worker, merchant, "p", 310, "r2")
    assert (back.fee, back.tax) == (6, 0)
    named = {"of_kind": "settlement", "of_order_no": "s3", "reason": "wrong"}
    no = await worker.ask("reversal", merchant=merchant, order_no="v", **named)
    assert isinstance(no, Refusal)
    assert no.code == "order-not-reversible"
    back = await refund(worker, merchant, "p", 21, "r3")
    assert 0 <= back.tax <= back.fee


async def test_a_refund_of_pending_money_leaves_the_fee_due_as_far_as_the_rest_covers_it(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=1_000, returned="none"))
    await worker.pay(merchant, "p", 1_000, settle="later")
    order = await refund(worker, merchant, "p", 500, "r")
    assert (order.fee, order.fee_waived) == (0, 0)
    order = await refund(worker, merchant, "p", 450, "r2")
    assert (order.fee, order.fee_waived) == (0, 0)
    settled = await worker.done("settlement", merchant=merchant, order_no="s")
    assert (settled.amount, settled.fee) == (50, 50)
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_rule_has_the_currency_of_its_merchant(worker: FundWorker) -> None:
    """The amounts of a rule are of one currency, and a merchant has only one."""
    merchant = await worker.merchant("j", "JPY", fee=Fee(fixed=3))
    assert await worker.value("SELECT currency FROM fund.fee_rules WHERE merchant = $1", merchant) == "JPY"
    assert (await worker.pay(merchant, "p", 100, currency="JPY")).fee == 3


# --- Bills ---


async def test_a_bill_shows_the_tax_with_its_sign(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=INCLUDED)
    await worker.pay(merchant, "p", 10_000)
    await refund(worker, merchant, "p", 5_000, "r")
    begins = datetime.now(UTC) - timedelta(hours=1)
    whole = begins, begins + timedelta(hours=2), None, 50
    page = await read_bill(worker.pool, worker.gateway, worker.macs, merchant, *whole)
    shown = [(line.order and str(line.order.kind), line.fee, line.tax, line.change.available) for line in page.lines]
    assert shown == [("payment", 100, 6, 9_900), ("refund", -50, -3, -4_950)]
