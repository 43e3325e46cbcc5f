"""JSON of the fund service's responses: orders, their history, merchants, fee rules."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from fundledger.app.http.bodies.json_values import exactly, time_text
from fundledger.app.http.wire.reply import encode
from fundledger.client.types import Account
from fundledger.fund.model import accounts
from fundledger.fund.model.fees import FeeRule, choose
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import Order
from fundledger.fund.store.order_json import order_members
from fundledger.fund.store.orders import Step


def raw(json: bytes | str) -> msgspec.Raw:
    """Return encoded JSON for inclusion in another value, unchanged."""
    return msgspec.Raw(json.encode() if isinstance(json, str) else json)


def order(order_: Order) -> bytes:
    return encode(order_members(order_))


def refused_order(order_: Order) -> bytes:
    """Return the account service's problem with the refused order as its member `order`."""
    problem: dict[str, Any] = msgspec.json.decode(order_.problem or b"{}")
    # The status of this response is 422, whatever status the account service returned.
    return encode({**problem, "status": 422, "order": order_members(order_)})


def page(orders: Iterable[Order], next_cursor: str | None, more: Mapping[str, Any]) -> bytes:
    return encode({"orders": [order_members(each) for each in orders], "next_cursor": next_cursor, **more})


def history(order_: Order, steps: Iterable[Step]) -> bytes:
    states = [
        {
            "state": step.state,
            "at": time_text(step.at),
            **({} if step.detail is None else {"detail": _json(step.detail)}),
        }
        for step in steps
    ]
    return encode({"id": str(order_.id), "history": states})


def _json(detail: Any) -> Any:
    return raw(detail) if isinstance(detail, str | bytes) else detail


def merchant_members(merchant: Merchant) -> dict[str, Any]:
    """Return a merchant without balances.

    `fees`: every rule that may apply, including the rules for all merchants. `fee`: the current fee of payments.
    """
    return {
        "id": merchant.id,
        "name": merchant.name,
        "currency": merchant.currency,
        "withdrawal_limit": merchant.withdrawal_limit,
        "settlement": merchant.settlement,
        "fee": _fee_now(merchant),
        "fees": [fee_members(rule) for rule in merchant.fee_rules],
        "accounts": [name.id for name in accounts.of_merchant(merchant.id)],
        "created_at": time_text(merchant.created_at),
    }


def _fee_now(merchant: Merchant) -> dict[str, Any] | None:
    """Return the current fee of a payment through a channel without its own rule."""
    rule = choose(merchant.fee_rules, merchant.id, "payment", None, datetime.now(UTC))
    if rule is None:
        return None
    return {"basis_points": rule.basis_points, "fixed": rule.fixed, "minimum": rule.minimum, "maximum": rule.maximum}


def fee_members(rule: FeeRule) -> dict[str, Any]:
    return {**msgspec.structs.asdict(rule), "effective_at": time_text(rule.effective_at)}


def merchant(merchant_: Merchant, balances: Mapping[str, Account]) -> bytes:
    shown = {id_: exactly(msgspec.structs.asdict(account.balance)) for id_, account in balances.items()}
    return encode({**merchant_members(merchant_), "balances": shown})


def merchants(found: Iterable[Merchant], next_cursor: str | None, more: Mapping[str, Any]) -> bytes:
    return encode({"merchants": [merchant_members(each) for each in found], "next_cursor": next_cursor, **more})
