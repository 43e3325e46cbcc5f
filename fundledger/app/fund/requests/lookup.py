"""Requests of the fund service: ids in path and query, and look-up of an order with a check of its kind and MAC."""

import re
from uuid import UUID

from fundledger.app.fund.service import FundService
from fundledger.app.http.problems import UNVERIFIED, BadRequest, malformed, not_found
from fundledger.fund.model.order import Kind, Order
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.orders import read_order

_is_merchant = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match


def merchant_id(text: str, field: str) -> str:
    """Return the id of a merchant. Raises BadRequest (400) that names the field."""
    if not _is_merchant(text):
        raise malformed(f"{field} must be a merchant id: 1 to 64 characters of [A-Za-z0-9_.-]", field=field)
    return text


def uuid_of(text: str) -> UUID:
    """Parse an order id of 36 characters. Raises BadRequest (400)."""
    try:
        parsed = UUID(text)
    except ValueError:
        raise malformed("an order id must be a UUID", field="id") from None
    if str(parsed) != text.lower():
        raise malformed("an order id must be a UUID of 36 characters", field="id")
    return parsed


async def found(service: FundService, kind: Kind, text: str) -> Order:
    """Return the verified order of this kind with the id `text`. Raises BadRequest (400, 404, 500), Unavailable."""
    id_ = uuid_of(text)
    order = await find(service, kind, id_)
    if order is None:
        raise no_order(kind, id_)
    return verified(service, order)


def verified(service: FundService, order: Order) -> Order:
    """Return the order if it matches its MAC. Raises BadRequest (500) otherwise."""
    try:
        service.posting.macs.check(order)
    except Tampered as tampered:
        raise BadRequest(500, "integrity", UNVERIFIED, str(tampered)) from None
    return order


def verifies(service: FundService, order: Order) -> bool:
    """Return whether an order matches its MAC. Log a mismatch, and store it as a finding."""
    try:
        service.posting.macs.check(order)
    except Tampered:
        return False
    return True


async def find(service: FundService, kind: Kind, id_: UUID) -> Order | None:
    """Return the order of this kind with this id, or None. The MAC of the order is not checked. Raises Unavailable."""
    order = await service.reading(lambda: read_order(service.pool, id_))
    return None if order is None or order.kind is not kind else order


def no_order(kind: Kind, id_: UUID) -> BadRequest:
    return not_found(f"{kind.replace('_', ' ')} {id_}")
