"""Store of the fund service: reservations of shared amounts, made for orders before the orders are posted.

Refunds and chargebacks reserve from the refundable amount of a payment, settlements from the pending amount of a
merchant, withdrawals from its daily limit. A reversal reserves the single reversal of an order. An order reserves under
row locks, in the transaction that inserts it. If the order is refused, the transaction that records the refusal
releases the reservation.

The rows are locked first, and existing orders are read second. So of two concurrent requests with one order number, the
second finds the order of the first. There are three steps: fetch rows, decide in plain functions over the fetched rows,
write rows.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.fees import part_of
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Settlement
from fundledger.fund.store import sums
from fundledger.fund.store.mac_layouts import MERCHANT, Day, Progress, merchant_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import Connection, order_from, read_orders
from fundledger.fund.store.queries import SQL

RESERVING = frozenset({Kind.REFUND, Kind.CHARGEBACK, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.REVERSAL})
PAYMENTS_MAX = 10_000
"""The maximum number of payments that a settlement without an amount settles. More payments could take longer than the
command timeout.
"""


class Locked(msgspec.Struct):
    """The rows that a batch has locked, as read under the locks. `settling`: the ids of payments in a settlement
    without a known outcome. `unverified`: error texts by order id, for orders that have a row with a wrong MAC.
    `unverified_merchants`: error texts by merchant id, for merchants whose row has a wrong MAC.
    """

    payments: dict[UUID, Progress]
    originals: dict[UUID, Order]
    settling: set[UUID]
    unverified: dict[UUID, str]
    unverified_merchants: dict[str, str]


class _Changes(msgspec.Struct):
    """The rows that a batch changes."""

    payments: dict[UUID, Progress] = {}
    reversed: list[Order] = []


async def lock(connection: Connection, drafts: Sequence[Draft], macs: OrderMacs) -> Locked:
    """Lock the rows from which these drafts reserve. All batches lock in the same sequence: merchants, orders to be
    reversed, payments. After this, `reserve` locks the rows of days.
    """
    await _find_former(connection, drafts)
    merchants = {d.order.merchant for d in drafts if d.order.kind in (Kind.SETTLEMENT, Kind.WITHDRAWAL)}
    unverified_merchants = {}
    if merchants:
        for row in await connection.fetch(SQL["lock_merchants"], sorted(merchants)):
            if not macs.agrees(MERCHANT, "merchant", row["id"], merchant_fields, row):
                unverified_merchants[row["id"]] = f"merchant {row['id']} does not match its MAC"
    reversed_ = sorted({payment_of(d) for d in drafts if d.order.kind is Kind.REVERSAL})
    originals = {}
    if reversed_:
        rows = await connection.fetch(SQL["lock_originals"], reversed_)
        originals = {row["id"]: order_from(row) for row in rows}
    paid = {payment_of(d) for d in drafts if d.order.kind in (Kind.REFUND, Kind.CHARGEBACK)}
    paid |= {id_ for id_, order in originals.items() if order.kind is Kind.PAYMENT}
    missing = sorted(paid - set(originals))
    if missing:
        originals |= await read_orders(connection, missing)
    unverified = {}
    for order in originals.values():
        try:
            macs.check(order)
        except Tampered as found:
            unverified[order.id] = str(found)
    payments = await _lock_payments(connection, macs, [originals[id_] for id_ in paid if id_ in originals], unverified)
    # This has to be read under the locks of the payments, because the refusal of a settlement is also recorded under
    # these locks.
    rows = await connection.fetch(SQL["being_settled"], sorted(payments)) if payments else []
    return Locked(payments, originals, {row["payment"] for row in rows}, unverified, unverified_merchants)


async def _lock_payments(
    connection: Connection, macs: OrderMacs, orders: Sequence[Order], unverified: dict[UUID, str]
) -> dict[UUID, Progress]:
    """Lock and return the progress of payments. A payment whose row is missing, or has a wrong MAC, is added to
    `unverified`.
    """
    posted = [
        order
        for order in orders
        if order.kind is Kind.PAYMENT and order.state is State.POSTED and order.id not in unverified
    ]
    if not posted:
        return {}
    now = [order for order in posted if order.settle == "now"]
    if now:
        await sums.begin_payments(connection, macs, now)
    payments, bad = await sums.lock_payments(connection, macs, [order.id for order in posted])
    for order in posted:
        if order.id in bad:
            unverified[order.id] = f"the fund.payments row of payment {order.id} does not match its MAC"
        elif order.id not in payments:
            macs.report("payment", order.id, "missing row", {})
            unverified[order.id] = f"the fund.payments row of payment {order.id} is missing"
    return payments


async def _find_former(connection: Connection, drafts: Sequence[Draft]) -> None:
    """Set `of_order` of a draft to the former id of the order to which it refers, if a stored order has this former id.
    New orders never get a former id.
    """
    former = sorted({d.former_of for d in drafts if d.former_of is not None})
    if former:
        there = {row["id"] for row in await connection.fetch(SQL["read_orders"], former)}
        for draft in drafts:
            if draft.former_of in there:
                draft.order.of_order = draft.former_of


async def reserve(
    connection: Connection, drafts: Sequence[Draft], locked: Locked, macs: OrderMacs
) -> list[Refusal | OrderFault | None]:
    """Reserve for each draft, one after the other, and set the reserved amounts in its order. Return one element for
    each draft: its refusal or fault, or None if the reservation succeeded. Raises what asyncpg raises.
    """
    answers: list[Refusal | OrderFault | None] = []
    changes = _Changes({}, [])
    asked = {sums.day_of(draft.order) for draft in drafts if draft.order.kind is Kind.WITHDRAWAL}
    withdrawn, _ = await sums.lock_days(connection, macs, asked) if asked else ({}, set())
    before = dict(withdrawn)
    for draft in drafts:
        answer: Refusal | OrderFault | None = _unverified(draft.order, locked)
        if answer is None:
            match draft.order.kind:
                case Kind.REFUND:
                    answer = _refund(draft, locked, changes)
                case Kind.CHARGEBACK:
                    answer = _charge_back(draft, locked, changes)
                case Kind.REVERSAL:
                    answer = _reverse(draft, locked, changes)
                case Kind.WITHDRAWAL:
                    answer = _withdraw(draft.order, draft.merchant, withdrawn)
                case Kind.SETTLEMENT:
                    answer = await _settle(connection, draft, macs)
        answers.append(answer)
    await sums.write_payments(connection, macs, changes.payments.values())
    await _write_reversed(connection, macs, changes.reversed)
    await sums.write_days(connection, macs, {key: n for key, n in withdrawn.items() if n != before[key]})
    return answers


def _unverified(order: Order, locked: Locked) -> OrderFault | None:
    """Return a fault if an order needs a row that does not match its MAC. Otherwise return None."""
    wrong = None if order.of_order is None else locked.unverified.get(order.of_order)
    if order.kind in (Kind.SETTLEMENT, Kind.WITHDRAWAL):
        wrong = locked.unverified_merchants.get(order.merchant)
    return None if wrong is None else OrderFault(wrong, tampered=True)


async def _write_reversed(connection: Connection, macs: OrderMacs, originals: Sequence[Order]) -> None:
    """Write `reversed_by` of orders, with new MACs. The caller holds the locks of the rows."""
    if originals:
        for order in originals:
            macs.seal(order)
        columns = [o.id for o in originals], [o.reversed_by for o in originals], [o.mac for o in originals]
        await connection.execute(SQL["mark_reversed"], *columns, macs.rows.version)


async def release(connection: Connection, macs: OrderMacs, refused: Sequence[Order]) -> None:
    """Release the reservations of refused orders. Call this in the transaction that records the refusals. A row that
    does not match its MAC is not changed.
    """
    of_kind = {kind: [order for order in refused if order.kind is kind] for kind in RESERVING}
    # Rows are locked in the same sequence as in `lock` and `reserve`, to prevent deadlocks: originals, payments, days.
    freed = await _lock_reversed(connection, macs, of_kind[Kind.REVERSAL])
    parts = await _read_parts(connection, macs, of_kind[Kind.SETTLEMENT])
    returned = of_kind[Kind.REFUND] + of_kind[Kind.CHARGEBACK]
    ids = {order.id for order in freed} | {o.of_order for o in returned if o.of_order}
    payments, _ = await sums.lock_payments(connection, macs, ids | {part["payment"] for part in parts})
    for order in freed:
        order.reversed_by = None
        if order.id in payments:
            payments[order.id].reversed = False
    for order in returned:
        if order.of_order in payments:
            _take(payments[order.of_order], order, -1)
    for part in parts:
        if part["payment"] in payments:
            payments[part["payment"]].settled -= part["amount"]
            payments[part["payment"]].fee_settled -= part["fee"]
    await _write_reversed(connection, macs, freed)
    await sums.write_payments(connection, macs, payments.values())
    await sums.give_back_days(connection, macs, of_kind[Kind.WITHDRAWAL])


async def _lock_reversed(connection: Connection, macs: OrderMacs, reversals: Sequence[Order]) -> list[Order]:
    """Lock the orders that reversals refer to. Return the orders that match their MAC and that one of the reversals
    reverses.
    """
    by = {order.id for order in reversals}
    if not by:
        return []
    rows = await connection.fetch(SQL["lock_originals"], sorted({o.of_order for o in reversals if o.of_order}))
    return [order for order in map(order_from, rows) if order.reversed_by in by and _verifies(macs, order)]


def _verifies(macs: OrderMacs, order: Order) -> bool:
    try:
        macs.check(order)
    except Tampered:
        return False
    return True


async def _read_parts(connection: Connection, macs: OrderMacs, settlements: Sequence[Order]) -> list[Any]:
    """Return the parts of payments that settlements settle. If the parts of a settlement do not add up to its amount
    and fee, the settlement is reported and its parts are left out.
    """
    found: list[Any] = []
    for settlement in settlements:
        parts = await connection.fetch(SQL["read_settled"], [settlement.id])
        if (sum(p["amount"] for p in parts), sum(p["fee"] for p in parts)) == (settlement.amount, settlement.fee):
            found += parts
        else:
            macs.report("settlement", settlement.id, "parts", {"parts": [str(part) for part in parts]})
    return found


def _take(progress: Progress, order: Order, sign: int = 1) -> None:
    """Reserve the amounts of a refund or chargeback on its payment. With `sign` -1, release the amounts."""
    if order.kind is Kind.CHARGEBACK:
        progress.charged_back += sign * order.amount
        return
    progress.refunded += sign * order.amount
    progress.refunded_unsettled += sign * order.from_pending
    progress.fee_waived += sign * order.fee_waived
    progress.fee_returned += sign * order.fee


def _paid(draft: Draft, locked: Locked) -> Progress | Refusal:
    """Return the progress of the payment from which an order reserves. Copy the channel and currency of the payment
    into the order.
    """
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
        return Refusal(Code.ORDER_ALREADY_REVERSED, f"payment {number} is reversed", "payment_order_no")
    order.channel, order.currency = payment.channel, payment.currency
    return progress


def _refund(draft: Draft, locked: Locked, changes: _Changes) -> Refusal | None:
    """Reserve a refund, first from the pending amount of the payment, then from the settled amount. The fee of the
    pending part is waived, and the fee of the settled part is returned.
    """
    payment = _paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if payment.order_id in locked.settling:
        # During a settlement it is unknown whether the fee was charged. Only a charged fee may be returned.
        detail = "a settlement of the payment is in progress; retry later"
        return Refusal(Code.PAYMENT_BEING_SETTLED, detail, "payment_order_no")
    if order.amount > payment.returnable:
        detail = f"{payment.returnable} of the payment's {payment.amount} can be refunded"
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
    _take(payment, order)
    changes.payments[payment.order_id] = payment
    return None


def _charge_back(draft: Draft, locked: Locked, changes: _Changes) -> Refusal | None:
    payment = _paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if order.amount > payment.returnable:
        detail = f"{payment.returnable} of the payment's {payment.amount} can be charged back"
        return Refusal(Code.CHARGEBACK_EXCEEDS_PAYMENT, detail, "amount")
    _take(payment, order)
    changes.payments[payment.order_id] = payment
    return None


def _reverse(draft: Draft, locked: Locked, changes: _Changes) -> Refusal | None:
    order = draft.order
    original = locked.originals.get(payment_of(draft))
    if original is None:
        return Refusal(Code.ORDER_NOT_FOUND, "the order to reverse does not exist", "of_order_no")
    if original.reversed_by is not None:
        return Refusal(Code.ORDER_ALREADY_REVERSED, "the order is already reversed", "of_order_no")
    if original.state != State.POSTED:
        return Refusal(Code.ORDER_NOT_REVERSIBLE, f"the order is {original.state}", "of_order_no")
    payment = locked.payments.get(original.id)
    if payment is not None:
        if payment.reversed:
            # The account service would refuse the reversal. Then the release of its reservation would clear
            # `payment.reversed`.
            return Refusal(Code.ORDER_ALREADY_REVERSED, "the payment is already reversed", "of_order_no")
        if payment.refunded or payment.charged_back:
            detail = "the payment is partly refunded or charged back; refund the rest instead"
            return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
        if original.settle == "later" and payment.settled:
            return Refusal(Code.ORDER_NOT_REVERSIBLE, "the payment is settled; refund it instead", "of_order_no")
        payment.reversed = True
        changes.payments[payment.order_id] = payment
    original.reversed_by = order.id
    order.amount, order.fee, order.currency = original.amount, original.fee, original.currency
    order.channel, order.settle, order.direction = original.channel, original.settle, original.direction
    order.of_voucher = original.voucher_id
    changes.reversed.append(original)
    return None


def _withdraw(order: Order, merchant: Merchant | None, withdrawn: dict[Day, int]) -> Refusal | OrderFault | None:
    key = sums.day_of(order)
    if key not in withdrawn:
        detail = f"the withdrawn amount of merchant {key[0]} on {key[1]} does not match its MAC"
        return OrderFault(detail, tampered=True)
    limit = None if merchant is None else merchant.withdrawal_limit
    if limit is not None and withdrawn[key] + order.amount > limit:
        detail = f"{withdrawn[key]} of the daily limit of {limit} are already withdrawn"
        return Refusal(Code.WITHDRAWAL_LIMIT_EXCEEDED, detail, "amount")
    withdrawn[key] += order.amount
    return None


async def _settle(connection: Connection, draft: Draft, macs: OrderMacs) -> Refusal | OrderFault | None:
    """Reserve a settlement from pending payments, oldest payment first. The last payment may be settled in part, and
    its fee is then charged in proportion. A payment whose row does not match its MAC is left out.
    """
    order = draft.order
    assert isinstance(draft.request, Settlement)
    left_out: set[UUID] = set()
    while True:
        asked = order.merchant, draft.request.amount, PAYMENTS_MAX, sorted(left_out)
        rows = await connection.fetch(SQL["lock_unsettled"], *asked)
        payments, bad = await sums.verified(connection, macs, rows)
        if not bad:
            break
        left_out |= bad
    pending = rows[0]["pending"] if rows else 0
    wanted = pending if draft.request.amount is None else draft.request.amount
    if pending < wanted or pending == 0:
        if left_out:
            detail = f"{len(left_out)} rows of fund.payments do not match their MACs"
            return OrderFault(f"{detail}: {', '.join(map(str, sorted(left_out)[:5]))}", tampered=True)
        if pending == 0:
            return Refusal(Code.NOTHING_TO_SETTLE, f"merchant {order.merchant} has no pending amount")
        return Refusal(Code.SETTLEMENT_EXCEEDS_PENDING, f"the pending amount is {pending}", "amount")
    parts = [_settle_part(payments[row["order_id"]], wanted - row["earlier"]) for row in rows]
    order.amount, order.fee = sum(amount for amount, _ in parts), sum(fee for _, fee in parts)
    await sums.write_payments(connection, macs, payments.values())
    columns = [row["order_id"] for row in rows], [amount for amount, _ in parts], [fee for _, fee in parts]
    await connection.execute(SQL["write_settled"], order.id, *columns)
    return None


def _settle_part(payment: Progress, wanted: int) -> tuple[int, int]:
    """Settle the pending amount of a payment, but at most `wanted`. Return `(settled amount, settled fee)`."""
    amount = min(payment.unsettled, wanted)
    fee = part_of(payment.fee - payment.fee_settled - payment.fee_waived, payment.unsettled, amount)
    payment.settled += amount
    payment.fee_settled += fee
    return amount, fee
