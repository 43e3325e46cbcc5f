"""Store of the fund service: the row of a merchant and its history. Each event of a merchant raises the version of its
row, so an event that is omitted or deleted is found.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.model.days import cut_of
from fundledger.fund.model.fees import FeeRule
from fundledger.fund.model.merchant import Merchant, MerchantState, Rolling
from fundledger.fund.store.mac_layouts import MERCHANT, MERCHANT_EVENT, merchant_event_fields, merchant_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Connection
from fundledger.fund.store.queries import SQL

CHANGEABLE: Final = (
    *("name", "withdrawal_limit", "settlement", "settlement_days", "settlement_cut", "settlement_region"),
    *("state", "final_channel", "final_payee", "rolling_basis_points", "rolling_days", "rolling_from"),
)
"""Columns that events change."""


class MerchantEvent(msgspec.Struct, frozen=True):
    """A row of fund.merchant_events. `body`: the changed members, as JSON. `approved_by`, `change`: for an event that
    needed two identities.
    """

    merchant: str
    version: int
    what: str
    body: str
    by: str
    approved_by: str | None
    why: str | None
    change: UUID | None
    at: datetime


def merchant_of(row: Any, rules: list[FeeRule]) -> Merchant:
    cut = row["settlement_cut"]
    return Merchant(
        row["id"],
        row["name"],
        row["currency"],
        row["withdrawal_limit"],
        row["settlement"],
        row["created_at"],
        row["digest"],
        rules,
        MerchantState(row["state"]),
        row["settlement_days"],
        None if cut is None else cut_of(cut),
        row["settlement_region"],
        row["final_channel"],
        row["final_payee"],
        None
        if row["rolling_days"] is None
        else Rolling(row["rolling_basis_points"], row["rolling_days"], row["rolling_from"]),
        row["version"],
    )


async def lock_merchant(connection: Connection, macs: OrderMacs, id_: str) -> dict[str, Any] | None:
    """Lock a merchant and return its row, or None if it does not exist. Raises Tampered, and what asyncpg raises."""
    row = await connection.fetchrow(SQL["lock_merchants"], [id_])
    if row is not None and not macs.agrees(MERCHANT, "merchant", id_, merchant_fields, row):
        raise Tampered("merchant", id_)
    return None if row is None else dict(row)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """Return the changed members of a merchant, each with its value before and after the change."""
    return {name: {"from": before[name], "to": after[name]} for name in CHANGEABLE if before[name] != after[name]}


async def write_event(connection: Connection, macs: OrderMacs, event: MerchantEvent) -> None:
    """Insert an event of a merchant. The caller holds the lock of the merchant. Raises Tampered if there is an event
    with this version already: the service did not write it.
    """
    columns = msgspec.structs.astuple(event)
    sealed = macs.rows.tag(MERCHANT_EVENT, merchant_event_fields(msgspec.structs.asdict(event)))
    try:
        await connection.execute(SQL["write_merchant_event"], *columns, *sealed)
    except asyncpg.UniqueViolationError:
        raise Tampered("merchant_event", f"{event.merchant} {event.version}") from None


async def change_row(connection: Connection, macs: OrderMacs, after: Mapping[str, Any]) -> None:
    """Write the row of a merchant. The caller holds the lock of the merchant."""
    columns = [after[name] for name in CHANGEABLE]
    sealed = macs.rows.tag(MERCHANT, merchant_fields(after))
    await connection.execute(SQL["change_merchant"], after["id"], *columns, after["version"], *sealed)


async def read_events(
    connection: AnyConnection, macs: OrderMacs, merchant: str, after: int, limit: int
) -> tuple[list[MerchantEvent], list[int], int]:
    """Return `(events after a version, versions of events that do not match their MACs, version of the last row or 0)`.
    Raises what asyncpg raises.
    """
    rows = await connection.fetch(SQL["read_merchant_events"], merchant, after, limit)
    good, bad = [], []
    for row in rows:
        if macs.agrees(MERCHANT_EVENT, "merchant_event", f"{merchant} {row['version']}", merchant_event_fields, row):
            good.append(MerchantEvent(*(row[name] for name in MerchantEvent.__struct_fields__)))
        else:
            bad.append(row["version"])
    return good, bad, rows[-1]["version"] if rows else 0
