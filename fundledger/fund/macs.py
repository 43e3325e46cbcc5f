"""MACs over the terms of orders: all that says what an order moves, for which merchant, and who asked for it and
approved it.

The MAC is computed when an order is inserted, and again by the steps that change its terms: an approval, another
attempt, an end. Its state is not under it, because each state leads to the same voucher, or to none. Before money
moves on the strength of a row, its MAC is verified: ADR 28.
"""

import hmac
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from fundledger.fund.order import Order
from fundledger.fund.reported import Reported
from fundledger.fund.statements import SQL
from fundledger.security.keys import KeyFault, Keys
from fundledger.security.mac import MacKey

_DOMAIN: Final = b"order__1"
_PURPOSE: Final = b"fundledger fund rows 1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_encode = msgspec.msgpack.Encoder().encode
_log = logging.getLogger(__name__)


class Tampered(Exception):
    """The terms of an order do not match its MAC: nothing moves on the strength of the row, and it is not shown."""

    def __init__(self, order: UUID) -> None:
        super().__init__(f"order {order} does not match its MAC")
        self.order = order


class OrderMacs:
    """`trusted_until`: up to this seq an order may have no MAC, because it is older than MACs; None: all have one."""

    def __init__(self, keys: Keys, trusted_until: int | None = None) -> None:
        self._keys = keys
        self._derived: dict[int, MacKey] = {}
        self._trusted_until = trusted_until
        self._reported = Reported()

    def seal(self, order: Order) -> None:
        """Compute the MAC of an order as it is now, with the current key."""
        version = self._keys.current.version
        order.mac_key = version
        order.mac = self._key(version).tag(_message(order))

    def verifies(self, order: Order) -> bool:
        """Whether the terms of an order that was read match its MAC. An order without one does if it is older than
        MACs, or has a former id and did not change since. Raises KeyFault for a key that is not there.
        """
        if order.mac is None or order.mac_key is None:
            return self._trusted_until is not None and 0 < order.seq <= self._trusted_until
        return hmac.compare_digest(order.mac, self._key(order.mac_key).tag(_message(order)))

    def check(self, order: Order) -> None:
        """Raises Tampered, which is logged once for each order; KeyFault."""
        if not self.verifies(order):
            if self._reported.is_new(order.id):
                _log.critical(
                    "%s %s does not match its MAC: nothing is done with it until an operator has looked at it",
                    *(order.kind, order.id),
                    extra={"event": "integrity_finding", "order": str(order.id)},
                )
            raise Tampered(order.id)

    def _key(self, version: int) -> MacKey:
        key = self._derived.get(version)
        if key is None:
            key = self._derived[version] = MacKey(version, self._keys.by_version(version).tag(_PURPOSE))
        return key


async def open_macs(connection: Any, keys: Keys) -> OrderMacs:
    """The MACs of a fund database, to which `connection` leads (one of asyncpg, or a pool). Raises KeyFault when the
    record of orders that are older than MACs does not verify, and what asyncpg raises.
    """
    return OrderMacs(keys, trusted(await connection.fetchrow(SQL["read_trusted"]), keys))


def trusted(row: Any, keys: Keys) -> int | None:
    """The seq up to which orders may have no MAC, from the row that says so. Raises KeyFault if it does not verify."""
    if row is None:
        return None
    if not hmac.compare_digest(row["mac"], trusted_mac(row["until_seq"], keys)):
        raise KeyFault("the record of orders that are older than MACs (fund.trusted_orders) does not match its MAC")
    return int(row["until_seq"])


def trusted_mac(until_seq: int, keys: Keys) -> bytes:
    """Of the row that says up to which seq orders may have no MAC."""
    key = MacKey(1, keys.by_version(1).tag(_PURPOSE))
    return key.tag(b"trusted1" + until_seq.to_bytes(8, "little"))


def _message(order: Order) -> bytes:
    # MessagePack of an array in this order: each element says its own type and length.
    return _encode(
        (
            *(_DOMAIN, order.mac_key, order.id.bytes, order.kind, order.merchant, order.order_no, order.amount),
            *(order.fee, order.currency, order.channel, order.channel_ref, order.settle, _bytes(order.of_order)),
            *(_bytes(order.of_voucher), order.from_pending, order.to_receivable, order.fee_waived, order.fee_version),
            *(order.direction, order.reason, order.ticket, order.module, order.approved_by, order.digest),
            *(order.voucher_id.bytes, order.attempt, order.ending, _bytes(order.end_voucher_id)),
            (order.created_at - _EPOCH) // _US,
        )
    )


def _bytes(id_: UUID | None) -> bytes | None:
    return None if id_ is None else id_.bytes
