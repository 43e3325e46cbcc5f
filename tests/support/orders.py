"""Orders and their events in a fund database, inserted in the service's format without the service."""

import uuid
from datetime import UTC, datetime
from typing import Any

from fundledger.fund.model.order import Kind, Order, State
from tests.support.fund_ids import MACS

INSERT_ORDER = """
INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest, voucher_id, created_at,
                         posted_at, problem, layout, mac, mac_key)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'CNY', 'tests', '', $8, $9, $10, $11, 2, $12, $13)
"""
INSERT_EVENT = """
INSERT INTO fund.events (order_id, merchant, kind, state, at)
SELECT o.id, o.merchant, o.kind, $2, clock_timestamp() FROM fund.orders o WHERE o.id = $1 RETURNING seq
"""


async def an_order(
    connection: Any,
    merchant: str = "m1",
    state: str = "posted",
    *,
    kind: str = "payment",
    amount: int = 100,
    fee: int = 1,
    posted_at: datetime | None = None,
    told: bool = True,
) -> int:
    """Insert an order in this state, and its event; return the event's seq."""
    id_ = uuid.uuid4()
    posted_at = posted_at or datetime.now(UTC)
    posted = None if state in ("posting", "refused") else posted_at
    problem = '{"type":"x"}' if state == "refused" else None
    order = Order(
        *(id_, Kind(kind), merchant, str(id_), State(state), amount, fee, "CNY", b"", uuid.uuid4(), "tests", posted_at),
        posted_at=posted,
        problem=None if problem is None else problem.encode(),
    )
    MACS.seal(order)
    terms = id_, kind, merchant, str(id_), state, amount, fee, order.voucher_id
    await connection.execute(INSERT_ORDER, *terms, posted_at, posted, problem, order.mac, order.mac_key)
    return await connection.fetchval(INSERT_EVENT, id_, state) if told else 0


async def orders(connection: Any, count: int, merchant: str = "m1") -> list[int]:
    return [await an_order(connection, merchant) for _ in range(count)]
