"""Ids of orders and vouchers: HMACs under a key of the fund service, so that no caller can compute the id of an order
that is still to come and use it for a voucher of its own.

Until version 0.4 an id was an unkeyed hash of the same names (`order.order_id`). An order that has such a former id
keeps it: a request that names it again finds it. ADR 24 says why.
"""

from typing import Any, Final
from uuid import UUID

from asyncpg.pgproto import pgproto

from fundledger.fund.order import order_id
from fundledger.fund.statements import SQL
from fundledger.security.keys import Keys
from fundledger.security.mac import MacKey

FIRST_VERSION: Final = 1
"""The key of ids does not rotate: another one would give the same order another id."""
_PURPOSE: Final = b"fundledger fund ids 1"


class Ids:
    """Pure. `key`: as of `ids_key`. `former`: the database has orders of before ids were keyed."""

    __slots__ = ("_tag", "former")

    def __init__(self, key: MacKey, *, former: bool = False) -> None:
        self._tag = key.tag
        self.former = former

    def order(self, kind: str, merchant: str, order_no: str) -> UUID:
        """The id of a new order: a request that has these names again means the same order."""
        return self._named("order", kind, merchant, order_no)

    def former_order(self, kind: str, merchant: str, order_no: str) -> UUID | None:
        """The id under which such an order may stand since before ids were keyed. None: there are none of that time."""
        return order_id(kind, merchant, order_no) if self.former else None

    def all_of(self, kind: str, merchant: str, order_no: str) -> list[UUID]:
        """The ids under which an order of these names may stand: at most one of them does."""
        former = self.former_order(kind, merchant, order_no)
        return [self.order(kind, merchant, order_no), *([] if former is None else [former])]

    def voucher(self, order: UUID, step: str = "post", attempt: int = 0) -> UUID:
        """`step` is `post` or, of a withdrawal, `end`: paid and bounced have one id, so only one of them can happen."""
        return self._named("voucher", order.hex, step, str(attempt))

    def _named(self, *parts: str) -> UUID:
        # RFC 9562, version 8: 122 bits of an HMAC-SHA256, each part with its length before it.
        octets = bytearray(self._tag("".join([f"{len(part)}:{part}" for part in parts]).encode())[:16])
        octets[6] = octets[6] & 0x0F | 0x80
        octets[8] = octets[8] & 0x3F | 0x80
        return pgproto.UUID(bytes(octets))


def ids_key(keys: Keys) -> MacKey:
    """The key of ids, made of the first key of the fund service. Raises KeyFault."""
    return MacKey(FIRST_VERSION, keys.by_version(FIRST_VERSION).tag(_PURPOSE))


async def open_ids(connection: Any, keys: Keys) -> Ids:
    """The ids of a fund database, to which `connection` leads (one of asyncpg, or a pool). Raises KeyFault, and what
    asyncpg raises.
    """
    return Ids(ids_key(keys), former=await connection.fetchval(SQL["former_ids"]) is not None)
