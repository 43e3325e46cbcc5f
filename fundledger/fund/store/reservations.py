"""Store of the fund service: reservations of shared amounts, made for orders before the orders are posted.

Refunds and chargebacks reserve from the refundable amount of a payment, or of the parts of a split payment. Settlements
reserve from the pending amount of a merchant, withdrawals from its daily limit, and payments of an invoice from its
unpaid amount. A payout return reserves from the amount of its withdrawal, a reserve release from the hold that it
names, or from the holds without a release day. A reversal reserves the single reversal of an
order. Credits, withdrawals, recoveries and write-offs reserve their set-off from the debts of their merchants. An order
reserves under row locks, in the transaction that inserts it. An order that needs an approval reserves in the
transaction that approves it. If the order is refused, or bounces, the transaction that records this releases the
reservation.

The rows are locked first, and existing orders are read second. So of two concurrent requests with one order number, the
second finds the order of the first. There are three steps: fetch rows, decide about each draft (store/decisions.py),
write rows.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.order import CHARGING, RECEIPTS, Kind, Order, State
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.split import merchants_of
from fundledger.fund.store import (
    debts,
    decisions,
    further_decisions,
    settling,
    split_decisions,
    split_parts,
    sums,
    undone,
    withdrawal_decisions,
)
from fundledger.fund.store.decisions import Changes, Locked
from fundledger.fund.store.mac_layouts import Day, Progress
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.merchant_terms import merchants_of_splits, read_payees_of, terms_of
from fundledger.fund.store.orders import Connection, order_from, read_orders
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reserves import reserves_of

RESERVING = frozenset(
    {
        *(Kind.REFUND, Kind.CHARGEBACK, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.REVERSAL, Kind.PAYOUT_RETURN),
        *(Kind.TOP_UP, Kind.TRANSFER, Kind.RESERVE_HOLD, Kind.RESERVE_RELEASE),
        *(Kind.DISPUTE, Kind.DISPUTE_WON, Kind.DISPUTE_FEE),
        *(Kind.SUSPENSE_CLEARING, Kind.PARKED_CLEARING, Kind.PAYABLE_PAYMENT),
        *(Kind.SPLIT_PAYMENT, Kind.SPLIT_REFUND, Kind.SPLIT_CHARGEBACK),
        *debts.REPAYING,
    }
)
"""Kinds of orders that always reserve. Any other order reserves if its merchant owes, or if another order has its
reference of the channel.
"""
_USE_DEBT = frozenset(
    {
        *(Kind.PAYMENT, Kind.WITHDRAWAL, Kind.PAYOUT_RETURN, Kind.ADJUSTMENT, Kind.TOP_UP, Kind.TRANSFER),
        *(Kind.RESERVE_RELEASE, Kind.DISPUTE_WON, Kind.SUSPENSE_CLEARING, Kind.PARKED_CLEARING, Kind.SPLIT_PAYMENT),
        *debts.REPAYING,
    }
)
_LOCK_MERCHANT = _USE_DEBT | CHARGING | {Kind.SETTLEMENT, Kind.REVERSAL, Kind.RESERVE_HOLD}
_CHANGE_ORIGINAL = frozenset(
    {
        *(Kind.REVERSAL, Kind.PAYOUT_RETURN, Kind.PARKED_CLEARING, Kind.DISPUTE_WON, Kind.PAYABLE_PAYMENT),
        Kind.RESERVE_RELEASE,
    }
)
"""Kinds of orders that lock the order to which they refer."""
_RETURNS = frozenset({Kind.REFUND, Kind.CHARGEBACK, Kind.DISPUTE, Kind.SPLIT_REFUND, Kind.SPLIT_CHARGEBACK})


def reserves(order: Order) -> bool:
    """Return whether a plain insert of an order is not possible. The unique index of receipts does not have the
    references of own money at the channel that it leaves, so only a batch that reserves compares them.
    """
    if order.kind is Kind.PAYMENT:
        return False
    names_money_out = order.channel_ref is not None and RECEIPTS.get(order.kind) == "out"
    return order.kind in RESERVING or order.counter_ref is not None or names_money_out


def is_large(order: Order) -> bool:
    """Return whether an order reads and writes many payments."""
    return Kind.SETTLEMENT in (order.kind, order.of_kind)


async def lock(connection: Connection, drafts: Sequence[Draft], macs: OrderMacs) -> Locked:
    """Lock the rows from which these drafts reserve. All batches lock in the same sequence: merchants, orders to be
    reversed, returned, cleared, won, paid or released, payments, parts of split payments, debts. After this, `reserve`
    locks the rows of days. The rows of each table are locked in one sequence, too.
    """
    await _find_former(connection, drafts)
    merchants = {merchant for d in drafts if d.order.kind in _LOCK_MERCHANT for merchant in _merchants_of(d.order)}
    merchants |= await merchants_of_splits(connection, drafts, macs, Kind.SPLIT_CHARGEBACK)
    terms, unverified_merchants = await terms_of(connection, drafts, macs, merchants)
    changed = sorted({payment_of(d) for d in drafts if d.order.kind in _CHANGE_ORIGINAL and d.order.of_order})
    originals = {}
    if changed:
        rows = await connection.fetch(SQL["lock_originals"], changed)
        originals = {row["id"]: order_from(row) for row in rows}
    paid = {payment_of(d) for d in drafts if d.order.kind in _RETURNS}
    paid |= {id_ for id_, order in originals.items() if order.kind in (Kind.PAYMENT, Kind.SPLIT_PAYMENT)}
    winning = {payment_of(d) for d in drafts if d.order.kind is Kind.DISPUTE_WON} & set(originals)
    paid |= {of for id_ in winning if (of := originals[id_].of_order) is not None}
    missing = sorted(paid - set(originals))
    if missing:
        originals |= await read_orders(connection, missing)
    unverified = {}
    for order in originals.values():
        try:
            macs.check(order)
        except Tampered as found:
            unverified[order.id] = str(found)
    settled = await settling.parts_of(
        connection, macs, [originals[id_] for id_ in changed if id_ in originals], unverified
    )
    of_parts = {payment for each in settled.values() for payment, *_ in each}
    orders = [originals[id_] for id_ in paid if id_ in originals]
    payments = await _lock_payments(connection, macs, orders, unverified, of_parts)
    of_splits = [order for order in originals.values() if split_parts.are_posted(order) and order.id not in unverified]
    parts, bad_parts = await split_parts.lock(connection, macs, of_splits)
    unverified |= bad_parts
    # The locks of the chargebacks exclude other won disputes and clearings, those of the invoices other payments.
    clearing = {payment_of(d) for d in drafts if d.order.kind is Kind.PARKED_CLEARING}
    won = await _sums_of(connection, macs, "won_of_chargebacks", winning | clearing, unverified)
    invoices = {id_ for id_, order in originals.items() if order.kind is Kind.CHANNEL_INVOICE}
    invoices_paid = await _sums_of(connection, macs, "invoices_paid", invoices, unverified)
    # This has to be read under the locks of the payments, because the refusal of a settlement is also recorded under
    # these locks.
    rows = await connection.fetch(SQL["being_settled"], sorted(payments)) if payments else []
    being_settled = {row["payment"] for row in rows}
    # The locks of the merchants exclude orders that are inserted meanwhile. This has to be read before the debts,
    # because a change of a debt is recorded together with the outcome of its order.
    withdrawing = {d.order.merchant for d in drafts if d.order.kind in (Kind.WITHDRAWAL, Kind.TRANSFER)}
    rows = await connection.fetch(SQL["undecided_debts"], sorted(withdrawing), []) if withdrawing else []
    undecided = {row["merchant"] for row in rows}
    crediting = [d.order for d in drafts if d.order.kind in _USE_DEBT and d.order.settle != "later"]
    indebted = {merchant for order in crediting for merchant in _merchants_of(order)}
    owed, bad = await debts.lock(connection, macs, indebted) if indebted else ({}, {})
    locked = Locked(payments, originals, being_settled, undecided, owed, {}, unverified, unverified_merchants, bad)
    locked.settled_parts, locked.won, locked.parts, locked.paid = settled, won, parts, invoices_paid
    locked.terms = terms
    locked.in_reserve = await reserves_of(connection, [d.order for d in drafts])
    await read_payees_of(connection, drafts, macs, locked)
    receipts = {receipt for d in drafts for receipt in decisions.receipts_of(d.order, locked)}
    if receipts:
        columns = [list(column) for column in zip(*sorted(receipts), strict=True)]
        for row in await connection.fetch(SQL["booked_receipts"], *columns):
            locked.booked[row["channel"], row["channel_ref"], row["direction"]] = row
    return locked


def _merchants_of(order: Order) -> list[str]:
    """Return the merchants whose balances an order moves, or only the platform if it moves none."""
    if order.kind is Kind.TRANSFER and order.counterparty is not None:
        return [order.merchant, order.counterparty]
    return merchants_of(order)


async def _lock_payments(
    connection: Connection,
    macs: OrderMacs,
    orders: Sequence[Order],
    unverified: dict[UUID, str],
    further: Collection[UUID] = (),
) -> dict[UUID, Progress]:
    """Lock and return the progress of payments. A payment whose row is missing, or has a wrong MAC, is added to
    `unverified`. `further`: ids of payments that are locked, too, and left out if they do not verify.
    """
    posted = [
        order
        for order in orders
        if order.kind is Kind.PAYMENT and order.state is State.POSTED and order.id not in unverified
    ]
    if not posted and not further:
        return {}
    now = [order for order in posted if order.settle == "now"]
    if now:
        await sums.begin_payments(connection, macs, now)
    payments, bad = await sums.lock_payments(connection, macs, {*(order.id for order in posted), *further})
    for order in posted:
        if order.id in bad:
            unverified[order.id] = f"the fund.payments row of payment {order.id} does not match its MAC"
        elif order.id not in payments:
            macs.report("payment", order.id, "missing row", {})
            unverified[order.id] = f"the fund.payments row of payment {order.id} is missing"
    return payments


async def _sums_of(
    connection: Connection, macs: OrderMacs, statement: str, ids: Collection[UUID], unverified: dict[UUID, str]
) -> dict[UUID, int]:
    """Return the sums of the orders that refer to orders, by the id of the order to which they refer. If an order does
    not match its MAC, the one to which it refers is added to `unverified`.
    """
    found: dict[UUID, int] = {}
    for row in await connection.fetch(SQL[statement], sorted(ids)) if ids else []:
        order = order_from(row)
        assert order.of_order is not None
        if not macs.verifies(order):
            unverified[order.of_order] = f"{order.kind} {order.id} does not match its MAC"
        found[order.of_order] = found.get(order.of_order, 0) + order.amount
    return found


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
    changes = Changes({}, [], {}, {})
    owed = dict(locked.debts)
    days = {draft.order.id: sums.day_of(macs, draft.order) for draft in drafts if draft.order.kind is Kind.WITHDRAWAL}
    asked = set(days.values())
    withdrawn, _ = await sums.lock_days(connection, macs, asked) if asked else ({}, set())
    before = dict(withdrawn)
    for draft in drafts:
        order = draft.order
        answer: Refusal | OrderFault | None = _unverified(order, locked) or decisions.in_state(order, locked)
        answer = answer or decisions.is_booked(order, locked)
        if answer is None:
            answer = await decide(connection, draft, macs, locked, changes, withdrawn, days)
        answers.append(answer)
        if answer is None:
            for receipt in decisions.receipts_of(order, locked):
                locked.booked[receipt] = msgspec.structs.asdict(order)
            if order.state is State.POSTING:
                locked.undecided.update(debts.undecided(order))
    await sums.write_payments(connection, macs, changes.payments.values())
    await split_parts.write(connection, macs, [part for parts in changes.parts.values() for part in parts.values()])
    await _write_reversed(connection, macs, changes.reversed)
    await undone.write_returned(connection, macs, list(changes.returned.values()))
    await debts.write(connection, macs, {key: n for key, n in locked.debts.items() if n != owed.get(key)})
    await sums.write_days(connection, macs, {key: n for key, n in withdrawn.items() if n != before[key]})
    return answers


async def decide(
    connection: Connection,
    draft: Draft,
    macs: OrderMacs,
    locked: Locked,
    changes: Changes,
    withdrawn: dict[Day, int],
    days: Mapping[UUID, Day],
) -> Refusal | OrderFault | None:
    """Reserve for a draft. Return its refusal or fault, or None. All kinds but settlements reserve in memory: `reserve`
    writes the rows. `days`: the days of withdrawals, by order.
    """
    order = draft.order
    match order.kind:
        case Kind.REFUND:
            return decisions.refund(draft, locked, changes)
        case Kind.CHARGEBACK | Kind.DISPUTE:
            return decisions.charge_back(draft, locked, changes)
        case Kind.DISPUTE_FEE:
            order.to_receivable = order.amount - min(draft.debitable, order.amount)
        case Kind.DISPUTE_WON:
            return further_decisions.win(draft, locked, changes)
        case Kind.TRANSFER:
            return further_decisions.transfer(order, locked)
        case Kind.PARKED_CLEARING:
            return further_decisions.clear(draft, locked, changes)
        case Kind.SPLIT_PAYMENT:
            split_decisions.set_off(order, locked)
        case Kind.SPLIT_REFUND | Kind.SPLIT_CHARGEBACK:
            return split_decisions.refund(draft, locked, changes)
        case Kind.PAYABLE_PAYMENT if order.of_order is not None:
            return further_decisions.pay_invoice(draft, locked)
        case Kind.REVERSAL:
            return decisions.reverse(draft, locked, changes)
        case Kind.PAYOUT_RETURN:
            return decisions.return_payout(draft, locked, changes)
        case Kind.WITHDRAWAL:
            return withdrawal_decisions.withdraw(draft, days[order.id], withdrawn, locked)
        case Kind.RECOVERY | Kind.WRITE_OFF:
            return decisions.repay(order, locked)
        case Kind.SETTLEMENT:
            return await settling.settle(connection, draft, macs, locked)
        case Kind.PAYMENT if order.settle == "now":
            decisions.set_off(order, order.amount - order.fee, locked)
        case Kind.TOP_UP:
            decisions.set_off(order, order.amount - order.fee, locked)
        case Kind.RESERVE_HOLD:
            # The state of the merchant was compared under its lock, and nothing else is reserved.
            return None
        case Kind.RESERVE_RELEASE:
            return further_decisions.release_reserve(draft, locked, changes)
        case Kind.ADJUSTMENT if order.state is State.POSTING and order.direction == "credit":
            decisions.set_off(order, order.amount, locked)
        case Kind.SUSPENSE_CLEARING if order.state is State.POSTING and order.direction == "more":
            # An overage that belongs to no merchant has no debt to repay.
            decisions.set_off(order, order.amount, locked)
    return None


def _unverified(order: Order, locked: Locked) -> OrderFault | None:
    """Return a fault if an order needs a row that does not match its MAC. Otherwise return None."""
    wrong = None if order.of_order is None else locked.unverified.get(order.of_order)
    if order.kind in (Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.TRANSFER) or (order.kind is Kind.REFUND and wrong is None):
        wrong = locked.unverified_merchants.get(order.merchant)
    if wrong is None and order.payee is not None:
        wrong = locked.unverified.get(order.payee)
    return None if wrong is None else OrderFault(wrong, tampered=True)


async def _write_reversed(connection: Connection, macs: OrderMacs, originals: Sequence[Order]) -> None:
    """Write `reversed_by` of orders, with new MACs. The caller holds the locks of the rows."""
    if originals:
        for order in originals:
            macs.seal(order)
        columns = [o.id for o in originals], [o.reversed_by for o in originals], [o.mac for o in originals]
        await connection.execute(SQL["mark_reversed"], *columns, macs.rows.version)


def releases(order: Order) -> bool:
    """Return whether the outcome of an order releases a reservation, increases a debt, or frees a receipt."""
    if order.state is State.POSTED:
        return order.kind in (Kind.REVERSAL, Kind.PARKED_CLEARING) or bool(debts.owing(order))
    return order.state is State.REFUSED and (order.kind in RESERVING or order.set_off > 0)


async def release(
    connection: Connection, macs: OrderMacs, refused: Sequence[Order], posted: Sequence[Order] = ()
) -> None:
    """Release the reservations of refused orders, record the debts that posted orders make, free the receipts and the
    returned amounts of reversed orders, and return the payments of reversed settlements to their pending state. Call
    this in the transaction that records these outcomes. A row that does not match its MAC is not changed.

    A refused order of one of these kinds has reserved from debts only: Kind.TRANSFER, Kind.SUSPENSE_CLEARING,
    Kind.SPLIT_PAYMENT. Kind.RESERVE_HOLD reserves nothing. The reservation of
    Kind.PAYABLE_PAYMENT is its own row. An order of one of these kinds is not refused: Kind.TOP_UP, Kind.DISPUTE_WON,
    Kind.DISPUTE_FEE.
    """
    of_kind = {kind: [order for order in refused if order.kind is kind] for kind in RESERVING}
    reversals = [order for order in posted if order.kind is Kind.REVERSAL]
    # Rows are locked in the sequence of `lock` and `reserve`, to prevent deadlocks: originals, payments, parts, debts,
    # days.
    returns = of_kind[Kind.PAYOUT_RETURN] + await undone.reversed_of(connection, macs, reversals, Kind.PAYOUT_RETURN)
    freeing = of_kind[Kind.REVERSAL] + of_kind[Kind.PARKED_CLEARING] + of_kind[Kind.RESERVE_RELEASE]
    of = {order.of_order for order in returns + freeing if order.of_order}
    originals = await undone.lock_originals(connection, macs, of) if of else {}
    by = {order.id for order in freeing}
    freed = [order for order in originals.values() if order.reversed_by in by]
    await undone.record_cleared(
        connection, macs, [order for order in posted if order.kind is Kind.PARKED_CLEARING], reversals
    )
    settlements = of_kind[Kind.SETTLEMENT] + await undone.reversed_of(connection, macs, reversals, Kind.SETTLEMENT)
    parts = await settling.read_parts(connection, macs, settlements)
    returned = of_kind[Kind.REFUND] + of_kind[Kind.CHARGEBACK] + of_kind[Kind.DISPUTE]
    ids = {order.id for order in freed} | {o.of_order for o in returned if o.of_order}
    payments, _ = await sums.lock_payments(connection, macs, ids | {part["payment"] for part in parts})
    for order in returns:
        if order.of_order in originals:
            originals[order.of_order].returned -= order.amount
    for order in freed:
        order.reversed_by = None
        if order.id in payments:
            payments[order.id].reversed = False
    for order in returned:
        if order.of_order in payments:
            decisions.take(payments[order.of_order], order, -1)
    for part in parts:
        if part["payment"] in payments:
            payments[part["payment"]].settled -= part["amount"]
            payments[part["payment"]].fee_settled -= part["fee"]
            payments[part["payment"]].tax_settled -= part["tax"]
    await _write_reversed(connection, macs, freed)
    withdrawals = {order.of_order for order in returns}
    await undone.write_returned(connection, macs, [order for id_, order in originals.items() if id_ in withdrawals])
    await sums.write_payments(connection, macs, payments.values())
    split = of_kind[Kind.SPLIT_REFUND] + of_kind[Kind.SPLIT_CHARGEBACK]
    split += await undone.reversed_of(connection, macs, reversals, Kind.SPLIT_CHARGEBACK)
    await undone.release_parts(connection, macs, freed, split)
    await debts.change(connection, macs, posted, refused)
    if reversals:
        await connection.execute(SQL["void_receipts"], [order.id for order in reversals])
    await sums.give_back_days(connection, macs, of_kind[Kind.WITHDRAWAL])
