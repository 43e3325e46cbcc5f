"""Store of the fund service: the merchants of a batch of orders, locked or read: their states, limits and payees."""

from collections.abc import Collection, Sequence
from typing import Any

from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.order import PLATFORM, Kind
from fundledger.fund.model.split import merchants_of
from fundledger.fund.store.decisions import Locked, Terms
from fundledger.fund.store.mac_layouts import MERCHANT, merchant_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import Connection, read_orders
from fundledger.fund.store.payees import read_payees, with_payees
from fundledger.fund.store.queries import SQL


async def merchants_of_splits(connection: Connection, drafts: Sequence[Draft], macs: OrderMacs, kind: Kind) -> set[str]:
    """Return the merchants of all parts of the split payments to which orders of a kind refer."""
    ids = sorted({payment_of(draft) for draft in drafts if draft.order.kind is kind})
    payments = await read_orders(connection, ids) if ids else {}
    return {merchant for order in payments.values() if macs.verifies(order) for merchant in merchants_of(order)}


async def read_payees_of(connection: Connection, drafts: Sequence[Draft], macs: OrderMacs, locked: Locked) -> None:
    """Read the payees of withdrawals into `locked`, and which of the merchants that name none have one."""
    withdrawals = [draft.order for draft in drafts if draft.order.kind is Kind.WITHDRAWAL]
    named = {order.payee for order in withdrawals if order.payee is not None}
    locked.payees, tampered = await read_payees(connection, macs, named)
    locked.unverified.update({id_: str(Tampered("payee", id_)) for id_ in tampered})
    locked.with_payees = await with_payees(connection, {o.merchant for o in withdrawals if o.payee is None})


async def terms_of(
    connection: Connection, drafts: Sequence[Draft], macs: OrderMacs, merchants: Collection[str]
) -> tuple[dict[str, Terms], dict[str, str]]:
    """Lock merchants, and read those of refunds. Return what `lock_merchants` returns. The state of a merchant decides
    about a refund, too. Refunds of a merchant must not wait for each other, so they lock no merchant.
    """
    terms, unverified = await lock_merchants(connection, macs, merchants)
    refunded = {draft.order.merchant for draft in drafts if draft.order.kind is Kind.REFUND}
    refunded |= {d.order.merchant for d in drafts if d.order.kind is Kind.SPLIT_REFUND and d.order.merchant != PLATFORM}
    refunded |= await merchants_of_splits(connection, drafts, macs, Kind.SPLIT_REFUND)
    read = refunded.difference(merchants)
    if read:
        more, bad = _terms(await connection.fetch(SQL["read_merchants"], sorted(read)), macs)
        terms, unverified = {**terms, **more}, {**unverified, **bad}
    return terms, unverified


async def lock_merchants(
    connection: Connection, macs: OrderMacs, merchants: Collection[str]
) -> tuple[dict[str, Terms], dict[str, str]]:
    """Lock merchants. Return `(terms of those that match their MACs, error texts of the others)`, by id."""
    if not merchants:
        return {}, {}
    return _terms(await connection.fetch(SQL["lock_merchants"], sorted(merchants)), macs)


def _terms(rows: Sequence[Any], macs: OrderMacs) -> tuple[dict[str, Terms], dict[str, str]]:
    found, bad = {}, {}
    for row in rows:
        if macs.agrees(MERCHANT, "merchant", row["id"], merchant_fields, row):
            found[row["id"]] = Terms(row["state"], row["withdrawal_limit"])
        else:
            bad[row["id"]] = f"merchant {row['id']} does not match its MAC"
    return found, bad
