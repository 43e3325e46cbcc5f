"""JSON members of a fund order, the same in HTTP answers and in events."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fundledger.fund.model.order import Order

_TEXTS: Final = ("channel_ref", "settle", "direction", "reason", "approved_by", "ending")
_PARTS: Final = ("from_pending", "to_receivable")


def order_members(order: Order) -> dict[str, Any]:
    """Return the JSON members of an order. Members that do not apply to its kind are left out, except `channel`."""
    members: dict[str, Any] = {
        "id": str(order.id),
        "kind": order.kind,
        "merchant": order.merchant,
        "order_no": order.order_no,
        "state": order.state,
        "amount": order.amount,
        "fee": order.fee,
        "net": order.net,
        "currency": order.currency,
        "voucher_id": str(order.voucher_id),
        "channel": order.channel,
        "created_at": time_text(order.created_at),
    }
    if order.posted_at is not None:
        members["posted_at"] = time_text(order.posted_at)
    for name in _TEXTS:
        value = getattr(order, name)
        if value is not None:
            members[name] = value
    for name in _PARTS:
        value = getattr(order, name)
        if value:
            members[name] = value
    if order.of_order is not None:
        members["of_order"] = str(order.of_order)
    if order.reversed_by is not None:
        members["reversed_by"] = str(order.reversed_by)
    if order.problem is not None:
        members["problem"] = msgspec.Raw(order.problem)
    return members


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 text, in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
