"""Orders in the fund database: written ahead, marked, read. What asyncpg raises is raised."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.link import Verdict
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.statements import SQL

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | Pool"
_FIELDS: Final = Order.__struct_fields__
_KINDS: Final[dict[str, Kind]] = {str(kind): kind for kind in Kind}
_STATES: Final[dict[str, State]] = {str(state): state for state in State}
_encode = msgspec.json.Encoder().encode


class Step(msgspec.Struct, frozen=True):
    """A state of an order, when it went into it, and what was told of it (JSON)."""

    state: State
    at: datetime
    detail: bytes | None = None


class Marked(msgspec.Struct):
    """What became of an order, as it is written. `sums_mac`: of a payment that is settled later, the MAC of its row in
    fund.payments.
    """

    id: UUID
    state: State
    problem: msgspec.Raw | None
    posted_at: datetime | None
    attempt: int
    layout: int
    mac: bytes | None
    mac_key: int | None
    sums_mac: bytes | None = None


def order_from(row: Any) -> Order:
    """Return the order of a row with all its columns. One that is missing raises KeyError: a default in its place would
    change the content of the order's voucher. An unknown kind or state is kept as it is: the order does not match its
    MAC then, and hurts no other.
    """
    fields = {name: row[name] for name in _FIELDS}
    fields["kind"], fields["state"] = (
        _KINDS.get(fields["kind"], fields["kind"]),
        _STATES.get(fields["state"], fields["state"]),
    )
    if fields["problem"] is not None:
        fields["problem"] = fields["problem"].encode()
    return Order(**fields)


async def write_ahead(connection: Connection, orders: Sequence[Order], former: Sequence[UUID] = ()) -> set[UUID]:
    """Insert orders; return the ids of those that are new. `former[i]`: the former id of `orders[i]`, where there may
    be such orders. In a transaction.
    """
    rows = await connection.fetch(SQL["insert_orders"], _encode(orders).decode(), former)
    seqs: Mapping[UUID, int] = {row["id"]: row["seq"] for row in rows}
    for order in orders:
        order.seq = seqs.get(order.id, 0)
    return set(seqs)


def say(order: Order, verdict: Verdict) -> None:
    """What became of an order that was posting, whether it can be written or not."""
    order.problem, order.due_at = verdict.problem, None
    if verdict.stuck:
        order.state, order.stuck_from = State.STUCK, State.POSTING
    elif verdict.problem is None:
        order.state, order.posted_at = State.POSTED, verdict.at or datetime.now(UTC)
    else:
        order.state = State.REFUSED


def marked(order: Order, sums_mac: bytes | None) -> Marked:
    """An order whose outcome is known, with its MAC as it is now."""
    problem = None if order.problem is None else msgspec.Raw(order.problem)
    outcome = order.id, order.state, problem, order.posted_at
    return Marked(*outcome, order.attempt, order.layout, order.mac, order.mac_key, sums_mac)


async def mark(connection: Connection, said: Sequence[Marked]) -> tuple[set[UUID], set[UUID]]:
    """Record the outcomes of orders that were `posting`. Return `(refused, stuck)`: the orders that this call marked
    refused, whose reservations have to be released in the same transaction; and those that it marked stuck.
    """
    rows = await connection.fetch(SQL["mark_orders"], _encode(said).decode())
    refused = {row["id"] for row in rows if row["state"] == State.REFUSED}
    return refused, {row["id"] for row in rows if row["state"] == State.STUCK}


async def read_orders(connection: AnyConnection, ids: Sequence[UUID]) -> dict[UUID, Order]:
    """Orders as they stand, those that there are."""
    rows = await connection.fetch(SQL["read_orders"], ids)
    return {row["id"]: order_from(row) for row in rows}


async def read_order(pool: AnyConnection, id_: UUID) -> Order | None:
    return (await read_orders(pool, [id_])).get(id_)


async def list_orders(
    pool: AnyConnection, kind: Kind, merchant: str, state: State | None, after_seq: int, limit: int
) -> list[Order]:
    """Of a merchant, oldest first, from the one after `after_seq` (0: from the first)."""
    few = state not in (None, State.POSTED, State.POSTING)
    rows = await pool.fetch(
        SQL["list_orders_in_state" if few else "list_orders"], merchant, kind, state, after_seq, limit
    )
    return [order_from(row) for row in rows]


async def history(pool: AnyConnection, order: Order) -> list[Step]:
    """All states that an order has gone into, oldest first."""
    rows = await pool.fetch(SQL["read_history"], order.id)
    begun = [Step(State.CREATED, order.created_at)]
    if order.kind is not Kind.ADJUSTMENT:
        begun.append(Step(State.POSTING, order.created_at))
    return begun + [Step(State(s), at, None if detail is None else detail.encode()) for s, at, detail in rows]
