"""Settlement of ledger statements: up to which time the statement of an account with several slots is complete.

An entry gets its time before it is committed. So an entry on one slot may become visible after a later entry on another
slot, and a statement ordered by time would get a line before lines that were already shown.

1. Raise the mark to the time of the last visible entry. From now on a batch decided for that time or an earlier one is
   rejected (FL003) and decided again for a later time.
2. Wait for transactions that may have written entries before that. Each has an id, and holds a lock on the table of
   entries from before it reads the mark until it commits.
3. Now all entries up to that time are visible, permanently.

A statement of one slot needs none of this: its entries are in the order of their times.
"""

import asyncio
from typing import Final

from fundledger.faults import Unavailable
from fundledger.ledger.store.directory import Reader
from fundledger.ledger.store.queries import SQL

AHEAD_MAX_US: Final = 24 * 3600 * 1_000_000
"""Bound of the mark ahead of the clock. The mark is the whole ledger's, and every later batch gets a time after it. So
an entry that a wrong clock dated beyond this bound is not shown until the bound reaches it.
"""
PAUSE_S: Final = 0.002
PAUSE_S_MAX: Final = 0.032
WITHIN_S: Final = 2.0
"""Longer than any batch takes; a worker that is stuck for longer is replaced by its supervisor."""


async def settle(reader: Reader, upto_us: int) -> None:
    """Return once all entries up to `upto_us`, the time of a visible entry, can be read.

    Raises Unavailable when a batch that may contain such entries is not committed in time. Cancelling is safe.
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
