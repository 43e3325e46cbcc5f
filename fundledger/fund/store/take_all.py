"""Store of the fund service: further attempts of withdrawals of all. The account service refused the last attempt,
because the merchant's balance fell after it was read. The next attempt has an amount by the current balance, and
another voucher.
"""

import msgspec

from fundledger.fund.model.fees import FeeRule
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.merchant import refusal_in
from fundledger.fund.model.order import TAKE_ALL_ATTEMPTS_MAX, Order
from fundledger.fund.store import debts, sums
from fundledger.fund.store.mac_layouts import FEE_RULE, fee_rule_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.merchant_terms import lock_merchants
from fundledger.fund.store.merchants import fee_rule
from fundledger.fund.store.orders import Connection
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.withdrawal_decisions import take_all

_SHORT = "insufficient-funds"


class _Problem(msgspec.Struct):
    type: str = ""


_decode = msgspec.json.Decoder(_Problem).decode


def may_try_again(order: Order, problem: bytes) -> bool:
    """Return whether a withdrawal whose voucher was refused with this problem may get another attempt."""
    return order.takes_all and order.attempt < TAKE_ALL_ATTEMPTS_MAX and _decode(problem).type.endswith(_SHORT)


async def try_again(connection: Connection, macs: OrderMacs, ids: Ids, order: Order, debitable: int) -> Order | None:
    """Reserve the next attempt of a withdrawal of all, and record it. `debitable`: the amount that can be debited to
    the merchant's available balance. Return the order, or None if no attempt is possible: nothing is left, the limit
    or the state of the merchant does not permit it, another order may change the debt, or the order has changed.

    Call this in a transaction. Rows are locked in the sequence of `reservations`. Raises Tampered, and what asyncpg
    raises.
    """
    whose = order.merchant
    terms, bad = await lock_merchants(connection, macs, [whose])
    if bad or whose not in terms or refusal_in(terms[whose].state, whose, order.kind, order.module) is not None:
        return None
    if await connection.fetch(SQL["undecided_debts"], [whose], [order.id]):
        return None
    owed, wrong = await debts.lock(connection, macs, [whose])
    key = sums.day_of(macs, order)
    withdrawn, bad_days = await sums.lock_days(connection, macs, [key])
    if wrong or bad_days:
        return None
    attempt, due = order.attempt + 1, owed[whose] + order.set_off
    new = msgspec.structs.replace(order, attempt=attempt, voucher_id=ids.voucher(order.id, attempt=attempt))
    if take_all(new, await _rule(connection, macs, order.fee_version), debitable, due) is not None:
        return None
    others, limit = withdrawn[key] - order.amount, terms[whose].withdrawal_limit
    if limit is not None and others + new.amount > limit:
        return None
    new.set_off = due
    macs.seal(new)
    changed = new.voucher_id, new.amount, new.fee, new.tax, new.set_off, new.mac, new.mac_key
    if await connection.fetchval(SQL["withdraw_again"], order.id, attempt, *changed, order.mac) is None:
        return None
    await debts.write(connection, macs, {whose: 0})
    await sums.write_days(connection, macs, {key: others + new.amount})
    return new


async def _rule(connection: Connection, macs: OrderMacs, version: int | None) -> FeeRule | None:
    if version is None:
        return None
    row = await connection.fetchrow(SQL["read_fee_rule"], version)
    if row is None or not macs.agrees(FEE_RULE, "fee_rule", version, fee_rule_fields, row):
        raise Tampered("fee rule", version)
    return fee_rule(row)
