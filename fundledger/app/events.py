"""`GET /v1/events` of the account service: every voucher, in order, from wherever the caller stopped."""

import re
import time
from typing import Final

import asyncpg

from fundledger.app import render
from fundledger.app.problems import malformed
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.app.served import SQL
from fundledger.app.service import Service
from fundledger.ledger import clock
from fundledger.ledger.directory import Directory
from fundledger.ledger.fault import Unavailable
from fundledger.ledger.records import read_each
from fundledger.ledger.voucher import Record
from fundledger.outbox.feed import AWAY, LIMIT_MAX, WAIT_MAX_S, CallerWaitsTooMuch, Event, Feed, TooManyWait, page
from fundledger.outbox.horizon import LEDGER, Horizon

QUERY: Final = ("after", "limit", "wait_s")
SCALE: Final = 1 << 14
"""An event's seq is that of its batch times this, and its place in the batch: no batch has as many vouchers."""
LIMIT_DEFAULT: Final = 100
UNVERIFIED: Final = "voucher.unverified"
AFTER_MAX: Final = (1 << 53) - 1
_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")


def account_feed(dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", directory: Directory, name: str) -> Feed:
    """The feed of one worker. A voucher that does not verify is an event without its content: it holds up no other."""

    async def read(after: int, safe: int, limit: int) -> list[Event]:
        rows = await pool.fetch(SQL["read_outbox"], after // SCALE, safe, after, limit, SCALE)
        records = await read_each(pool, directory, {(row["module"], row["id"]) for row in rows})
        return [_event(row, records.get((row["module"], row["id"]))) for row in rows]

    return Feed(Horizon(dsn, LEDGER, f"events {name}"), read, SCALE)


def _event(row: asyncpg.Record, record: Record | None) -> Event:
    """As its poster was answered: what reversed it since is an event of its own. None: it does not verify."""
    id_ = str(row["id"])
    members: dict[str, object] = {"seq": row["event"], "id": id_}
    if record is None:
        type_ = UNVERIFIED
        members |= {"type": type_, "module": row["module"], "integrity": False}
    else:
        voucher = render.voucher_members(record, None)
        type_ = f"voucher.{voucher['status']}"
        members |= {"type": type_, "module": record.module, "voucher": voucher}
    members["at"] = render.instant(clock.us(row["at"]))
    return Event(row["event"], id_, type_, "", row["at"].timestamp(), render.encode(members))


def _asked(call: Call) -> tuple[int, int, float]:
    """`after`, `limit`, `wait_s`. Raises BadRequest."""
    after = _whole(call, "after", 0, 0, AFTER_MAX)
    limit = _whole(call, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    return after, limit, _seconds(call.query.get("wait_s", "0"))


def _seconds(text: str) -> float:
    if _SECONDS.fullmatch(text) is None or float(text) > WAIT_MAX_S:
        raise malformed(f"wait_s is a number of seconds from 0 to {WAIT_MAX_S:g}", field="wait_s")
    return float(text)


def _whole(call: Call, name: str, default: int, least: int, most: int) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or not least <= int(text) <= most:
        raise malformed(f"{name} is a whole number from {least} to {most}", field=name)
    return int(text)


async def get_events(service: Service, call: Call) -> Reply:
    """`GET /v1/events`. Who waits is not in flight: he takes up nobody's capacity, and a stop does not wait for him."""
    after, limit, wait_s = _asked(call)
    no = await service.gate.let(call.passage, ())
    if no is not None:
        return no
    service.gate.leave(call.passage, time.monotonic())
    try:
        events, after = await service.feed.read(after, limit, wait_s, call.module)
    except CallerWaitsTooMuch:
        return service.gate.too_many_wait()
    except TooManyWait as error:
        raise Unavailable(str(error)) from None
    except AWAY as error:
        raise Unavailable("the database does not answer") from error
    return Reply(200, page(events, after))
