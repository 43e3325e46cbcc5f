"""Description of the account service in its OpenAPI document, and its problem types."""

import textwrap
from typing import Final

from fundledger.app.account.answers.problems import ADVICE, REFUSALS
from fundledger.app.account.answers.structs import Event
from fundledger.app.account.openapi.examples import EXAMPLES
from fundledger.app.http.openapi.document import About
from fundledger.app.http.openapi.problems import OTHERS, ProblemType
from fundledger.app.http.openapi.types import SERVICE_TAG
from fundledger.ledger.model.refusal import FINAL, Code

_DESCRIPTION: Final = textwrap.dedent("""
    Durable double-entry accounts. Money moves by vouchers: 2 to 64 entries whose debits equal their credits.
    The answer to a voucher is sent after it has been committed.

    Amounts are whole numbers in minor units, 1 to 2^53-1. Times are RFC 3339, in UTC. Request bodies are JSON in UTF-8,
    uncompressed; unknown members are rejected.

    Ids are idempotency keys and never expire. After a timeout or a 503, send the same request again: the answer is the
    true outcome. A refusal that depends on state (funds, status, holds) is final for its id: a replay gets the same
    refusal.

    Errors are `application/problem+json` (RFC 9457); the problem types are listed below. A method that a path does not
    support is answered 405 with `Allow`. 500 `integrity`: stored rows fail verification, so their figures are withheld.
    Any other 500 is a defect.

    429: the caller's quota is exhausted. 503: the service is at capacity or unavailable. In both cases nothing was
    done, unless the problem type is `outcome-unknown`. Wait for `Retry-After` seconds, then send the same request with
    the same id. A replay is answered from its record and is not charged.
""").strip()
_TAGS: Final = {
    "Accounts": "Balances in one currency.",
    "Vouchers": "Balanced, immutable records of money movements.",
    "Holds": "Amounts set aside until capture, release or expiry.",
    "Events": "The feed of posted and refused vouchers.",
    SERVICE_TAG: "Health, metrics, limits and documentation.",
}
_ACCOUNT_EXISTS: Final = ProblemType(
    "account-exists",
    409,
    "The account exists with different properties",
    "Read the account that has the id, or choose a different id.",
)


def problems() -> list[ProblemType]:
    """Return the refusals in order of precedence, then all other problems by status."""
    refusals = [ProblemType(str(code), *REFUSALS[code], ADVICE[code], code in FINAL) for code in Code]
    return refusals + sorted((*OTHERS, _ACCOUNT_EXISTS), key=lambda problem: problem.status)


ABOUT: Final = About(
    "fundledger account service",
    "A payment fund account system: durable double-entry accounts on stock Postgres.",
    _DESCRIPTION,
    _TAGS,
    problems(),
    EXAMPLES,
    (Event,),
    lambda settings: settings.port,
)
