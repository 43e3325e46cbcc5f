"""Routes of the fund service for channels and changes, handled by `handlers/channels.py`: path, OpenAPI operation."""

from typing import Annotated, Final

from fundledger.app.fund.answers import registry
from fundledger.app.fund.handlers import channels
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.app.fund.requests.bodies import EmptyBody, RejectBody
from fundledger.app.fund.routes.orders import page
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, no_such, path, query, shown
from fundledger.app.http.routing import Route
from fundledger.fund.model.change import ChangeState
from fundledger.fund.model.channel import ChannelPatch, ChannelRequest
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import ChannelName
from fundledger.json_values import Uuid, about
from fundledger.ratelimit.classes import ApiClass

_CHANNELS: Final = "Channels"
_CHANGES: Final = "Changes"
_NAME: Final = path(ChannelName, "name of the channel", "simulator", "name")
_ID: Final = path(Uuid, "id of the change", "0190b0a5-3c1e-4d52-9c3a-5b7f2d6e8a15")
_STATE: Final = Annotated[ChangeState, about(enum=[str(state) for state in ChangeState])]
_WAITS: Final = "The change waits for the approval of another module or person. Without a decision it expires."
_WAITING: Final = Answer("Another change of the channel waits.", problems=(Code.CHANGE_WAITING,))
_NO_CHANGE: Final = no_such("change")
_CHANGE: Final = shown(registry.Change, "The change.")
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "GET",
        "/v1/channels",
        channels.list_channels,
        ApiClass.LIST,
        "list_channels",
        _CHANNELS,
        "List channels",
        "Returns all registered channels.",
        {200: shown(registry.Channels, "The channels.")},
    ),
    Route(
        "GET",
        "/v1/channels/{name}",
        channels.get_channel,
        ApiClass.QUERY,
        "get_channel",
        _CHANNELS,
        "Read a channel",
        "Returns the channel once for each of its currencies.",
        {200: shown(registry.Channels, "The channel."), 404: no_such("channel")},
        (_NAME,),
    ),
    Route(
        "POST",
        "/v1/channels",
        channels.post_channel,
        ApiClass.ADMIN,
        "create_channel",
        _CHANNELS,
        "Request a new channel",
        _WAITS,
        {
            202: _CHANGE,
            400: CURRENCY_UNKNOWN,
            409: Answer(
                "The channel exists, or another change of the channel waits.",
                problems=(Code.CHANNEL_EXISTS, Code.CHANGE_WAITING),
            ),
        },
        body=(ChannelRequest, {"name": "icbc", "currency": "CNY", "payout": "manual"}),
    ),
    Route(
        "PATCH",
        "/v1/channels/{name}",
        channels.patch_channel,
        ApiClass.ADMIN,
        "change_channel",
        _CHANNELS,
        "Request a change of a channel",
        _WAITS,
        {202: _CHANGE, 400: CURRENCY_UNKNOWN, 404: no_such("channel"), 409: _WAITING},
        (_NAME,),
        (ChannelPatch, {"currency": "CNY", "overdraft": 0}),
    ),
    Route(
        "GET",
        "/v1/changes",
        channels.list_changes,
        ApiClass.LIST,
        "list_changes",
        _CHANGES,
        "List changes",
        "Returns a page of changes, oldest first.",
        {200: shown(registry.Changes, "A page of changes.")},
        (query("state", _STATE, "return only changes in this state"), *page(LIMIT_DEFAULT, LIMIT_MAX, "changes")),
    ),
    Route(
        "GET",
        "/v1/changes/{id}",
        channels.get_change,
        ApiClass.QUERY,
        "get_change",
        _CHANGES,
        "Read a change",
        "Returns the change with its requester, and with the identity that decided.",
        {200: _CHANGE, 404: _NO_CHANGE},
        (_ID,),
    ),
    Route(
        "POST",
        "/v1/changes/{id}/approve",
        channels.approve_change,
        ApiClass.ADMIN,
        "approve_change",
        _CHANGES,
        "Approve a change",
        "The caller must be a different module or person than the requester. The change is applied immediately. "
        "Idempotent.",
        {
            200: _CHANGE,
            404: _NO_CHANGE,
            409: Answer(
                "The channel or the payee exists.",
                problems=(Code.CHANNEL_EXISTS, Code.PAYEE_EXISTS, Code.TOO_MANY_PAYEES),
            ),
            422: Answer(
                "The change is not applied.",
                problems=(
                    *(Code.APPROVAL_NEEDS_ANOTHER, Code.CHANGE_ENDED, Code.CHANNEL_NOT_FOUND, Code.REFUNDS_WAITING),
                    *(Code.MERCHANT_NOT_FOUND, Code.MERCHANT_CLOSED, Code.FEE_RULE_TOO_SOON, Code.PAYEE_NOT_FOUND),
                ),
            ),
        },
        (_ID,),
        (EmptyBody, {}),
        role=Role.CHECKER,
    ),
    Route(
        "POST",
        "/v1/changes/{id}/reject",
        channels.reject_change,
        ApiClass.ADMIN,
        "reject_change",
        _CHANGES,
        "Reject a change",
        "The change becomes `rejected`, and is not applied. Idempotent.",
        {200: _CHANGE, 404: _NO_CHANGE, 422: Answer("The change is decided.", problems=(Code.CHANGE_ENDED,))},
        (_ID,),
        (RejectBody, {"reason": "not agreed with the bank"}),
        role=Role.CHECKER,
    ),
]
