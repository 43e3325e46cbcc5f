"""Routes of the fund service for webhooks, handled by `handlers/webhooks.py`: method, path, OpenAPI operation."""

from typing import Annotated, Final

import msgspec

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import webhooks
from fundledger.app.fund.requests.bodies import DisableBody, RedeliverBody, WebhookBody
from fundledger.app.fund.routes.kinds import MERCHANT
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import Answer, count, no_such, path, query, shown
from fundledger.app.http.routing import Route
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import MerchantId
from fundledger.json_values import Uuid
from fundledger.outbox.webhooks import PER_MERCHANT_MAX
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Webhooks"
_ID: Final = path(Uuid, "id of the endpoint", "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a15")
_NO_ENDPOINT: Final = no_such("endpoint")
_AFTER: Final = Annotated[int, msgspec.Meta(ge=0, le=webhooks.SEQ_MAX)]
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/webhooks",
        webhooks.create_webhook,
        ApiClass.ADMIN,
        "create_webhook",
        _TAG,
        "Create a webhook endpoint",
        "Sends a merchant's future events to a URL, one at a time and in order. Requests are signed (Standard "
        "Webhooks) with the secret, which only this response contains. Not idempotent: each request creates an "
        "endpoint.",
        {
            201: shown(answers.WebhookWithSecret, "The endpoint and its secret."),
            409: Answer(f"The merchant already has {PER_MERCHANT_MAX} endpoints.", problems=(Code.TOO_MANY_WEBHOOKS,)),
            422: Answer("The merchant does not exist.", problems=(Code.MERCHANT_NOT_FOUND,)),
        },
        body=(
            WebhookBody,
            {"merchant": MERCHANT, "url": "https://tea.example/events", "events": ["payment.posted"]},
        ),
        role=Role.OPERATOR,
    ),
    Route(
        "GET",
        "/v1/webhooks",
        webhooks.list_webhooks,
        ApiClass.LIST,
        "list_webhooks",
        _TAG,
        "List endpoints",
        "Secrets are not included.",
        {200: shown(answers.Webhooks, "The endpoints.")},
        (query("merchant", MerchantId, "return only endpoints of this merchant; default: all merchants"),),
    ),
    Route(
        "POST",
        "/v1/webhooks/{id}/disable",
        webhooks.disable_webhook,
        ApiClass.ADMIN,
        "disable_webhook",
        _TAG,
        "Disable an endpoint",
        "Stops deliveries to the endpoint permanently. Idempotent.",
        {200: shown(answers.Webhook, "The endpoint, disabled."), 404: _NO_ENDPOINT},
        (_ID,),
        (DisableBody, {"reason": "moved"}),
        role=Role.OPERATOR,
    ),
    Route(
        "GET",
        "/v1/webhooks/{id}/dead",
        webhooks.list_dead,
        ApiClass.QUERY,
        "list_dead_events",
        _TAG,
        "List undelivered events",
        "Events whose delivery was given up, in order.",
        {200: shown(answers.DeadEvents, "A page of events."), 404: _NO_ENDPOINT},
        (
            _ID,
            query("after", _AFTER, "`next` of the previous page"),
            count(webhooks.DEAD_MAX, webhooks.DEAD_MAX, "events"),
        ),
    ),
    Route(
        "POST",
        "/v1/webhooks/{id}/redeliver",
        webhooks.redeliver,
        ApiClass.ADMIN,
        "redeliver",
        _TAG,
        "Redeliver events",
        "Restarts the delivery of events that were given up. Other events are not affected.",
        {200: shown(answers.Redelivered, "The number of events to be delivered again."), 404: _NO_ENDPOINT},
        (_ID,),
        (RedeliverBody, {"seqs": [17]}),
        role=Role.OPERATOR,
    ),
]
