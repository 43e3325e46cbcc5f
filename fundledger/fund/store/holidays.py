"""Store of the fund service: holidays of regions, which two identities maintain. Each row has a MAC.

A row that does not match its MAC counts as no working day: then money moves later, and never earlier.
"""

from datetime import date
from typing import Any

import msgspec

from fundledger.fund.model.change import Change
from fundledger.fund.model.change_requests import Holiday, HolidaysRequest
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.store.mac_layouts import HOLIDAY, holiday_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL

_decode = msgspec.json.Decoder(HolidaysRequest).decode


async def holidays_of(connection: AnyConnection, macs: OrderMacs) -> dict[str, dict[date, bool]]:
    """Return, by region, the recorded days, and whether each is a working day. Raises what asyncpg raises."""
    found: dict[str, dict[date, bool]] = {}
    for row in await connection.fetch(SQL["read_holidays"], None):
        found.setdefault(row["region"], {})[row["day"]] = row["working"] and _agrees(macs, row)
    return found


async def read_holidays(connection: AnyConnection, macs: OrderMacs, region: str) -> tuple[list[Holiday], list[date]]:
    """Return `(the holidays of a region by day, the days of rows that do not match their MACs)`. Raises what asyncpg
    raises.
    """
    good, bad = [], []
    for row in await connection.fetch(SQL["read_holidays"], region):
        if _agrees(macs, row):
            good.append(Holiday(row["day"], row["working"], row["name"]))
        else:
            bad.append(row["day"])
    return good, bad


async def apply_holidays(connection: Any, change: Change, macs: OrderMacs) -> Refusal | None:
    """Apply an approved change of holidays, in the transaction that records the approval."""
    request = _decode(change.body)
    await connection.execute(SQL["lock_holidays"])
    for each in sorted(request.days, key=lambda holiday: holiday.day):
        row = {
            "region": request.region,
            "day": each.day,
            "working": each.working,
            "name": each.name,
            "change": change.id,
        }
        await connection.execute(SQL["write_holiday"], *row.values(), *macs.rows.tag(HOLIDAY, holiday_fields(row)))
    return None


def _agrees(macs: OrderMacs, row: Any) -> bool:
    return macs.agrees(HOLIDAY, "holiday", f"{row['region']} {row['day']}", holiday_fields, row)
