"""Up to when the statement of an account with several slots is complete.

An entry has its time before it is committed. So of two slots, what is written on one may become visible after what has
a later time on the other, and a statement that is ordered by time would get a line before those that were shown.

1. Raise the mark to the time of the last entry that is there. From now on a batch that was decided for that time or an
   earlier one is not written (FL003): it is decided again, for a later one.
2. Wait for those that may have been written before that. They have an id, and hold a lock on the table of entries, from
   before they look at the mark until they are committed.
3. Then all entries up to that time are there, permanently.

A statement of one slot needs none of this: its entries are in the order of their times.
"""

import asyncio
from typing import Final

from fundledger.ledger.directory import Reader
from fundledger.ledger.fault import Unavailable
from fundledger.ledger.statements import SQL

AHEAD_MAX_US: Final = 24 * 3600 * 1_000_000
"""How far ahead of the clock the mark may be. An entry of a later time, which a clock that was wrong left, is not shown
before: the mark is the whole ledger's, and each batch after it would get a time after that entry's.
"""
PAUSE_S: Final = 0.002
PAUSE_S_MAX: Final = 0.032
WITHIN_S: Final = 2.0
"""Longer than any batch takes; what is stuck for longer is replaced by its supervisor."""


async def settle(reader: Reader, upto_us: int) -> None:
    """Return once all entries up to that time, which is that of an entry that was seen, can be read.

    Raises Unavailable when a batch that may have some is not committed in time. Cancelling is safe.
    """
    if (await reader.fetch(SQL["statement_mark"]))[0]["upto_us"] < upto_us:
        await reader.fetch(SQL["raise_statement_mark"], upto_us)
    gives_up_at = asyncio.get_running_loop().time() + WITHIN_S
    waiting = [row["id"] for row in await reader.fetch(SQL["entry_writers"])]
    pause_s = PAUSE_S
    while waiting:
        if asyncio.get_running_loop().time() > gives_up_at:
            raise Unavailable("a batch that may belong to the statement is still being written")
        await asyncio.sleep(pause_s)
        pause_s = min(PAUSE_S_MAX, 2 * pause_s)
        waiting = [row["id"] for row in await reader.fetch(SQL["running_transactions"], waiting)]
