"""HTTP handlers of the fund service for channels and changes. `routes/channels.py` declares their routes."""

import re
from typing import Final

from fundledger.app.fund.answers import registry
from fundledger.app.fund.answers.problems import refused, unverified_items
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX, SEQ_MAX
from fundledger.app.fund.requests.bodies import EmptyBody, RejectBody
from fundledger.app.fund.requests.lookup import uuid_of
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, known_currency, quotes_of_flat
from fundledger.app.http.problems import malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.fund.model.change import Change, ChangeKind, ChangeState
from fundledger.fund.model.channel import CHANNELS_MAX, ChannelPatch, ChannelRequest
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.store.channels import exists, read_channels

_decode_new = decoder(ChannelRequest, quotes_of_flat)
_decode_patch = decoder(ChannelPatch, quotes_of_flat)
_decode_empty = decoder(EmptyBody, quotes_of_flat)
_decode_reject = decoder(RejectBody, quotes_of_flat)
_is_name: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z").match


async def list_channels(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/channels`: all registered channels."""
    del call
    return await _channels(service, None)


async def get_channel(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/channels/{name}`: one channel, once for each of its currencies."""
    return await _channels(service, channel_name(call))


async def _channels(service: FundService, name: str | None) -> Reply:
    found, bad = await service.reading(lambda: read_channels(service.pool, service.macs))
    shown = [registry.channel(channel) for channel in found if name in (None, channel.name)]
    left_out = [" ".join(key) for key in sorted(bad) if name in (None, key[0])]
    if name is not None and not shown and not left_out:
        raise not_found(f"channel {name}")
    return Reply(200, encode(registry.Channels(shown, unverified_items("channel", left_out))))


async def post_channel(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/channels`: 202 with a change that registers a channel after its approval."""
    new = _decode_new(call.body)
    known_currency(new.currency)
    if service.channels.known(new.name, new.currency) is not None:
        return refused(exists(new.name, new.currency))
    if len(service.channels) >= CHANNELS_MAX:
        raise malformed(f"at most {CHANNELS_MAX} channels can be registered", field="name")
    return await _requested(service, call, f"{new.name} {new.currency}", new)


async def patch_channel(service: FundService, call: Call) -> Reply:
    """Handle `PATCH /v1/channels/{name}`: 202 with a change of a channel, which is applied after its approval."""
    name, patch = channel_name(call), _decode_patch(call.body)
    known_currency(patch.currency)
    if await service.reading(lambda: service.channels.find(name, patch.currency)) is None:
        raise not_found(f"channel {name} for {patch.currency}")
    return await _requested(service, call, f"{name} {patch.currency}", patch)


async def _requested(service: FundService, call: Call, subject: str, body: ChannelRequest | ChannelPatch) -> Reply:
    made = await service.reading(lambda: service.changes.request(ChangeKind.CHANNEL, subject, body, call.module))
    return refused(made) if isinstance(made, Refusal) else _shown(made, 202)


async def list_changes(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/changes`: a page of changes, oldest first."""
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(call.query, "cursor", 0, 0, SEQ_MAX)
    try:
        state = ChangeState(call.query["state"]) if "state" in call.query else None
    except ValueError:
        raise malformed(f"state must be one of {', '.join(ChangeState)}", field="state") from None
    found, bad, last = await service.reading(lambda: service.changes.page(state, after, limit))
    following = str(last) if len(found) + len(bad) == limit else None
    shown = [registry.change(change) for change in found]
    return Reply(200, encode(registry.Changes(shown, following, unverified_items("change", bad))))


async def get_change(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/changes/{id}`: one change."""
    id_ = uuid_of(call.parameters["id"])
    # The identity that decides compares the whole account number of a payee with the slip.
    return _decided(await service.reading(lambda: service.changes.read(id_)), call, full=True)


async def approve_change(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/changes/{id}/approve`: approve and apply a change. Idempotent."""
    id_ = uuid_of(call.parameters["id"])
    _decode_empty(call.body)
    decided = await service.reading(lambda: service.changes.approve(id_, call.module))
    if isinstance(decided, Change):
        await service.reading(service.channels.look)
        await service.reading(service.merchants.look)
    return _decided(decided, call)


async def reject_change(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/changes/{id}/reject`: reject a change. Idempotent."""
    id_, reason = uuid_of(call.parameters["id"]), _decode_reject(call.body).reason
    return _decided(await service.reading(lambda: service.changes.reject(id_, call.module, reason)), call)


def _decided(answer: Change | Refusal | None, call: Call, *, full: bool = False) -> Reply:
    if answer is None:
        raise not_found(f"change {call.parameters['id']}")
    return refused(answer) if isinstance(answer, Refusal) else _shown(answer, 200, full=full)


def _shown(change: Change, status: int, *, full: bool = False) -> Reply:
    return Reply(status, encode(registry.change(change, full=full)))


def channel_name(call: Call) -> str:
    """Return the name of the channel in the path. Raises BadRequest (400)."""
    name = call.parameters["name"]
    if not _is_name(name):
        raise malformed("name must be a channel name: 1 to 32 characters of [A-Za-z0-9_.-]", field="name")
    return name
