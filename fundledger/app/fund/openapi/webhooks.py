"""OpenAPI operations of the fund service's webhook endpoints."""

from typing import Final

from fundledger.app.fund.openapi.answers import MERCHANT_ID
from fundledger.app.fund.webhooks import DEAD_MAX
from fundledger.app.http.openapi.schemas import UUID
from fundledger.app.http.openapi.types import Answer, Operation, no_such, path_parameter, query_parameter, shown
from fundledger.fund.model.refusal import Code
from fundledger.outbox.webhooks import PER_MERCHANT_MAX

_PATH: Final = path_parameter(UUID, "id of the endpoint", "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a15")
WEBHOOKS: Final = (
    Operation(
        "POST",
        "/v1/webhooks",
        "create_webhook",
        "Webhooks",
        "Create a webhook endpoint",
        "Sends a merchant's future events to a URL, one at a time and in order. Requests are signed (Standard "
        "Webhooks) with the secret, which only this response contains. Not idempotent: each request creates an "
        "endpoint.",
        {
            201: shown("WebhookWithSecret", "The endpoint and its secret."),
            409: Answer(f"The merchant already has {PER_MERCHANT_MAX} endpoints.", problems=(Code.TOO_MANY_WEBHOOKS,)),
            422: Answer("The merchant does not exist.", problems=(Code.MERCHANT_NOT_FOUND,)),
        },
        body="WebhookBody",
        example={"merchant": "10001", "url": "https://tea.example/events", "events": ["payment.posted"]},
    ),
    Operation(
        "GET",
        "/v1/webhooks",
        "list_webhooks",
        "Webhooks",
        "List endpoints",
        "Secrets are not included.",
        {200: shown("Webhooks", "The endpoints.")},
        (query_parameter("merchant", MERCHANT_ID, "return only endpoints of this merchant; default: all merchants"),),
    ),
    Operation(
        "POST",
        "/v1/webhooks/{id}/disable",
        "disable_webhook",
        "Webhooks",
        "Disable an endpoint",
        "Stops deliveries to the endpoint permanently. Idempotent.",
        {200: shown("Webhook", "The endpoint, disabled."), 404: no_such("endpoint")},
        (_PATH,),
        body="DisableBody",
        body_required=False,
        example={"reason": "moved"},
    ),
    Operation(
        "GET",
        "/v1/webhooks/{id}/dead",
        "list_dead_events",
        "Webhooks",
        "List undelivered events",
        "Events whose delivery was given up, in order.",
        {200: shown("DeadEvents", "A page of events."), 404: no_such("endpoint")},
        (
            _PATH,
            query_parameter(
                "after", {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}, "`next` of the previous page"
            ),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": DEAD_MAX, "default": DEAD_MAX},
                "maximum number of events",
            ),
        ),
    ),
    Operation(
        "POST",
        "/v1/webhooks/{id}/redeliver",
        "redeliver",
        "Webhooks",
        "Redeliver events",
        "Restarts the delivery of events that were given up. Other events are not affected.",
        {200: shown("Redelivered", "The number of events to be delivered again."), 404: no_such("endpoint")},
        (_PATH,),
        body="RedeliverBody",
        body_required=False,
        example={"seqs": [17]},
    ),
)
