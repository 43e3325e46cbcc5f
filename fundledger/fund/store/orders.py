"""Store of the fund service: insert orders as `posting`, record their outcomes, and read them.

All functions raise what asyncpg raises.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.model.order import SPLITS, Kind, Order, SplitPart, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.model.transitions import first_of
from fundledger.fund.store.queries import SQL

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | Pool"
_FIELDS: Final = Order.__struct_fields__
_KINDS: Final[dict[str, Kind]] = {str(kind): kind for kind in Kind}
_STATES: Final[dict[str, State]] = {str(state): state for state in State}
_encode = msgspec.json.Encoder().encode
_decode_parts = msgspec.json.Decoder(list[SplitPart]).decode


class Step(msgspec.Struct, frozen=True):
    """A state that an order entered, the time at which it entered the state, and details (JSON)."""

    state: State
    at: datetime
    detail: bytes | None = None


class Marked(msgspec.Struct):
    """The outcome of an order, as mark_orders.sql records it. `sums_mac`: for a payment that is settled later, the MAC
    of its fund.payments row.
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
    """Return a row as an order. A missing column raises KeyError, because a default would change the content of the
    order's voucher. An unknown kind or state raises nothing: such an order does not match its MAC, and the other orders
    of a batch are not affected.
    """
    fields = {name: row[name] for name in _FIELDS}
    fields["kind"], fields["state"] = (
        _KINDS.get(fields["kind"], fields["kind"]),
        _STATES.get(fields["state"], fields["state"]),
    )
    if fields["problem"] is not None:
        fields["problem"] = fields["problem"].encode()
    if fields["parts"] is not None:
        fields["parts"] = parts_from(fields["parts"])
    return Order(**fields)


def parts_from(text: str) -> Any:
    """Return the parts in the column `parts` (JSON). A text that has no parts is returned as it is: its order does not
    match its MAC, and the other orders of a batch are not affected.
    """
    try:
        return _decode_parts(text)
    except msgspec.MsgspecError:
        return text


def parts_text(order: Order) -> str | None:
    """Return the parts of an order as the column `parts` stores them, None if the order has none."""
    return None if order.parts is None else _encode(order.parts).decode()


async def write_ahead(
    connection: Connection, orders: Sequence[Order], former: Sequence[UUID] = (), *, decided: bool = True
) -> set[UUID]:
    """Insert orders as `posting`, and return the ids of the inserted orders. `former[i]`: the former id of `orders[i]`;
    `former` is empty if the database has no orders with former ids. `decided`: the set-offs of the orders are decided.

    An order is not inserted if it exists, or if another order has its reference of the channel. A payment is not
    inserted if its merchant owes and set-offs are not decided.
    """
    rows = await connection.fetch(SQL["insert_orders"], _encode(orders).decode(), former, decided)
    seqs: Mapping[UUID, int] = {row["id"]: row["seq"] for row in rows}
    for order in orders:
        order.seq = seqs.get(order.id, 0)
    return set(seqs)


def set_outcome(order: Order, result: PostingResult) -> None:
    """Set the outcome of a `posting` order in memory. This does not write to the database."""
    order.problem, order.due_at = result.problem, None
    if result.stuck:
        order.state, order.stuck_from = State.STUCK, State.POSTING
    elif result.problem is None:
        order.state, order.posted_at = State.POSTED, result.at or datetime.now(UTC)
    else:
        order.state = State.REFUSED


def marked(order: Order, sums_mac: bytes | None) -> Marked:
    """Return the outcome of an order in the form in which it is recorded, with the current MAC of the order."""
    problem = None if order.problem is None else msgspec.Raw(order.problem)
    outcome = order.id, order.state, problem, order.posted_at
    return Marked(*outcome, order.attempt, order.layout, order.mac, order.mac_key, sums_mac)


async def mark(connection: Connection, said: Sequence[Marked]) -> dict[UUID, str]:
    """Record the outcomes of `posting` orders. Return the new states of the orders that this call changed, by id. The
    caller has to release the reservations of these orders in the same transaction (`reservations.release`).
    """
    rows = await connection.fetch(SQL["mark_orders"], _encode(said).decode())
    return {row["id"]: row["state"] for row in rows}


async def read_orders(connection: AnyConnection, ids: Sequence[UUID]) -> dict[UUID, Order]:
    """Return the orders with these ids, by id. Ids without an order are left out."""
    rows = await connection.fetch(SQL["read_orders"], ids)
    return {row["id"]: order_from(row) for row in rows}


async def read_order(pool: AnyConnection, id_: UUID) -> Order | None:
    return (await read_orders(pool, [id_])).get(id_)


async def list_orders(
    pool: AnyConnection, kind: Kind, merchant: str, state: State | None, after_seq: int, limit: int
) -> list[Order]:
    """Return orders of a merchant whose seq is greater than `after_seq`, oldest first. 0 begins with
    the first order. Split orders are those that the merchant owns, or in which it has a part.
    """
    few = state not in (None, State.POSTED, State.POSTING)
    statement = "list_split_orders" if kind in SPLITS else "list_orders_in_state" if few else "list_orders"
    rows = await pool.fetch(SQL[statement], merchant, kind, state, after_seq, limit)
    return [order_from(row) for row in rows]


async def history(pool: AnyConnection, order: Order) -> list[Step]:
    """Return all states that an order has entered, oldest state first."""
    rows = await pool.fetch(SQL["read_history"], order.id)
    requested = _encode({"requested_by": order.module})
    begun = [Step(State.CREATED, order.created_at, requested)]
    if first_of(order) is State.POSTING:
        begun.append(Step(State.POSTING, order.created_at))
    return begun + [Step(State(s), at, None if detail is None else detail.encode()) for s, at, detail in rows]
