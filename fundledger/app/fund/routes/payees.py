"""Routes of the fund service for payees, handled by `handlers/payees.py`: method, path, OpenAPI operation."""

from typing import Final

from fundledger.app.fund.answers import payees as answers
from fundledger.app.fund.answers import registry
from fundledger.app.fund.handlers import payees
from fundledger.app.fund.handlers.merchants import named
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.app.fund.requests.bodies import DisablePayeeBody
from fundledger.app.fund.routes.kinds import MERCHANT
from fundledger.app.fund.routes.orders import page
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, no_such, path, shown
from fundledger.app.http.routing import Route
from fundledger.fund.model.payee import PayeeRequest
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import MerchantId
from fundledger.json_values import Uuid
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Payees"
_ID: Final = path(MerchantId, "id of the merchant", MERCHANT)
_PAYEE: Final = path(Uuid, "id of the payee", "0190b0a5-3c1e-4d52-9c3a-5b7f2d6e8a15", "payee")
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/merchants/{id}/payees",
        payees.post_payee,
        ApiClass.ADMIN,
        "create_payee",
        _TAG,
        "Request a new payee",
        "The change waits for the approval of another module or person. The payee gets the id of the change. "
        "Withdrawals to it are accepted after a cooling time, which begins with the approval.",
        {
            202: shown(registry.Change, "The change, with a masked account number."),
            400: CURRENCY_UNKNOWN,
            404: no_such("merchant"),
            409: Answer(
                "The account is a payee of the merchant, or another change of the account waits.",
                problems=(Code.PAYEE_EXISTS, Code.TOO_MANY_PAYEES, Code.CHANGE_WAITING),
            ),
            422: Answer(
                "The currency differs, or the payee to be replaced is not active.",
                problems=(Code.CURRENCY_MISMATCH, Code.PAYEE_NOT_FOUND),
            ),
        },
        (_ID,),
        (PayeeRequest, {"holder": "Tea House Ltd", "currency": "CNY", "iban": "DE89 3704 0044 0532 0130 00"}),
        whose=named,
    ),
    Route(
        "GET",
        "/v1/merchants/{id}/payees",
        payees.list_payees,
        ApiClass.LIST,
        "list_payees",
        _TAG,
        "List the payees of a merchant",
        "Returns a page of payees with masked account numbers, also disabled ones.",
        {200: shown(answers.Payees, "A page of payees."), 404: no_such("merchant")},
        (_ID, *page(LIMIT_DEFAULT, LIMIT_MAX, "payees")),
        whose=named,
    ),
    Route(
        "GET",
        "/v1/merchants/{id}/payees/{payee}",
        payees.get_payee,
        ApiClass.QUERY,
        "get_payee",
        _TAG,
        "Read a payee",
        "Returns the payee with its whole account number.",
        {200: shown(answers.Payee, "The payee."), 404: no_such("payee")},
        (_ID, _PAYEE),
        whose=named,
    ),
    Route(
        "POST",
        "/v1/merchants/{id}/payees/{payee}/disable",
        payees.disable_payee,
        ApiClass.ADMIN,
        "disable_payee",
        _TAG,
        "Disable a payee",
        "Takes effect immediately, and permanently. A withdrawal to the payee that is not sent yet is returned to the "
        "merchant by the next run of the job `payouts` or by the next export. If the channel is `manual`, report it as "
        "bounced. Idempotent.",
        {200: shown(answers.Payee, "The payee."), 404: no_such("payee")},
        (_ID, _PAYEE),
        (DisablePayeeBody, {"reason": "the account is closed"}),
        whose=named,
        role=Role.OPERATOR,
    ),
]
