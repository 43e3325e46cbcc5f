"""What an order takes of something that others take of, too: of a payment (refunds, chargebacks), of what is pending
(settlements), of a day's limit (withdrawals), of an order that is reversed once. It is taken under locks, in the
transaction that writes the order ahead, and given back in the one that says that it was refused.

Locks first; only then is looked whether the orders are there already: so of two that come at once with one number, the
second one sees the first. Fetch, then decide (plain functions over what was read), then write.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from fundledger.fund.drafts import Draft, payment_of
from fundledger.fund.fees import part_of
from fundledger.fund.merchants import Merchant
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.orders import Connection, order_from
from fundledger.fund.refusal import Code, Refusal
from fundledger.fund.requests import Settlement
from fundledger.fund.statements import SQL

RESERVING = frozenset({Kind.REFUND, Kind.CHARGEBACK, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.REVERSAL})
PAYMENTS_MAX = 10_000
"""Of one settlement of all that is pending: more would hold locks for longer than a statement may take."""
_encode = msgspec.json.Encoder().encode


class Progress(msgspec.Struct):
    """What became of a payment: a row of fund.payments, and what is changed of it here."""

    order_id: UUID
    amount: int
    fee: int
    settled: int
    fee_settled: int
    refunded: int
    refunded_unsettled: int
    fee_waived: int
    fee_returned: int
    charged_back: int
    reversed: bool

    @property
    def unsettled(self) -> int:
        """What of it is pending."""
        return self.amount - self.settled - self.refunded_unsettled

    @property
    def returnable(self) -> int:
        """What of it has not come back yet."""
        return self.amount - self.refunded - self.charged_back


class Change(msgspec.Struct):
    """Of one payment, by a batch: what it adds to each column."""

    payment: UUID
    refunded: int = 0
    refunded_unsettled: int = 0
    fee_waived: int = 0
    fee_returned: int = 0
    charged_back: int = 0


class Locked(msgspec.Struct):
    """What the locks of a batch hold, as it was read under them."""

    payments: dict[UUID, Progress]
    originals: dict[UUID, Order]
    settling: set[UUID]


async def lock(connection: Connection, drafts: Sequence[Draft]) -> Locked:
    """Lock what these take of, in one order for everybody: merchants, originals, payments."""
    await _find_former(connection, drafts)
    merchants = {d.order.merchant for d in drafts if d.order.kind in (Kind.SETTLEMENT, Kind.WITHDRAWAL)}
    if merchants:
        await connection.fetch(SQL["lock_merchants"], sorted(merchants))
    reversed_ = sorted({payment_of(d) for d in drafts if d.order.kind is Kind.REVERSAL})
    originals = {}
    if reversed_:
        rows = await connection.fetch(SQL["lock_originals"], reversed_)
        originals = {row["id"]: order_from(row) for row in rows}
    paid = {payment_of(d) for d in drafts if d.order.kind in (Kind.REFUND, Kind.CHARGEBACK)}
    paid |= {id_ for id_, order in originals.items() if order.kind is Kind.PAYMENT}
    payments = {}
    if paid:
        await connection.execute(SQL["begin_payments"], sorted(paid))
        for row in await connection.fetch(SQL["lock_payments"], sorted(paid)):
            payments[row["order_id"]] = Progress(*row)
        missing = sorted(paid - set(originals))
        if missing:
            rows = await connection.fetch(SQL["read_orders"], missing)
            originals |= {row["id"]: order_from(row) for row in rows}
    # Whether a settlement is posted is said under the lock of its payments, too, if it was refused.
    rows = await connection.fetch(SQL["being_settled"], sorted(payments)) if payments else []
    return Locked(payments, originals, {row["payment"] for row in rows})


async def _find_former(connection: Connection, drafts: Sequence[Draft]) -> None:
    """Let drafts be about the order that stands under a former id, where it does. None comes under one any more."""
    former = sorted({d.former_of for d in drafts if d.former_of is not None})
    if former:
        there = {row["id"] for row in await connection.fetch(SQL["read_orders"], former)}
        for draft in drafts:
            if draft.former_of in there:
                draft.order.of_order = draft.former_of


async def reserve(connection: Connection, drafts: Sequence[Draft], locked: Locked) -> list[Refusal | None]:
    """Take what each needs, in order; `[i]` says why `drafts[i]` gets nothing. The orders are filled in with what was
    taken. Raises what asyncpg raises.
    """
    answers: list[Refusal | None] = []
    changes: dict[UUID, Change] = {}
    reversals: list[tuple[UUID, UUID]] = []
    withdrawn = await _withdrawn(connection, drafts)
    before = dict(withdrawn)
    for draft in drafts:
        match draft.order.kind:
            case Kind.REFUND:
                answer = _refund(draft, locked, changes)
            case Kind.CHARGEBACK:
                answer = _charge_back(draft, locked, changes)
            case Kind.REVERSAL:
                answer = _reverse(draft, locked, reversals)
            case Kind.WITHDRAWAL:
                answer = _withdraw(draft.order, draft.merchant, withdrawn)
            case Kind.SETTLEMENT:
                answer = await _settle(connection, draft)
            case _:
                answer = None
        answers.append(answer)
    if changes:
        await connection.execute(SQL["change_payments"], _encode(list(changes.values())).decode())
    if reversals:
        await connection.execute(SQL["mark_reversed"], [a for a, _ in reversals], [b for _, b in reversals])
    for day in {day for _, day in withdrawn}:
        more = {m: n - before[m, d] for (m, d), n in withdrawn.items() if d == day and n != before[m, d]}
        if more:
            await connection.execute(SQL["count_withdrawals"], list(more), list(more.values()), day)
    return answers


async def release(connection: Connection, refused: Mapping[Kind, Sequence[UUID]]) -> None:
    """Give back what orders took that were refused, in the transaction that says so."""
    back = [*refused.get(Kind.REFUND, ()), *refused.get(Kind.CHARGEBACK, ())]
    for statement, ids in (
        ("release_withdrawals", refused.get(Kind.WITHDRAWAL, ())),
        ("release_reversals", refused.get(Kind.REVERSAL, ())),
        ("release_refunds", back),
        ("release_settlements", refused.get(Kind.SETTLEMENT, ())),
    ):
        if ids:
            await connection.execute(SQL[statement], list(ids))


def _paid(draft: Draft, locked: Locked) -> Progress | Refusal:
    """The payment that an order takes of, and, in the order, what it has from it."""
    order = draft.order
    payment = locked.originals.get(payment_of(draft))
    number = getattr(draft.request, "payment_order_no", "")
    if payment is None:
        detail = f"merchant {order.merchant} has no payment {number}"
        return Refusal(Code.PAYMENT_NOT_FOUND, detail, "payment_order_no")
    progress = locked.payments.get(payment.id)
    if progress is None:
        detail = f"payment {number} is {payment.state}"
        return Refusal(Code.PAYMENT_NOT_POSTED, detail, "payment_order_no")
    if progress.reversed:
        return Refusal(Code.ORDER_ALREADY_REVERSED, f"payment {number} was reversed", "payment_order_no")
    order.channel, order.currency = payment.channel, payment.currency
    return progress


def _refund(draft: Draft, locked: Locked, changes: dict[UUID, Change]) -> Refusal | None:
    """First of what is pending, whose fee is waived; then of what was settled, whose fee goes back."""
    payment = _paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if payment.order_id in locked.settling:
        # Its fee may be returned only when it is certain to have been charged.
        detail = "a settlement of the payment is on its way: ask again"
        return Refusal(Code.PAYMENT_BEING_SETTLED, detail, "payment_order_no")
    if order.amount > payment.returnable:
        detail = f"of the payment, {payment.returnable} of {payment.amount} can be refunded"
        return Refusal(Code.REFUND_EXCEEDS_PAYMENT, detail, "amount")
    pending = min(order.amount, payment.unsettled)
    settled = order.amount - pending
    settled_left = payment.settled - (payment.refunded - payment.refunded_unsettled)
    order.from_pending, order.fee_waived, order.fee = pending, 0, 0
    if pending:
        fee_left = payment.fee - payment.fee_settled - payment.fee_waived
        order.fee_waived = part_of(fee_left, payment.unsettled, pending)
    if settled:
        order.fee = part_of(payment.fee_settled - payment.fee_returned, settled_left, settled)
    payment.refunded += order.amount
    payment.refunded_unsettled += pending
    payment.fee_waived += order.fee_waived
    payment.fee_returned += order.fee
    change = changes.setdefault(payment.order_id, Change(payment.order_id))
    change.refunded += order.amount
    change.refunded_unsettled += pending
    change.fee_waived += order.fee_waived
    change.fee_returned += order.fee
    return None


def _charge_back(draft: Draft, locked: Locked, changes: dict[UUID, Change]) -> Refusal | None:
    payment = _paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if order.amount > payment.returnable:
        detail = f"of the payment, {payment.returnable} of {payment.amount} can be charged back"
        return Refusal(Code.CHARGEBACK_EXCEEDS_PAYMENT, detail, "amount")
    payment.charged_back += order.amount
    changes.setdefault(payment.order_id, Change(payment.order_id)).charged_back += order.amount
    return None


def _reverse(draft: Draft, locked: Locked, reversals: list[tuple[UUID, UUID]]) -> Refusal | None:
    order = draft.order
    original = locked.originals.get(payment_of(draft))
    if original is None:
        return Refusal(Code.ORDER_NOT_FOUND, "there is no such order to reverse", "of_order_no")
    if original.reversed_by is not None:
        return Refusal(Code.ORDER_ALREADY_REVERSED, "the order was reversed before", "of_order_no")
    if original.state != State.POSTED:
        return Refusal(Code.ORDER_NOT_REVERSIBLE, f"the order is {original.state}", "of_order_no")
    payment = locked.payments.get(original.id)
    if payment is not None:
        if payment.refunded or payment.charged_back:
            detail = "a part of the payment came back already: refund the rest"
            return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
        if original.settle == "later" and payment.settled:
            return Refusal(Code.ORDER_NOT_REVERSIBLE, "the payment was settled: refund it", "of_order_no")
        payment.reversed = True
    original.reversed_by = order.id
    order.amount, order.fee, order.currency = original.amount, original.fee, original.currency
    order.channel, order.settle, order.direction = original.channel, original.settle, original.direction
    order.of_voucher = original.voucher_id
    reversals.append((original.id, order.id))
    return None


async def _withdrawn(connection: Connection, drafts: Sequence[Draft]) -> dict[tuple[str, Any], int]:
    """`{(merchant, day): what was withdrawn}` for the withdrawals among these."""
    asked = {(d.order.merchant, d.order.created_at.date()) for d in drafts if d.order.kind is Kind.WITHDRAWAL}
    withdrawn = dict.fromkeys(asked, 0)
    for day in {day for _, day in asked}:
        merchants = sorted(m for m, d in asked if d == day)
        for row in await connection.fetch(SQL["read_withdrawal_days"], merchants, day):
            withdrawn[row["merchant"], day] = row["amount"]
    return withdrawn


def _withdraw(order: Order, merchant: Merchant | None, withdrawn: dict[tuple[str, Any], int]) -> Refusal | None:
    key = order.merchant, order.created_at.date()
    limit = None if merchant is None else merchant.withdrawal_limit
    if limit is not None and withdrawn[key] + order.amount > limit:
        detail = f"{withdrawn[key]} of the day's {limit} were withdrawn"
        return Refusal(Code.WITHDRAWAL_LIMIT_EXCEEDED, detail, "amount")
    withdrawn[key] += order.amount
    return None


async def _settle(connection: Connection, draft: Draft) -> Refusal | None:
    order = draft.order
    assert isinstance(draft.request, Settlement)
    row = await connection.fetchrow(
        SQL["settle_payments"], order.merchant, draft.request.amount, order.id, PAYMENTS_MAX
    )
    assert row is not None
    if row["pending"] == 0:
        return Refusal(Code.NOTHING_TO_SETTLE, f"nothing of merchant {order.merchant} is pending")
    if row["amount"] is None:
        detail = f"{row['pending']} are pending"
        return Refusal(Code.SETTLEMENT_EXCEEDS_PENDING, detail, "amount")
    order.amount, order.fee = row["amount"], row["fee"]
    return None
