"""Store of the fund service: the reservation of settlements. A settlement reserves from the pending amounts of
payments: fund.settled_payments has a row for each part of a payment that it settles.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.order import Kind, Order
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX, Settlement
from fundledger.fund.model.settlement import last_of
from fundledger.fund.store import debts, decisions, sums
from fundledger.fund.store.decisions import Locked
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Connection
from fundledger.fund.store.queries import SQL

PAYMENTS_MAX = 10_000
"""The maximum number of payments that a settlement without an amount settles. More payments could take longer than the
command timeout.
"""


async def read_parts(connection: Connection, macs: OrderMacs, settlements: Sequence[Order]) -> list[Any]:
    """Return the parts of payments that settlements settle. If the parts of a settlement do not add up to its amount,
    fee and tax, the settlement is reported and its parts are left out.
    """
    found: list[Any] = []
    for settlement in settlements:
        parts = await connection.fetch(SQL["read_settled"], [settlement.id])
        found_sums = tuple(sum(part[name] for part in parts) for name in ("amount", "fee", "tax"))
        if found_sums == (settlement.amount, settlement.fee, settlement.tax):
            found += parts
        else:
            macs.report("settlement", settlement.id, "parts", {"parts": [str(part) for part in parts]})
    return found


async def settle(connection: Connection, draft: Draft, macs: OrderMacs, locked: Locked) -> Refusal | OrderFault | None:
    """Reserve a settlement from pending payments, oldest payment first. The last payment may be settled in part, and
    its fee is then charged in proportion. A payment whose row does not match its MAC is left out. A settlement of all
    payments settles at most AMOUNT_MAX, because a voucher takes no greater amount: the rest stays pending.

    A settlement with a day settles payments that are due on this day or before. A payment without a due day is due
    on the first day of `settlement` after it was posted, or, if its merchant has `settlement_days`, on the next day.
    """
    order = draft.order
    assert isinstance(draft.request, Settlement)
    left_out: set[UUID] = set()
    while True:
        asked = order.merchant, draft.request.amount, PAYMENTS_MAX, sorted(left_out), AMOUNT_MAX, *_until(draft, macs)
        rows = await connection.fetch(SQL["lock_unsettled"], *asked)
        payments, bad = await sums.verified(connection, macs, rows)
        if not bad:
            break
        left_out |= bad
    pending = rows[0]["pending"] if rows else 0
    wanted = pending if draft.request.amount is None else draft.request.amount
    rows = [row for row in rows if row["earlier"] < wanted]
    if pending < wanted or pending == 0:
        if left_out:
            detail = f"{len(left_out)} rows of fund.payments do not match their MACs"
            return OrderFault(f"{detail}: {', '.join(map(str, sorted(left_out)[:5]))}", tampered=True)
        due = "" if draft.request.day is None else f" that is due on {draft.request.day}"
        if pending == 0:
            return Refusal(Code.NOTHING_TO_SETTLE, f"merchant {order.merchant} has no pending amount{due}")
        return Refusal(Code.SETTLEMENT_EXCEEDS_PENDING, f"the pending amount{due} is {pending}", "amount")
    parts = [decisions.settle_part(payments[row["order_id"]], wanted - row["earlier"]) for row in rows]
    order.amount, order.fee, order.tax = (sum(column) for column in zip(*parts, strict=True))
    # The debt is locked after the payments, as in `lock`.
    owed, _ = await debts.lock(connection, macs, [order.merchant])
    if owed.get(order.merchant):
        locked.debts = owed
        decisions.set_off(order, order.amount - order.fee, locked)
    await sums.write_payments(connection, macs, [payments[row["order_id"]] for row in rows])
    columns = [row["order_id"] for row in rows], *map(list, zip(*parts, strict=True))
    await connection.execute(SQL["write_settled"], order.id, *columns)
    return None


def _until(draft: Draft, macs: OrderMacs) -> tuple[date | None, datetime | None]:
    """Return the last due day of the payments that a settlement settles, and the instant before which payments without
    a due day have to be posted. None: all payments.
    """
    assert isinstance(draft.request, Settlement)
    day, merchant = draft.request.day, draft.merchant
    if day is None:
        return None, None
    by_calendar = merchant is not None and merchant.settlement_days is None
    return day, macs.days.beginning_of(last_of(merchant.settlement, day) if merchant and by_calendar else day)


async def parts_of(
    connection: Connection, macs: OrderMacs, originals: Sequence[Order], unverified: dict[UUID, str]
) -> dict[UUID, list[tuple[UUID, int, int, int]]]:
    """Return the settled parts of settlements that are to be reversed, as (payment, amount, fee, tax), by settlement. A
    settlement whose parts do not add up is added to `unverified`.
    """
    found: dict[UUID, list[tuple[UUID, int, int, int]]] = {}
    for order in originals:
        if order.kind is Kind.SETTLEMENT and order.id not in unverified:
            parts = await read_parts(connection, macs, [order])
            found[order.id] = [(part["payment"], part["amount"], part["fee"], part["tax"]) for part in parts]
            if not parts:
                unverified[order.id] = f"the parts of settlement {order.id} do not add up to its amount"
    return found
