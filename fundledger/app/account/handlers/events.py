"""Event feed for the HTTP handlers of the account service: returns the vouchers after a given position, in order."""

from typing import Final

import asyncpg

from fundledger.app.account.answers import render
from fundledger.app.account.answers import structs as answers
from fundledger.app.http.wire.reply import encode
from fundledger.database.statements import load
from fundledger.ledger.model import clock
from fundledger.ledger.model.voucher import Record
from fundledger.ledger.store.directory import Directory
from fundledger.ledger.store.records import read_each
from fundledger.outbox.feed import Event, Feed
from fundledger.outbox.watermark import LEDGER, VisibilityWatermark

SCALE: Final = 1 << 14
"""The seq of an event is SCALE times the seq of its batch, plus the position of its voucher in the batch. A batch has
fewer vouchers than SCALE.
"""
SQL: Final = load("fundledger.app.account")
UNVERIFIED: Final = "voucher.unverified"


def account_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", directory: Directory, name: str) -> Feed:
    """Return the event feed of one worker.

    A voucher that does not verify becomes an event without content. Later vouchers are still returned.
    """

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        rows = await pool.fetch(SQL["read_outbox"], after // SCALE, safe, after, limit, SCALE)
        records = await read_each(pool, directory, {(row["module"], row["id"]) for row in rows})
        return [_event(row, records.get((row["module"], row["id"]))) for row in rows]

    return Feed(VisibilityWatermark(dsn, LEDGER, f"events {name}"), read, SCALE)


def _event(row: asyncpg.Record, record: Record | None) -> Event:
    """Return the event of a voucher. `record` is None if the voucher does not verify.

    The event never names a later reversal of the voucher, because the reversal has an event of its own.
    """
    seq, id_, at = row["event"], row["id"], render.instant(clock.us(row["at"]))
    if record is None:
        event = answers.Event(seq=seq, id=id_, type=UNVERIFIED, module=row["module"], integrity=False, at=at)
    else:
        voucher = render.voucher_members(record, None)
        type_ = f"voucher.{voucher.status}"
        event = answers.Event(seq=seq, id=id_, type=type_, module=record.module, voucher=voucher, at=at)
    return Event(seq, str(id_), event.type, "", row["at"].timestamp(), encode(event))
