"""Description of the fund service in its OpenAPI document, and its problem types."""

import textwrap
from typing import Final

from fundledger.app.fund.answers.problems import ADVICE, REFUSALS
from fundledger.app.fund.answers.structs import OrderProblem
from fundledger.app.http.openapi.document import About
from fundledger.app.http.openapi.problems import OTHERS, ProblemType
from fundledger.app.http.openapi.types import SERVICE_TAG
from fundledger.app.http.problems import POSTING, POSTING_ADVICE
from fundledger.app.http.service_routes import SERVICE_EXAMPLES
from fundledger.fund.model.order_json import Event
from fundledger.fund.model.refusal import Code

_DESCRIPTION: Final = textwrap.dedent("""
    Orders of merchants: payments, refunds, settlements, withdrawals and corrections. Each order posts a voucher in the
    account service.

    The merchant, kind and `order_no` of an order are its idempotency key, permanently. After a timeout or a 503, send
    the same request again. The response is the current order, with `Idempotent-Replay: true`.

    202: the order is stored and its outcome is not known yet. It completes automatically; read it with a GET or by
    sending the same request again. 422: the order is refused. If the fund service refuses it, nothing is stored and the
    number stays free. If the account service refuses it, the response contains the `order`, permanently in state
    `refused`.

    Amounts are integers in minor units, 1 to 2^53-1. Times are RFC 3339 in UTC. Request bodies are uncompressed JSON in
    UTF-8. Unknown members are rejected.

    Errors are `application/problem+json` (RFC 9457); the problem types are listed below. 429 means that the caller's
    quota is used up, 503 that the service lacks capacity. Wait for `Retry-After` seconds, then send the same request.
    500 `integrity`: stored rows fail verification, so their figures are withheld. Any other 500 is a defect.
""").strip()
_TAGS: Final = {
    "Merchants": "Merchants and their fee rules.",
    "Orders": "Orders of all kinds, identified by the merchant's own number.",
    "Approvals": "Decisions of a second identity on orders that need one.",
    "Channels": "Registered channels, through which money comes in and leaves.",
    "Changes": "Changes that need a second identity.",
    "Payees": "Bank accounts to which merchants withdraw.",
    "Payout files": "Withdrawals exported for a bank in files, and the results of these files.",
    "Events": "State changes of orders, as a feed.",
    "Webhooks": "Endpoints that receive a merchant's events.",
    SERVICE_TAG: "Health, metrics, limits and documentation.",
}


def problems() -> list[ProblemType]:
    """Return the problem types: the refusals of the fund service, those of the account service, then all others."""
    # These refusals are never final: no order is stored for a refused request, so no outcome is recorded.
    own = [ProblemType(str(code), *REFUSALS[code], ADVICE[code], final=False) for code in Code]
    passed_on = [ProblemType(name, *row, POSTING_ADVICE[name], final=True) for name, row in POSTING.items()]
    return [*own, *passed_on, *OTHERS]


ABOUT: Final = About(
    "fundledger fund service",
    "A payment fund account system: merchants, orders and their outcomes.",
    _DESCRIPTION,
    _TAGS,
    problems(),
    SERVICE_EXAMPLES,
    (Event, OrderProblem),
    lambda settings: settings.fund_port,
)
