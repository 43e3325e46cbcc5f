"""The operations of webhooks in the fund service's OpenAPI file."""

from typing import Final

from fundledger.app.fund.openapi_answers import MERCHANT_ID
from fundledger.app.fund.webhooks import DEAD_MAX
from fundledger.app.openapi_schemas import UUID
from fundledger.app.openapi_types import Answer, Operation, no_such, path_parameter, query_parameter, shown
from fundledger.fund.refusal import Code
from fundledger.outbox.webhooks import PER_MERCHANT_MAX

_PATH: Final = path_parameter(UUID, "id of the endpoint", "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a15")
WEBHOOKS: Final = (
    Operation(
        "POST",
        "/v1/webhooks",
        "create_webhook",
        "Webhooks",
        "Have a merchant's events sent to a URL",
        "Signed (Standard Webhooks) with the secret that is shown in the answer, this once. What happens from now on "
        "is sent, one event after the other. Asked for twice, there are two.",
        {
            201: shown("WebhookWithSecret", "The endpoint, and its secret."),
            409: Answer(f"The merchant has {PER_MERCHANT_MAX} already.", problems=(Code.TOO_MANY_WEBHOOKS,)),
            422: Answer("There is no such merchant.", problems=(Code.MERCHANT_NOT_FOUND,)),
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
        "Without their secrets.",
        {200: shown("Webhooks", "The endpoints.")},
        (query_parameter("merchant", MERCHANT_ID, "whose; left out: all"),),
    ),
    Operation(
        "POST",
        "/v1/webhooks/{id}/disable",
        "disable_webhook",
        "Webhooks",
        "Send nothing there any more",
        "For good; the same again answers the same.",
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
        "Read what could not be delivered",
        "And was given up.",
        {200: shown("DeadEvents", "A page."), 404: no_such("endpoint")},
        (
            _PATH,
            query_parameter(
                "after", {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}, "`next` of the page before"
            ),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": DEAD_MAX, "default": DEAD_MAX},
                "how many events at most",
            ),
        ),
    ),
    Operation(
        "POST",
        "/v1/webhooks/{id}/redeliver",
        "redeliver",
        "Webhooks",
        "Deliver again what was given up",
        "As if it had just happened; what was not given up is left alone.",
        {200: shown("Redelivered", "How many."), 404: no_such("endpoint")},
        (_PATH,),
        body="RedeliverBody",
        body_required=False,
        example={"seqs": [17]},
    ),
)
