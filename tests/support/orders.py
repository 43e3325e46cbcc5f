"""Orders and their events in a fund database, inserted in the service's format without the service."""

import uuid
from datetime import UTC, datetime
from typing import Any

from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.transitions import may_become
from tests.support.fund_ids import MACS

INSERT_ORDER = """
INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest, voucher_id, created_at,
                         posted_at, layout, mac, mac_key)
VALUES ($1, $2, $3, $4, 'posting', $5, $6, 'CNY', 'tests', '', $7, $8, $9, 2, $10, $11)
"""
UPDATE_ORDER = "UPDATE fund.orders SET state = $2, problem = $3 WHERE id = $1"
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
    """Insert an order, change it to this state, and insert the event of this state. Return the seq of the event.

    The triggers are not disabled, because disabling them would wait for each transaction that writes orders.
    """
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
    terms = id_, kind, merchant, str(id_), amount, fee, order.voucher_id
    await connection.execute(INSERT_ORDER, *terms, posted_at, posted, order.mac, order.mac_key)
    if state != "posting":
        if not may_become(kind, "posting", state):
            await connection.execute(UPDATE_ORDER, id_, "posted", None)
        await connection.execute(UPDATE_ORDER, id_, state, problem)
    return await connection.fetchval(INSERT_EVENT, id_, state) if told else 0


async def orders(connection: Any, count: int, merchant: str = "m1") -> list[int]:
    return [await an_order(connection, merchant) for _ in range(count)]
