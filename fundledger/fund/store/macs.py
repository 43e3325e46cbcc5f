"""Store of the fund service: MACs of the rows on which movements of money depend: orders, sums, merchants, fee rules,
payouts.

The MAC of an order covers its terms and its outcome: state, problem, time of posting, reversing order. The MAC is
computed when the order is inserted, and again by each step that changes the order. Before money moves because of a row,
the MAC of the row is verified. A row that does not match is reported once and is not changed (ADR 28).
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec.structs import fields

from fundledger.fund.model.days import Days
from fundledger.fund.model.order import Order, State
from fundledger.fund.store.calendars import read_eras
from fundledger.fund.store.findings import Finding, write_findings
from fundledger.fund.store.mac_layouts import terms_of_part
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reported import Reported
from fundledger.security.keys import KeyFault, Keys
from fundledger.security.mac import MacKey
from fundledger.security.row_macs import NO_KEY, RowMacs, microseconds

FieldsOf = Callable[[Any], tuple[object, ...]]
LAYOUT: Final = 2
"""The layout of new orders. Layout 1 does not cover the outcome of an order. The background job `fund_mac_sweep`
replaces it.
"""
LOOK_EVERY_S: Final = 5.0
_PURPOSE: Final = b"fundledger fund rows 1"
_ORDER_1: Final = b"order__1"
_ORDER_2: Final = b"order__2"
# MessagePack encodes times and ids. One call reads all fields, in a third of the time that layout 1 takes.
_fields_2: Final[Callable[[Order], tuple[object, ...]]] = attrgetter(
    *(
        "id",
        "kind",
        "merchant",
        "order_no",
        "amount",
        "fee",
        "currency",
        "channel",
        "channel_ref",
        "settle",
        "of_order",
    ),
    *("of_voucher", "from_pending", "to_receivable", "fee_waived", "fee_version", "direction", "reason", "ticket"),
    *("module", "approved_by", "digest", "voucher_id", "attempt", "ending", "end_voucher_id", "created_at"),
    *("state", "stuck_from", "problem", "posted_at", "reversed_by", "voucher_format"),
)
_LATER: Final = (
    *("against", "counter_ref", "counter_set_off", "counterparty", "end_set_off", "of_kind", "parked_voucher_id"),
    *("parking", "parts", "payee", "period", "returned", "set_off", "settle_on", "takes_all", "tax"),
)
"""Columns that were added after the layouts. The MAC covers such a column only if it differs from its default, so that
the MACs of earlier orders stay valid. The names are sorted.
"""
_later: Final[Callable[[Order], tuple[object, ...]]] = attrgetter(*_LATER)
_defaults: Final = tuple(field.default for name in _LATER for field in fields(Order) if field.name == name)
_FOUND_MAX: Final = 1000
_log = logging.getLogger(__name__)


class Tampered(Exception):
    """A row does not match its MAC. No money moves because of this row, and the row is not returned."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"{kind} {key} does not match its MAC")


class OrderMacs:
    """The MACs of a fund database. `trusted_until`: orders up to this seq may have no MAC, because they are older than
    MACs; None: every order needs a MAC. `unswept_until`: orders up to this seq may still have layout 1, and sums and
    payouts may still have no MAC; None: the sweep is complete, and such a row does not verify. `days`: the days of the
    database, which all users of this object share.
    """

    def __init__(self, keys: Keys, trusted_until: int | None = None, unswept_until: int | None = None) -> None:
        self._keys = keys
        self.days = Days()
        self.rows = RowMacs(keys, _PURPOSE)
        self._trusted_until = trusted_until
        self.unswept_until = unswept_until
        self._reported = Reported()
        self._found: list[Finding] = []
        self._woken = asyncio.Event()

    # --- orders ---

    def seal(self, order: Order) -> None:
        """Set the MAC of an order: compute it over the current content, with the current key, in the layout of the
        order.
        """
        kind, fields = _order_message(order)
        order.mac_key, order.mac = self.rows.tag(kind, fields)

    def verifies(self, order: Order) -> bool:
        """Return whether an order that was read matches its MAC. Layout 1 is accepted only until the sweep is complete.
        A missing MAC is accepted only if the order is older than MACs.
        """
        if order.layout != LAYOUT and not (self.unswept_until is not None and 0 < order.seq <= self.unswept_until):
            return False
        if order.mac is None or order.mac_key is None:
            return self._trusted_until is not None and order.layout == 1 and order.seq <= self._trusted_until
        try:
            kind, fields = _order_message(order)
        except (AttributeError, OverflowError, TypeError, ValueError):
            # No order was ever written with a value that cannot be encoded.
            return False
        return self.rows.matches(kind, fields, order.mac_key, order.mac)

    def check(self, order: Order) -> None:
        """Raise Tampered if an order does not match its MAC. An order that does not match is reported once."""
        if not self.verifies(order):
            self.report("order", order.id, f"{order.kind} {order.order_no} of {order.merchant}", _shown(order))
            raise Tampered("order", order.id)

    def verifies_before_stuck(self, order: Order) -> bool:
        """Return whether a stuck order matches the MAC of its content before it became stuck. An order that does not
        match its MAC keeps that MAC when it becomes stuck. After an operator has restored the columns of such an order,
        the result is True.
        """
        if order.state is not State.STUCK or order.stuck_from is None:
            return False
        before = msgspec.structs.replace(order, state=State(order.stuck_from), stuck_from=None, problem=None)
        return self.verifies(before)

    # --- other rows ---

    def agrees(self, kind: bytes, name: str, key: object, fields_of: FieldsOf, row: Any) -> bool:
        """Return whether the MAC of a row (columns `mac_key` and `mac`) matches `fields_of(row)`. A row that does not
        match, or cannot be decoded, is reported once, under `name` and `key`.
        """
        if self.rows.agree(kind, fields_of, row):
            return True
        self.report(name, key, "row", {column: _text(value) for column, value in row.items()})
        return False

    def is_old(self, row: Any) -> bool:
        """Return whether a row may have no MAC yet, because the sweep has not reached it."""
        return self.unswept_until is not None and row["mac_key"] == NO_KEY

    # --- findings ---

    def report(self, kind: str, key: object, what: str, evidence: object) -> None:
        """Log a row that does not match its MAC, and queue a finding. A row is logged and queued only once. Never
        waits.
        """
        if not self._reported.is_new((kind, str(key))):
            return
        _log.critical(
            "%s %s (%s) does not match its MAC and is blocked until an operator has examined it",
            *(kind, key, what),
            extra={"event": "integrity_finding", kind: str(key)},
        )
        if len(self._found) < _FOUND_MAX:
            self._found.append(Finding(kind, str(key), msgspec.json.encode(evidence).decode()))
            self._woken.set()

    async def write_found(self, pool: Any) -> int:
        """Insert the queued findings, and return the number of findings that were not stored before. Raises KeyFault,
        and what asyncpg raises. The next call inserts the findings that are still queued.
        """
        found = self._found
        if not found:
            return 0
        async with pool.acquire() as connection, connection.transaction():
            new = await write_findings(connection, self._keys, found)
        del self._found[: len(found)]
        return new

    async def refresh(self, connection: Any) -> None:
        """Update `unswept_until` and `days`: read whether the MAC sweep is complete, and read the calendars. Raises
        KeyFault, and what asyncpg raises.
        """
        await self.read_days(connection)
        if self.unswept_until is not None:
            self.unswept_until = unswept(await connection.fetchrow(SQL["read_unswept"]), self._keys)

    async def read_days(self, connection: Any) -> None:
        """Read the calendars into `days`. Raises KeyFault, and what asyncpg raises."""
        eras = await read_eras(connection, self.rows)
        if eras and tuple(eras) != self.days.eras:
            self.days.use(eras)

    async def watch(self, pool: Any) -> None:
        """Repeat until cancelled: insert queued findings, read the state of the MAC sweep, and read the calendars."""
        while True:
            self._woken.clear()
            try:
                await self.write_found(pool)
                await self.refresh(pool)
            except (OSError, TimeoutError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                extra = {"event": "integrity_findings_unrecorded"}
                what = "inserting findings, or reading the state of the sweep or the calendars, failed: %s"
                _log.warning(what, error, extra=extra)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._woken.wait()


async def open_macs(connection: Any, keys: Keys) -> OrderMacs:
    """Return the `OrderMacs` for the fund database. `connection`: an asyncpg connection or pool. Raises KeyFault if the
    record of rows older than MACs, or a calendar, does not verify, and what asyncpg raises.
    """
    macs = await open_macs_alone(connection, keys)
    await macs.read_days(connection)
    return macs


async def open_macs_alone(connection: Any, keys: Keys) -> OrderMacs:
    """Return the `OrderMacs` for the fund database, without its days. Raises what `open_macs` raises, but does not read
    the calendars.
    """
    until = trusted(await connection.fetchrow(SQL["read_trusted"]), keys)
    return OrderMacs(keys, until, unswept(await connection.fetchrow(SQL["read_unswept"]), keys))


def trusted(row: Any, keys: Keys) -> int | None:
    """Return the seq up to which orders may have no MAC, or None if all orders need a MAC. `row`: the row of
    fund.trusted_orders, None if it is missing. Raises KeyFault if the row does not match its MAC.
    """
    if row is None:
        return None
    if not hmac.compare_digest(row["mac"], trusted_mac(row["until_seq"], keys)):
        raise KeyFault("the record of orders older than MACs (fund.trusted_orders) does not match its MAC")
    return int(row["until_seq"])


def trusted_mac(until_seq: int, keys: Keys) -> bytes:
    """Return the MAC of the row of fund.trusted_orders."""
    return _record_key(keys).tag(b"trusted1" + until_seq.to_bytes(8, "little"))


def unswept(row: Any, keys: Keys) -> int | None:
    """Return the seq up to which orders may have layout 1, or None if the sweep is complete. `row`: the row of
    fund.unswept, None if it is missing. Raises KeyFault if the row does not match its MAC.
    """
    if row is None:
        return None
    if not hmac.compare_digest(row["mac"], unswept_mac(row["until_seq"], keys)):
        raise KeyFault("the record of rows to be swept (fund.unswept) does not match its MAC")
    return int(row["until_seq"])


def unswept_mac(until_seq: int, keys: Keys) -> bytes:
    """Return the MAC of the row of fund.unswept."""
    return _record_key(keys).tag(b"unswept1" + until_seq.to_bytes(8, "little"))


def _record_key(keys: Keys) -> MacKey:
    return RowMacs(keys, _PURPOSE).key(1)


def _order_message(order: Order) -> tuple[bytes, tuple[object, ...]]:
    kind, fields = (_ORDER_2, _fields_2(order)) if order.layout == LAYOUT else (_ORDER_1, _fields_1(order))
    later = _later(order)
    if later == _defaults:
        return kind, fields
    named = [(name, _covered(value)) for name, value, no in zip(_LATER, later, _defaults, strict=True) if value != no]
    return kind, (*fields, named)


def _covered(value: object) -> object:
    """Return the value of a column as the MAC covers it. The parts of a split order are lists of terms."""
    return [terms_of_part(part) for part in value] if isinstance(value, list) else value


def _fields_1(order: Order) -> tuple[object, ...]:
    return (
        *(order.id.bytes, order.kind, order.merchant, order.order_no, order.amount),
        *(order.fee, order.currency, order.channel, order.channel_ref, order.settle, _bytes(order.of_order)),
        *(_bytes(order.of_voucher), order.from_pending, order.to_receivable, order.fee_waived, order.fee_version),
        *(order.direction, order.reason, order.ticket, order.module, order.approved_by, order.digest),
        *(order.voucher_id.bytes, order.attempt, order.ending, _bytes(order.end_voucher_id)),
        microseconds(order.created_at),
    )


def _bytes(id_: UUID | None) -> bytes | None:
    return None if id_ is None else id_.bytes


def _shown(order: Order) -> dict[str, object]:
    return {name: _text(getattr(order, name)) for name in order.__struct_fields__}


def _text(value: object) -> object:
    """Return the value of a column as JSON, for the evidence of a finding."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return msgspec.to_builtins(value)
    return value if value is None or isinstance(value, bool | int) else str(value)
