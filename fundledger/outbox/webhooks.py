"""Webhook endpoints of merchants, to which outbox events are sent, and the dead deliveries of these endpoints."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
import msgspec

from fundledger.database.statements import load
from fundledger.outbox.signature import new_secret, secret_text
from fundledger.security.row_macs import RowMacs, microseconds

SQL: Final = load("fundledger.outbox")
PER_MERCHANT_MAX: Final = 20
LIST_MAX: Final = 1000
WEBHOOK: Final = b"webhook1"
ATTEMPTS_MAX: Final = 5


class Macs(Protocol):
    """The interface to the MACs of a database, as far as webhooks need it."""

    rows: RowMacs

    def agrees(
        self, kind: bytes, name: str, key: object, fields_of: Callable[[Any], tuple[object, ...]], row: Any
    ) -> bool:
        """Return whether a row matches its MAC. A row that does not match is reported."""
        ...


class Unverified(Exception):
    """The row of an endpoint does not match its MAC. No event is sent to this endpoint, and the row is not returned."""

    def __init__(self, id_: UUID) -> None:
        super().__init__(f"webhook {id_} does not match its MAC")


def webhook_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of an endpoint: all columns of its row."""
    fields = row["merchant"], row["url"], row["events"], row["secret"], row["module"], microseconds(row["created_at"])
    return row["id"].bytes, *fields, microseconds(row["disabled_at"]), row["disabled_why"]


def verifies(macs: Macs, row: Any) -> bool:
    """Return whether an endpoint matches its MAC. An endpoint that does not match is reported."""
    return macs.agrees(WEBHOOK, "webhook", row["id"], webhook_fields, row)


class Webhook(msgspec.Struct, frozen=True):
    """A webhook endpoint. `events`: the event types that it receives, None for all events of its merchant. The secret
    is returned only when the endpoint is created.
    """

    id: UUID
    merchant: str
    url: str
    events: list[str] | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None


class Dead(msgspec.Struct, frozen=True):
    """A dead delivery: its last attempt failed."""

    seq: int
    message: str
    body: str
    attempts: int
    ended_at: datetime
    last_status: int | None
    last_error: str | None


class Webhooks:
    """The webhook endpoints of a database. Methods raise what asyncpg raises."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", macs: Macs) -> None:
        self._pool = pool
        self._macs = macs

    async def add(self, merchant: str, url: str, events: list[str] | None, module: str) -> tuple[Webhook, str] | None:
        """Create an endpoint and return it with its secret. Return None if the merchant already has PER_MERCHANT_MAX
        enabled endpoints. Not idempotent: each call creates an endpoint. The caller has checked `url` with
        `destination.bad_url`.
        """
        secret = new_secret()
        row = {
            "id": _new_id(),
            "merchant": merchant,
            "url": url,
            "events": events,
            "secret": secret,
            "module": module,
            "created_at": datetime.now(UTC),
        }
        ended = {"disabled_at": None, "disabled_why": None}
        sealed = self._macs.rows.tag(WEBHOOK, webhook_fields({**row, **ended}))
        added = await self._pool.fetchval(SQL["add_webhook"], *row.values(), *sealed, PER_MERCHANT_MAX)
        return None if added is None else (_webhook({**row, **ended}), secret_text(secret))

    async def of(self, merchant: str | None) -> tuple[list[Webhook], list[UUID]]:
        """Return `(endpoints, ids of endpoints that do not match their MACs)` of a merchant, or of all merchants if
        `merchant` is None. At most LIST_MAX endpoints are read, oldest first.
        """
        rows = await self._pool.fetch(SQL["list_webhooks"], merchant, LIST_MAX)
        verified = {row["id"] for row in rows if verifies(self._macs, row)}
        shown = [_webhook(row) for row in rows if row["id"] in verified]
        return shown, [row["id"] for row in rows if row["id"] not in verified]

    async def get(self, id_: UUID) -> Webhook | None:
        """Return the endpoint with this id, or None if it does not exist. Raises Unverified."""
        row = await self._read(id_)
        return None if row is None else _webhook(row)

    async def disable(self, id_: UUID, why: str) -> Webhook | None:
        """Disable an endpoint and return it, or None if it does not exist. A disabled endpoint receives no deliveries.
        May be repeated. Raises Unverified.
        """
        for _ in range(ATTEMPTS_MAX):
            row = await self._read(id_)
            if row is None:
                return None
            if row["disabled_at"] is None:
                await disable(self._pool, self._macs, row, why)
            else:
                return _webhook(row)
        return await self.get(id_)

    async def _read(self, id_: UUID) -> asyncpg.Record | None:
        row = await self._pool.fetchrow(SQL["read_webhook"], id_)
        if row is not None and not verifies(self._macs, row):
            raise Unverified(id_)
        return row

    async def dead(self, id_: UUID, after: int, limit: int) -> "list[Dead]":
        """Return at most `limit` dead deliveries of an endpoint after the seq `after`, in order."""
        return [Dead(**row) for row in await self._pool.fetch(SQL["dead_deliveries"], id_, after, limit)]

    async def redeliver(self, id_: UUID, seqs: "list[int] | None") -> int:
        """Restart dead deliveries of an endpoint, and return their number. `seqs`: None for all of them. May be
        repeated.
        """
        done = await self._pool.execute(SQL["redeliver"], id_, seqs)
        return int(done.rpartition(" ")[2])


async def disable(connection: Any, macs: Macs, row: Any, why: str) -> None:
    """Disable an endpoint, unless it has changed since the caller read and verified it. Raises what asyncpg raises."""
    at = datetime.now(UTC)
    sealed = macs.rows.tag(WEBHOOK, webhook_fields({**row, "disabled_at": at, "disabled_why": why}))
    await connection.fetchval(SQL["disable_webhook"], row["id"], at, why, *sealed, row["mac"])


def _webhook(row: Any) -> Webhook:
    return Webhook(*(row[name] for name in Webhook.__struct_fields__))


def _new_id() -> UUID:
    """Return a new UUID of version 7 (RFC 9562). Such UUIDs sort by time of creation."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | (7 << 76)
    number = number & ~(0x3 << 62) | (2 << 62)
    return UUID(int=number)
