"""HTTP handlers of the fund service for webhooks. `routes/webhooks.py` declares the routes that call them."""

from typing import Final
from uuid import UUID

import msgspec

from fundledger.app.fund.answers import render
from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.answers.problems import refused, unverified_items
from fundledger.app.fund.requests.bodies import DisableBody, RedeliverBody, WebhookBody
from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, uuid_reader
from fundledger.app.http.problems import cut, malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.json_values import time_text
from fundledger.outbox.destination import allows_private, bad_url
from fundledger.outbox.webhooks import PER_MERCHANT_MAX, Dead, Webhook, Webhooks

TYPES: Final = frozenset(f"{kind}.{state}" for kind in Kind for state in State if state is not State.CREATED)
DEAD_MAX: Final = 100
SEQ_MAX: Final = (1 << 53) - 1


_decode_webhook = decoder(WebhookBody)
_decode_disable = decoder(DisableBody)
_decode_redeliver = decoder(RedeliverBody)
_read_id = uuid_reader("a voucher id")


async def create_webhook(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/webhooks`: 201 with the endpoint and its secret. No other response contains the secret."""
    body = _decode_webhook(call.body)
    settings = service.settings
    why = bad_url(body.url, private=allows_private(settings.webhooks_private, settings.profile))
    if why is not None:
        raise malformed(why, field="url")
    for type_ in body.events or ():
        if type_ not in TYPES:
            raise malformed(f"unknown event type {cut(type_)!r}", field="events")
    if await service.reading(lambda: service.merchants.get(body.merchant)) is None:
        return refused(Refusal(Code.MERCHANT_NOT_FOUND, f"merchant {body.merchant} does not exist", "merchant"))
    webhooks = Webhooks(service.pool, service.macs)
    added = await service.reading(lambda: webhooks.add(body.merchant, body.url, body.events, call.module))
    if added is None:
        return refused(
            Refusal(Code.TOO_MANY_WEBHOOKS, f"a merchant can have at most {PER_MERCHANT_MAX} endpoints", "merchant")
        )
    webhook, secret = added
    return Reply(201, encode(answers.WebhookWithSecret(**msgspec.structs.asdict(_shown(webhook)), secret=secret)))


async def list_webhooks(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/webhooks?merchant=`: the endpoints of one merchant, or of all merchants."""
    merchant = call.query.get("merchant")
    if merchant is not None:
        merchant_id(merchant, "merchant")
    found, bad = await service.reading(lambda: Webhooks(service.pool, service.macs).of(merchant))
    return Reply(200, encode(answers.Webhooks([_shown(one) for one in found], unverified_items("webhook", bad))))


async def disable_webhook(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/webhooks/{id}/disable`: stop deliveries to an endpoint permanently. The body may be empty."""
    id_, why = _id(call), _decode_disable(call.body).reason or f"requested by {call.module}"
    found = await service.reading(lambda: Webhooks(service.pool, service.macs).disable(id_, why))
    if found is None:
        raise not_found(f"webhook {call.parameters['id']}")
    return Reply(200, encode(_shown(found)))


async def list_dead(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/webhooks/{id}/dead?after=&limit=`: events whose delivery was given up, in order."""
    after, limit = number(call.query, "after", 0, 0, SEQ_MAX), number(call.query, "limit", DEAD_MAX, 1, DEAD_MAX)
    webhooks, id_ = await _found(service, call)
    dead = await service.reading(lambda: webhooks.dead(id_, after, limit))
    following = dead[-1].seq if len(dead) == limit else None
    return Reply(200, encode(answers.DeadEvents([_dead(one) for one in dead], following)))


async def redeliver(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/webhooks/{id}/redeliver`: restart deliveries that were given up.

    If the body is empty, all such deliveries of the endpoint are restarted.
    """
    seqs = _decode_redeliver(call.body).seqs
    webhooks, id_ = await _found(service, call)
    return Reply(200, encode(answers.Redelivered(await service.reading(lambda: webhooks.redeliver(id_, seqs)))))


async def _found(service: FundService, call: Call) -> tuple[Webhooks, UUID]:
    """Return the endpoint store and the id of an existing endpoint. Raises BadRequest (400, 404), Unavailable."""
    webhooks, id_ = Webhooks(service.pool, service.macs), _id(call)
    if await service.reading(lambda: webhooks.get(id_)) is None:
        raise not_found(f"webhook {id_}")
    return webhooks, id_


def _id(call: Call) -> UUID:
    return UUID(str(_read_id(call.parameters["id"])))


def _shown(webhook: Webhook) -> answers.Webhook:
    disabled_at = None if webhook.disabled_at is None else time_text(webhook.disabled_at)
    return answers.Webhook(
        webhook.id,
        webhook.merchant,
        webhook.url,
        webhook.events,
        time_text(webhook.created_at),
        disabled_at,
        webhook.disabled_why,
    )


def _dead(dead: Dead) -> answers.DeadEvent:
    return answers.DeadEvent(
        dead.seq,
        render.raw(dead.body),
        dead.attempts,
        time_text(dead.ended_at),
        dead.last_status,
        dead.last_error,
    )
