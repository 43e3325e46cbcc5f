"""Completeness of ledger statements: make the statement of an account with several slots complete up to a time.

An entry gets its time before its transaction commits. An entry on one slot can therefore become visible after an entry
with a later time on another slot. Without further steps, a line could later appear before lines that a caller has
already read.

`settle` takes three steps:

1. Raise the statement mark of the ledger to the time of the last visible entry. From now on the database rejects each
   batch with this time or an earlier one (FL003), and the batch is decided again with a later time.
2. Wait for the transactions that may have written entries before the mark was raised. Each such transaction has a
   transaction id, and has locked the table of entries before it read the mark. The transaction keeps the lock until it
   commits.
3. All entries up to the mark are now visible, permanently.

The statement of an account with one slot needs no such steps, because its entries are in the order of their times.
"""

import asyncio
from typing import Final

from fundledger.faults import Unavailable
from fundledger.ledger.store.directory import Reader
from fundledger.ledger.store.queries import SQL

AHEAD_MAX_US: Final = 24 * 3600 * 1_000_000
"""Maximum time (us) by which the statement mark may be ahead of the clock.

All accounts share one mark, and each later batch gets a time after the mark. A wrong clock may have given an entry a
time beyond this maximum. Such an entry is shown only after its time has come within the maximum.
"""
PAUSE_S: Final = 0.002
PAUSE_S_MAX: Final = 0.032
WITHIN_S: Final = 2.0
"""Maximum wait (s), longer than any batch takes. A worker that is stuck for longer is replaced by its supervisor."""


async def settle(reader: Reader, upto_us: int) -> None:
    """Wait until all entries up to `upto_us`, the time of a visible entry, can be read.

    Raises Unavailable if a batch that may contain such entries is still open after WITHIN_S. Cancelling is safe.
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
