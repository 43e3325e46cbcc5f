"""HTTP handlers of the fund service for changes of merchants, their history, and holidays.

`routes/merchant_changes.py` declares the routes that call them.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from fundledger.app.fund.answers import registry
from fundledger.app.fund.answers.problems import refused, unverified_items
from fundledger.app.fund.handlers.merchants import found, shown
from fundledger.app.fund.requests.bodies import ReasonBody
from fundledger.app.fund.requests.lookup import merchant_id
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, quotes_of_flat
from fundledger.app.http.problems import malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Unavailable
from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import (
    ALONE,
    DUAL,
    CloseRequest,
    FeeRuleBody,
    HolidaysRequest,
    MerchantPatch,
)
from fundledger.fund.model.channel import unknown_channel
from fundledger.fund.model.merchant import MerchantState
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.holidays import read_holidays
from fundledger.fund.store.merchant_rows import read_events

_decode_patch = decoder(MerchantPatch)
_decode_fee = decoder(FeeRuleBody)
_decode_reason = decoder(ReasonBody, quotes_of_flat)
_decode_close = decoder(CloseRequest)
_decode_holidays = decoder(HolidaysRequest)
_is_region: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z").match
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
VERSION_MAX: Final = (1 << 31) - 1


async def patch_merchant(service: FundService, call: Call) -> Reply:
    """Handle `PATCH /v1/merchants/{id}`: 200 with the changed merchant, or 202 with a change that a second identity has
    to approve.
    """
    id_, patch = merchant_id(call.parameters["id"], "id"), _decode_patch(call.body)
    if not patch.given((*ALONE, *DUAL)):
        raise malformed("send at least one member to change")
    if not patch.given(DUAL):
        if not await service.reading(lambda: service.merchant_changes.patch(id_, patch, call.module)):
            raise not_found(f"merchant {id_}")
        return await shown(service, await found(service, call), 200)
    merchant = await found(service, call)
    if merchant.state is MerchantState.CLOSED:
        return refused(Refusal(Code.MERCHANT_CLOSED, f"merchant {id_} is closed"))
    return await _requested(service, call, ChangeKind.MERCHANT, id_, patch)


async def add_fee(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/fees`: 202 with a change that adds a fee rule after its approval."""
    body = _decode_fee(call.body)
    merchant = await found(service, call)
    if merchant.state is MerchantState.CLOSED:
        return refused(Refusal(Code.MERCHANT_CLOSED, f"merchant {merchant.id} is closed"))
    effect = service.merchants.effect_of(body.effective_at)
    if isinstance(effect, Refusal):
        return refused(effect)
    subject = f"{merchant.id} {body.product} {body.channel or '*'}"
    return await _requested(service, call, ChangeKind.FEE_RULE, subject, body)


async def _requested(service: FundService, call: Call, kind: ChangeKind, subject: str, body: msgspec.Struct) -> Reply:
    made = await service.reading(lambda: service.changes.request(kind, subject, body, call.module))
    return refused(made) if isinstance(made, Refusal) else Reply(202, encode(registry.change(made)))


async def suspend(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/suspend`. Idempotent."""
    reason = _decode_reason(call.body).reason
    return await _moved(service, call, lambda id_: service.merchant_changes.suspend(id_, reason, call.module))


async def resume(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/resume`. Idempotent."""
    reason = _decode_reason(call.body).reason
    return await _moved(service, call, lambda id_: service.merchant_changes.resume(id_, reason, call.module))


async def close(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/merchants/{id}/close`: 202 while the merchant is being closed, 200 when it is closed."""
    request = _decode_close(call.body)
    merchant = await found(service, call)
    if request.final is not None:
        name = request.final.channel
        channel = await service.reading(lambda: service.channels.get(name, merchant.currency))
        if channel is None:
            return refused(unknown_channel(name, merchant.currency, service.channels.names))
        if channel.state == "closed":
            return refused(Refusal(Code.CHANNEL_CLOSED, f"channel {name} is closed", "channel"))
    return await _moved(service, call, lambda id_: service.merchant_changes.close(id_, request, call.module))


async def _moved(service: FundService, call: Call, move: Callable[[str], Awaitable[Refusal | bool]]) -> Reply:
    id_ = merchant_id(call.parameters["id"], "id")
    try:
        answer = await service.reading(lambda: move(id_))
    except GatewayFault as fault:
        raise Unavailable(f"the account service does not answer: {fault}") from None
    if isinstance(answer, Refusal):
        return refused(answer)
    if not answer:
        raise not_found(f"merchant {id_}")
    merchant = await found(service, call)
    return await shown(service, merchant, 202 if merchant.state is MerchantState.CLOSING else 200)


async def get_history(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/merchants/{id}/history`: the events of a merchant, oldest first."""
    id_ = merchant_id(call.parameters["id"], "id")
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(call.query, "cursor", 0, 0, VERSION_MAX)
    await found(service, call)
    events, bad, last = await service.reading(lambda: read_events(service.pool, service.macs, id_, after, limit))
    following = str(last) if len(events) + len(bad) == limit else None
    told = [registry.merchant_event(event) for event in events]
    page = registry.MerchantHistory(id_, told, following, unverified_items("event", bad))
    return Reply(200, encode(page))


async def get_holidays(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/holidays`: the recorded days of a region, and the weekend."""
    region = call.query.get("region", "")
    if not _is_region(region):
        raise malformed("region must be 1 to 32 characters of [A-Za-z0-9_.-]", field="region")
    days, bad = await service.reading(lambda: read_holidays(service.pool, service.macs, region))
    weekend = [name for name in service.settings.weekend.split(",") if name]
    return Reply(200, encode(registry.Holidays(region, days, weekend, unverified_items("holiday", bad))))


async def post_holidays(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/holidays`: 202 with a change that records holidays after its approval."""
    request = _decode_holidays(call.body)
    return await _requested(service, call, ChangeKind.HOLIDAYS, request.region, request)
