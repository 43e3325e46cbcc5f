"""The endpoints that merchants are told events at, and what could not be delivered to them."""

import secrets
import time
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from fundledger.database.statements import load
from fundledger.outbox.signature import new_secret, secret_text

SQL: Final = load("fundledger.outbox")
PER_MERCHANT_MAX: Final = 20
LIST_MAX: Final = 1000


class Webhook(msgspec.Struct, frozen=True):
    """`events`: the types that it is told, None: all of its merchant. Its secret is shown once, when it is made."""

    id: UUID
    merchant: str
    url: str
    events: list[str] | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None


class Dead(msgspec.Struct, frozen=True):
    """A delivery that was given up."""

    seq: int
    message: str
    body: str
    attempts: int
    ended_at: datetime
    last_status: int | None
    last_error: str | None


class Webhooks:
    """Raises what asyncpg raises."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def add(self, merchant: str, url: str, events: list[str] | None, module: str) -> tuple[Webhook, str] | None:
        """The endpoint and its secret; None when the merchant has PER_MERCHANT_MAX already. Not idempotent: asked
        twice, there are two endpoints. `url` was checked by `destination.bad_url`.
        """
        secret = new_secret()
        row = await self._pool.fetchrow(
            SQL["add_webhook"], _new_id(), merchant, url, events, secret, module, PER_MERCHANT_MAX
        )
        return None if row is None else (Webhook(**row), secret_text(secret))

    async def of(self, merchant: str | None) -> list[Webhook]:
        """The oldest first, at most LIST_MAX."""
        return [Webhook(**row) for row in await self._pool.fetch(SQL["list_webhooks"], merchant, LIST_MAX)]

    async def get(self, id_: UUID) -> Webhook | None:
        row = await self._pool.fetchrow(SQL["read_webhook"], id_)
        return None if row is None else Webhook(**row)

    async def disable(self, id_: UUID, why: str) -> Webhook | None:
        """Nothing is sent there any more. As it stands, None when there is no such endpoint. Safe to be repeated."""
        row = await self._pool.fetchrow(SQL["disable_webhook"], id_, why)
        return None if row is None else Webhook(**row)

    async def dead(self, id_: UUID, after: int, limit: int) -> "list[Dead]":
        """What was given up, behind `after`, in order."""
        return [Dead(**row) for row in await self._pool.fetch(SQL["dead_deliveries"], id_, after, limit)]

    async def redeliver(self, id_: UUID, seqs: "list[int] | None") -> int:
        """Begin again with what was given up, all of it without `seqs`; how many that are. Safe to be repeated."""
        done = await self._pool.execute(SQL["redeliver"], id_, seqs)
        return int(done.rpartition(" ")[2])


def _new_id() -> UUID:
    """RFC 9562, version 7: in the order in which they are made."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | (7 << 76)
    number = number & ~(0x3 << 62) | (2 << 62)
    return UUID(int=number)
