"""The fund service's own description: as the account service's, of its own operations."""

import textwrap
from typing import Any, Final

from fundledger.app.fund.openapi_answers import SCHEMAS
from fundledger.app.fund.openapi_operations import OPERATIONS
from fundledger.app.fund.problems import ADVICE, REFUSALS
from fundledger.app.openapi import About, Pages, document_of
from fundledger.app.openapi_problems import OTHERS, Problem
from fundledger.app.openapi_problems import problems as account_problems
from fundledger.app.openapi_types import SERVICE_TAG
from fundledger.fund.refusal import Code

POSTING: Final = (
    "voucher-already-reversed",
    "account-closed",
    "account-frozen",
    "balance-out-of-range",
    "insufficient-funds",
)
"""What the account service may refuse an order with."""
_ABOUT = textwrap.dedent("""
    What payments, refunds, settlements and withdrawals mean: orders of merchants, each of which becomes a voucher in
    the account service.

    An order is named by its merchant, its kind and its `order_no`: that is its idempotency key, for ever. After a
    timeout or a 503, send the same request again: it answers the order as it stands, with `Idempotent-Replay: true`.

    202: what was asked for is kept, and it is not certain yet what becomes of it. It ends by itself; a GET, or the same
    request, tells. A refusal is 422: of one that the fund service gives, nothing is kept and the number is free; one of
    the account service comes with the `order`, whose state is `refused` for ever.

    Amounts are whole numbers in minor units, 1 to 2^53-1. Times are RFC 3339, in UTC. Request bodies are JSON in UTF-8,
    uncompressed; a member that is not known here is refused.

    Errors are `application/problem+json` (RFC 9457); the problem types are listed below. 429 is the caller's quota, 503
    our capacity: wait for `Retry-After` seconds, then send the same request.
""").strip()
_TAGS: Final = {
    "Merchants": "Who is paid, and what it costs.",
    "Orders": "What is asked for, by the merchant's own number.",
    "Events": "What happened.",
    "Webhooks": "Where a merchant is told what happened.",
    SERVICE_TAG: "What is not money.",
}


def problems() -> list[Problem]:
    """Refusals of the fund service in the order of their table, those of the account service, then everything else."""
    # Whose outcome is final is the order; of a refusal without an order there is none.
    own = [Problem(str(code), *REFUSALS[code], final=False, advice=ADVICE[code]) for code in Code]
    passed_on = [problem for problem in account_problems() if problem.name in POSTING]
    others = [
        Problem(name, o.status, o.title, None, o.advice, o.prefix)
        for name, o in OTHERS.items()
        if name != "account-exists"
    ]
    return own + passed_on + others


def document() -> dict[str, Any]:
    summary = "A payment fund account system: merchants, orders, and what became of them."
    return document_of(About("fundledger fund service", summary, _ABOUT, _TAGS, OPERATIONS, SCHEMAS, problems()))


PAGES: Final = Pages(document, lambda settings: settings.fund_port)
