"""Model of the fund service: ids of orders and of their vouchers.

An id is an HMAC under a key of the fund service. So a caller cannot compute the id of a future voucher, and cannot post
a voucher of its own under that id.

The id of an order is computed from its kind, merchant and order number. Until version 0.4 the id was an unkeyed hash of
these three values (`order.order_id`). An order with such a former id keeps it, and a request with the same kind,
merchant and order number finds that order. ADR 24 has the reasons.
"""

from typing import Final
from uuid import UUID

from asyncpg.pgproto import pgproto

from fundledger.fund.model.order import order_id
from fundledger.security.keys import Keys
from fundledger.security.mac import MacKey

FIRST_VERSION: Final = 1
"""The version of the id key. The key does not rotate, because a new key would give the same order another id."""
_PURPOSE: Final = b"fundledger fund ids 1"


class Ids:
    """The ids of a fund database. Pure. `key`: the key that `ids_key` returns. `former`: the database has orders with
    unkeyed ids.
    """

    __slots__ = ("_tag", "former")

    def __init__(self, key: MacKey, *, former: bool = False) -> None:
        self._tag = key.tag
        self.former = former

    def order(self, kind: str, merchant: str, order_no: str) -> UUID:
        """Return the id of a new order. The same arguments always return the same id."""
        return self._named("order", kind, merchant, order_no)

    def former_order(self, kind: str, merchant: str, order_no: str) -> UUID | None:
        """Return the unkeyed id that an old order with these arguments may have, or None if the database has no unkeyed
        ids.
        """
        return order_id(kind, merchant, order_no) if self.former else None

    def all_of(self, kind: str, merchant: str, order_no: str) -> list[UUID]:
        """Return the ids that an order with these arguments can have. At most one of the ids is in use."""
        former = self.former_order(kind, merchant, order_no)
        return [self.order(kind, merchant, order_no), *([] if former is None else [former])]

    def voucher(self, order: UUID, step: str = "post", attempt: int = 0) -> UUID:
        """Return the id of a voucher of an order. `step`: `post`, or for the end of a withdrawal `end`. The ends `paid`
        and `bounced` have the same id, so only one of these two ends can be posted.
        """
        return self._named("voucher", order.hex, step, str(attempt))

    def payee(self, *parts: str) -> UUID:
        """Return an id of a bank account of a merchant. The account number cannot be computed from it."""
        return self._named("payee", *parts)

    def _named(self, *parts: str) -> UUID:
        # The id is a UUID of version 8 (RFC 9562). It has 122 bits of an HMAC-SHA256 over the parts, each preceded by
        # its length.
        octets = bytearray(self._tag("".join([f"{len(part)}:{part}" for part in parts]).encode())[:16])
        octets[6] = octets[6] & 0x0F | 0x80
        octets[8] = octets[8] & 0x3F | 0x80
        return pgproto.UUID(bytes(octets))


def ids_key(keys: Keys) -> MacKey:
    """Derive the key for ids from the first key of the fund service. Raises KeyFault."""
    return MacKey(FIRST_VERSION, keys.by_version(FIRST_VERSION).tag(_PURPOSE))
