"""Python client of the fund service, part: webhook endpoints, and the events that were not delivered to them."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import msgspec

from fundledger.client.connection import Answer, decoder
from fundledger.client.fund_types import DeadEvent, Webhook
from fundledger.client.pages import Pages
from fundledger.client.service import Service


class _Webhooks(msgspec.Struct):
    webhooks: list[Webhook]


class _Redelivered(msgspec.Struct):
    redelivered: int


_encode = msgspec.json.Encoder().encode
_webhook = decoder(Webhook)
_webhooks = decoder(_Webhooks)
_dead = Pages(list[DeadEvent], "dead", "next", "after")
_redelivered = decoder(_Redelivered)


class FundWebhooks(Service):
    """The requests about webhooks. `FundService` has the other requests."""

    async def create_webhook(self, merchant: str, url: str, events: Sequence[str] | None = None) -> Webhook:
        """Create an endpoint and return it with its `secret`. Not idempotent: each call creates an endpoint.

        Raises Refused with `merchant-not-found` or `too-many-webhooks`.
        """
        return _webhook(await self._ask("/v1/webhooks", merchant=merchant, url=url, events=events))

    async def webhooks(self, merchant: str | None = None) -> list[Webhook]:
        """Return at most 1,000 endpoints, oldest first, also disabled ones. `merchant`: None for all merchants."""
        query = None if merchant is None else {"merchant": merchant}
        return _webhooks(await self._to.ask("GET", "/v1/webhooks", query=query)).webhooks

    async def disable_webhook(self, id_: UUID, reason: str | None = None) -> Webhook:
        """Stop deliveries to an endpoint permanently. Raises Refused with `not-found`."""
        return _webhook(await self._ask(f"/v1/webhooks/{id_}/disable", reason=reason))

    def dead_webhook_events(self, id_: UUID, limit: int = 100) -> AsyncIterator[DeadEvent]:
        """Yield the events whose delivery was given up, in order. `limit`: events per page. Raises Refused with
        `not-found`.
        """
        return _dead.read(self._to, f"/v1/webhooks/{id_}/dead", {"limit": str(limit)})

    async def redeliver(self, id_: UUID, seqs: Sequence[int] | None = None) -> int:
        """Restart deliveries that were given up, and return their number.

        `seqs`: the seqs of at most 1,000 events, None for all events whose delivery was given up.
        """
        return _redelivered(await self._ask(f"/v1/webhooks/{id_}/redeliver", seqs=seqs)).redelivered

    async def _ask(self, path: str, **members: object) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        return await self._to.ask("POST", path, _encode(given))
