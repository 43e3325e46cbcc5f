"""Up to when the statement of an account with several slots is complete.

An entry has its time before it is committed. So of two slots, what is written on one may become visible after what has
a later time on the other, and a statement that is ordered by time would get a line before those that were shown.

1. Raise the mark to the time of the last entry that is there. From now on a batch that was decided for that time or an
   earlier one is not written (FL003): it is decided again, for a later one.
2. Wait for those that may have been written before that. They hold a lock on the table of entries from before they look
   at the mark until they are committed.
3. Then all entries up to that time are there, permanently.

A statement of one slot needs none of this: its entries are in the order of their times.
"""

import asyncio
from typing import Final

from fundledger.ledger.directory import Reader
from fundledger.ledger.fault import Unavailable
from fundledger.ledger.statements import SQL

EVERY_S: Final = 0.002
WITHIN_S: Final = 2.0
"""Longer than any batch takes; what is stuck for longer is replaced by its supervisor."""


async def settle(reader: Reader, upto_us: int) -> None:
    """Return once all entries up to that time, which is that of an entry that was seen, can be read.

    Raises Unavailable when a batch that may have some is not committed in time. Cancelling is safe.
    """
    if (await reader.fetch(SQL["statement_mark"]))[0]["upto_us"] < upto_us:
        await reader.fetch(SQL["raise_statement_mark"], upto_us)
    gives_up_at = asyncio.get_running_loop().time() + WITHIN_S
    waiting = await _writers(reader)
    while waiting:
        if asyncio.get_running_loop().time() > gives_up_at:
            raise Unavailable("a batch that may belong to the statement is still being written")
        await asyncio.sleep(EVERY_S)
        waiting &= await _writers(reader)


async def _writers(reader: Reader) -> set[str]:
    return {row["transaction"] for row in await reader.fetch(SQL["entry_writers"])}
