"""Python client of the fund service, part: registered channels, and changes that need a second identity."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.connection import decoder
from fundledger.client.pages import Pages
from fundledger.client.service import Service

PayoutMethod = Literal["http", "file", "manual"]
RefundMethod = Literal["payout", "http", "file", "manual"]


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A registered channel. `overdraft`: the amount by which payouts may exceed the balance of the bank account, None
    for any amount. `refund`: how refunds are made; `payout` for as payouts.
    """

    name: str
    currency: str
    bank_account: str
    payout: str
    references_unique: bool
    overdraft: int | None
    state: str
    registered_by: str
    created_at: datetime
    refund: str = "payout"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change that needs two identities: its `maker`, and its `checker`. `body`: the requested change."""

    id: UUID
    kind: str
    subject: str
    body: dict[str, Any]
    state: str
    maker: str
    made_at: datetime
    checker: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None


class _Channels(msgspec.Struct):
    channels: list[Channel]


_encode = msgspec.json.Encoder().encode
_channels = decoder(_Channels)
_change = decoder(Change)
_changes: Final = Pages(list[Change], "changes")


class FundRegistry(Service):
    """The requests about channels and changes. `FundService` has the other requests."""

    async def channels(self) -> list[Channel]:
        """Return the registered channels, by name and currency."""
        return _channels(await self._to.ask("GET", "/v1/channels")).channels

    async def create_channel(
        self,
        name: str,
        currency: str,
        payout: PayoutMethod = "manual",
        *,
        references_unique: bool = True,
        overdraft: int | None = 0,
        refund: RefundMethod = "payout",
    ) -> Change:
        """Request a new channel. The channel exists after another identity has approved the change. Raises Refused with
        `channel-exists` or `change-waiting`.
        """
        members = {"name": name, "currency": currency, "payout": payout, "refund": refund}
        body = _encode({**members, "references_unique": references_unique, "overdraft": overdraft})
        return _change(await self._to.ask("POST", "/v1/channels", body))

    async def change_channel(self, name: str, currency: str, **members: object) -> Change:
        """Request a change of a channel. `members`: new values of `payout`, `references_unique`, `overdraft`,
        `refund` or `state`. Raises Refused with `not-found` or `change-waiting`.
        """
        body = _encode({"currency": currency, **members})
        return _change(await self._to.ask("PATCH", f"/v1/channels/{quote(name, safe='')}", body))

    def changes(self, state: str | None = None, limit: int = 500) -> AsyncIterator[Change]:
        """Yield the changes of all pages, oldest first. `limit`: changes per page."""
        return _changes.read(self._to, "/v1/changes", {"state": state, "limit": str(limit)})

    async def approve_change(self, id_: UUID) -> Change:
        """Approve a change, which is then applied. Raises Refused with `approval-needs-another` or `change-ended`."""
        return _change(await self._to.ask("POST", f"/v1/changes/{id_}/approve", b"{}"))

    async def reject_change(self, id_: UUID, reason: str) -> Change:
        """Reject a change. Raises Refused with `change-ended`."""
        return _change(await self._to.ask("POST", f"/v1/changes/{id_}/reject", _encode({"reason": reason})))
