"""Orders that a path names: found by id, of the right kind, and verified before they are answered."""

from uuid import UUID

from fundledger.app.fund.service import FundService
from fundledger.app.problems import UNVERIFIED, BadRequest, malformed, not_found
from fundledger.fund.macs import Tampered
from fundledger.fund.order import Kind, Order
from fundledger.fund.orders import read_order


def uuid_of(text: str) -> UUID:
    """Raises BadRequest (400)."""
    try:
        parsed = UUID(text)
    except ValueError:
        raise malformed("an order id is a UUID", field="id") from None
    if str(parsed) != text.lower():
        raise malformed("an order id is a UUID of 36 characters", field="id")
    return parsed


async def found(service: FundService, kind: Kind, text: str) -> Order:
    """The order of this kind that a path names. Raises BadRequest (400, 404), Unavailable."""
    id_ = uuid_of(text)
    order = await find(service, kind, id_)
    if order is None:
        raise no_order(kind, id_)
    return verified(service, order)


def verified(service: FundService, order: Order) -> Order:
    """The order, if it matches its MAC. Raises BadRequest (500)."""
    try:
        service.posting.macs.check(order)
    except Tampered as tampered:
        raise BadRequest(500, "integrity", UNVERIFIED, str(tampered)) from None
    return order


def verifies(service: FundService, order: Order) -> bool:
    """Whether an order matches its MAC. One that does not is reported."""
    try:
        service.posting.macs.check(order)
    except Tampered:
        return False
    return True


async def find(service: FundService, kind: Kind, id_: UUID) -> Order | None:
    """Return the order of this kind that has this id. Raises Unavailable."""
    order = await service.reading(lambda: read_order(service.pool, id_))
    return None if order is None or order.kind is not kind else order


def no_order(kind: Kind, id_: UUID) -> BadRequest:
    return not_found(f"{kind.replace('_', ' ')} {id_}")
