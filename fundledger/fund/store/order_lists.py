"""Store of the fund service: lists of orders over all merchants, in the order of creation, page by page.

Each list is read through an index. A read looks at no more than LOOKED_MAX orders, so its cost has a bound for every
filter, and does not grow with the number of orders. All functions raise what asyncpg raises.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from fundledger.fund.model.order import Kind, State
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL

FROM: Final = datetime(1970, 1, 1, tzinfo=UTC)
TO: Final = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
"""FROM and TO: the first and the last time at which an order can have been created."""
SKEW: Final = timedelta(days=1)
"""More than the greatest difference between clocks of workers. An order that was inserted after another one is never
older by so much: `created_at` is the time of the worker, shortly before the insertion.
"""
SEQ_MAX: Final = (1 << 63) - 1
LOOKED_MAX: Final = 5000
"""The maximum number of orders that are looked at for a page."""
CHANNELS_SEARCHED_MAX: Final = 100
"""The maximum number of channels in which a reference is searched by index, if the filter names no channel."""
_MANY: Final = frozenset({State.POSTED, State.POSTING})
_PASSING: Final = frozenset({State.CREATED, State.SENT, State.UNKNOWN, State.STUCK})
"""States that orders leave again. Few orders are in such a state at any time."""


class OrderFilter(msgspec.Struct, frozen=True):
    """A filter of a list of orders. A field that is None matches all orders. `from_` and `to` are inclusive bounds of
    `created_at`.
    """

    from_: datetime
    to: datetime
    merchant: str | None = None
    kind: Kind | None = None
    state: State | None = None
    channel: str | None = None
    channel_ref: str | None = None
    amount: int | None = None

    @property
    def is_timed(self) -> bool:
        return self.from_ > FROM or self.to < TO


class Place(msgspec.Struct, frozen=True, order=True):
    """The place of an order in the lists. No two orders have the same place. A list of one merchant is in the order of
    `seq`, any other list in the order of `(created_at, seq)`.
    """

    created_at: datetime
    seq: int


async def find_orders(
    pool: AnyConnection, wanted: OrderFilter, after: Place | None, limit: int
) -> tuple[list[Any], Place | None]:
    """Return the ids of at most `limit` matching orders, the oldest first, and the place after which the next page
    begins.

    The second element is None on the last page. A page may be short or empty although more pages follow. `after` is a
    place that a call with the same filter returned.
    """
    few = await _few(pool, wanted)
    if few is not None and len(few) < LOOKED_MAX:
        return _page(few, wanted, after, limit)
    filters = wanted.merchant, wanted.kind, wanted.state, wanted.channel, wanted.channel_ref, wanted.amount
    statement = _statement(wanted)
    if statement == "find_orders_of_merchant":
        looked_max = limit + 1 if filters[2:] == (None,) * 4 and not wanted.is_timed else LOOKED_MAX
        begin, end = await _seqs(pool, wanted)
        seqs = max(begin, 0 if after is None else after.seq), end
        kinds = list(Kind) if wanted.kind is None else [wanted.kind]
        named = wanted.merchant, kinds, *filters[2:]
        rows = await pool.fetch(SQL[statement], *seqs, wanted.from_, wanted.to, looked_max, *named, limit + 1)
    else:
        looked_max = LOOKED_MAX
        begun = Place(wanted.from_, 0)
        start = begun if after is None else max(begun, after)
        bounds = start.created_at, start.seq, wanted.to, looked_max
        rows = await pool.fetch(SQL[statement], *bounds, *filters, limit + 1)
    ids = [row["id"] for row in rows if row["matches"]]
    last = rows[limit - 1] if len(rows) > limit else rows[-1] if rows and rows[-1]["place"] == looked_max else None
    return ids[:limit], None if last is None else Place(last["created_at"], last["seq"])


def _statement(wanted: OrderFilter) -> str:
    """Return the statement that reads the index that leaves the fewest orders to look at."""
    if wanted.state in _PASSING or (wanted.merchant is None and wanted.state is not None and wanted.state not in _MANY):
        return "find_orders_in_state"
    if wanted.merchant is not None:
        return "find_orders_of_merchant"
    if wanted.kind not in (None, Kind.PAYMENT):
        return "find_orders_of_kind"
    return "find_orders"


async def _seqs(pool: AnyConnection, wanted: OrderFilter) -> tuple[int, int]:
    """Return `(begin, end)`: every order that was created in the period of the filter has a seq between the two."""
    if not wanted.is_timed:
        return 0, SEQ_MAX
    row = await pool.fetchrow(SQL["seqs_of_times"], _shifted(wanted.from_, -SKEW), _shifted(wanted.to, SKEW))
    assert row is not None
    return row["before"] or 0, row["after"] or SEQ_MAX


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment


async def _few(pool: AnyConnection, wanted: OrderFilter) -> Sequence[Any] | None:
    """Return at most LOOKED_MAX orders that an index finds in any order, or None if there is no such index."""
    if wanted.channel_ref is not None:
        # An order with a reference has a channel.
        channels = [wanted.channel]
        if wanted.channel is None:
            channels = [
                row["channel"] for row in await pool.fetch(SQL["channels_with_refs"], CHANNELS_SEARCHED_MAX + 1)
            ]
            if len(channels) > CHANNELS_SEARCHED_MAX:
                return None
        of = wanted.merchant, wanted.kind, wanted.state, channels, wanted.channel_ref, wanted.amount
        return await pool.fetch(SQL["find_orders_by_ref"], wanted.from_, wanted.to, LOOKED_MAX, *of)
    if wanted.state is State.POSTING:
        named = wanted.merchant, wanted.kind, wanted.channel, wanted.amount
        return await pool.fetch(SQL["find_orders_posting"], wanted.from_, wanted.to, LOOKED_MAX, *named)
    return None


def _page(rows: Sequence[Any], wanted: OrderFilter, after: Place | None, limit: int) -> tuple[list[Any], Place | None]:
    def key(place: Place) -> tuple[Any, ...]:
        return (place.seq,) if _statement(wanted) == "find_orders_of_merchant" else (place.created_at, place.seq)

    found = [(Place(row["created_at"], row["seq"]), row["id"]) for row in rows if row["matches"]]
    left = sorted((each for each in found if after is None or key(each[0]) > key(after)), key=lambda one: key(one[0]))
    return [id_ for _, id_ in left[:limit]], left[limit - 1][0] if len(left) > limit else None
