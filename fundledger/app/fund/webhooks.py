"""Webhooks over HTTP: where a merchant's events are sent, and what could not be delivered there."""

from typing import Annotated, Any, Final, Protocol
from uuid import UUID

import msgspec

from fundledger.app.body import decoder, voucher_id
from fundledger.app.problems import BadRequest, malformed, not_found
from fundledger.app.render import encode, time_text
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.fund.order import Kind, State
from fundledger.fund.requests import MerchantId
from fundledger.outbox.destination import bad_url
from fundledger.outbox.webhooks import PER_MERCHANT_MAX, Dead, Webhook, Webhooks

TYPES: Final = frozenset(f"{kind}.{state}" for kind in Kind for state in State if state is not State.CREATED)
SEQS_MAX: Final = 1000
DEAD_MAX: Final = 100
QUERY: Final = ("merchant",)
DEAD_QUERY: Final = ("after", "limit")


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    merchant: MerchantId
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    events: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None = None


class DisableBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z")] = ""


class RedeliverBody(msgspec.Struct, forbid_unknown_fields=True):
    """Without `seqs`: all of them."""

    seqs: (
        Annotated[list[Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]], msgspec.Meta(min_length=1, max_length=SEQS_MAX)]
        | None
    ) = None


_decode_webhook = decoder(WebhookBody)
_decode_disable = decoder(DisableBody)
_decode_redeliver = decoder(RedeliverBody)


class Hooked(Protocol):
    """What these handlers need of the fund service."""

    pool: Any
    settings: Any


async def create_webhook(service: Hooked, call: Call) -> Reply:
    """`POST /v1/webhooks`: 201 with the endpoint and its secret, which is shown this once."""
    body = _decode_webhook(call.body)
    why = bad_url(body.url, private=service.settings.profile == "dev")
    if why is not None:
        raise malformed(why, field="url")
    for type_ in body.events or ():
        if type_ not in TYPES:
            raise malformed(f"there is no event {type_!r}", field="events")
    added = await Webhooks(service.pool).add(body.merchant, body.url, body.events, call.module)
    if added is None:
        detail = f"a merchant has at most {PER_MERCHANT_MAX} endpoints: disable one"
        raise BadRequest(409, "too-many-webhooks", "There are too many endpoints", detail, field="merchant")
    webhook, secret = added
    return Reply(201, encode({**_members(webhook), "secret": secret}))


async def list_webhooks(service: Hooked, call: Call) -> Reply:
    """`GET /v1/webhooks?merchant=`."""
    merchant = call.query.get("merchant")
    if merchant is not None and "\x00" in merchant:
        raise malformed("merchant is 1 to 64 of [A-Za-z0-9_.-]", field="merchant")
    return Reply(200, encode({"webhooks": [_members(one) for one in await Webhooks(service.pool).of(merchant)]}))


async def disable_webhook(service: Hooked, call: Call) -> Reply:
    """`POST /v1/webhooks/{id}/disable`: nothing is sent there any more. An empty body is fine."""
    body = _decode_disable(call.body)
    found = await Webhooks(service.pool).disable(_id(call), body.reason or f"asked for by {call.module}")
    if found is None:
        raise not_found(f"webhook {call.parameters['id']}")
    return Reply(200, encode(_members(found)))


async def list_dead(service: Hooked, call: Call) -> Reply:
    """`GET /v1/webhooks/{id}/dead?after=&limit=`: what was given up, in order."""
    after, limit = _whole(call, "after", 0, 0, (1 << 53) - 1), _whole(call, "limit", DEAD_MAX, 1, DEAD_MAX)
    webhooks, id_ = Webhooks(service.pool), _id(call)
    if await webhooks.get(id_) is None:
        raise not_found(f"webhook {id_}")
    dead = await webhooks.dead(id_, after, limit)
    following = dead[-1].seq if len(dead) == limit else None
    return Reply(200, encode({"dead": [_dead(one) for one in dead], "next": following}))


async def redeliver(service: Hooked, call: Call) -> Reply:
    """`POST /v1/webhooks/{id}/redeliver`: begin again with what was given up. An empty body means all of it."""
    body = _decode_redeliver(call.body)
    webhooks, id_ = Webhooks(service.pool), _id(call)
    if await webhooks.get(id_) is None:
        raise not_found(f"webhook {id_}")
    return Reply(200, encode({"redelivered": await webhooks.redeliver(id_, body.seqs)}))


def _id(call: Call) -> UUID:
    return UUID(str(voucher_id(call.parameters["id"])))


def _whole(call: Call, name: str, default: int, least: int, most: int) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or not least <= int(text) <= most:
        raise malformed(f"{name} is a whole number from {least} to {most}", field=name)
    return int(text)


def _members(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": str(webhook.id),
        "merchant": webhook.merchant,
        "url": webhook.url,
        "events": webhook.events,
        "created_at": time_text(webhook.created_at),
        "disabled_at": None if webhook.disabled_at is None else time_text(webhook.disabled_at),
        "disabled_why": webhook.disabled_why,
    }


def _dead(dead: Dead) -> dict[str, Any]:
    return {
        "seq": dead.seq,
        "event": msgspec.Raw(dead.body.encode()),
        "attempts": dead.attempts,
        "ended_at": time_text(dead.ended_at),
        "last_status": dead.last_status,
        "last_error": dead.last_error,
    }
