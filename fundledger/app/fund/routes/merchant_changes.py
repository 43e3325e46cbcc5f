"""Routes of the fund service for changes of merchants and for holidays: path, OpenAPI operation.
`handlers/merchant_changes.py` handles them.
"""

from typing import Final

from fundledger.app.fund.answers import registry
from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import merchant_changes as handlers
from fundledger.app.fund.requests.bodies import ReasonBody
from fundledger.app.fund.routes.kinds import MERCHANT
from fundledger.app.fund.routes.orders import page
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import Answer, Parameter, no_such, path, shown
from fundledger.app.http.routing import Route
from fundledger.fund.model.change_requests import CloseRequest, FeeRuleBody, HolidaysRequest, MerchantPatch
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import MerchantId, Region
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Merchants"
_ID: Final = path(MerchantId, "id of the merchant", MERCHANT)
_NO_MERCHANT: Final = no_such("merchant")
_EITHER: Final = f"{Role.CHECKER} or {Role.OPERATOR}"
_CHANGE: Final = shown(registry.Change, "A change that waits for the approval of another module or person.")
_CLOSED: Final = Answer("The merchant is closed or is being closed.", problems=(Code.MERCHANT_CLOSED,))
_WAITING: Final = Answer("Another change waits.", problems=(Code.CHANGE_WAITING,))
_AWAY: Final = "Returns `unavailable` if the account service does not answer."
_REGION: Final = Parameter("region", "query", Region, "the region", required=True, example="CNY")
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "PATCH",
        "/v1/merchants/{id}",
        handlers.patch_merchant,
        ApiClass.ADMIN,
        "change_merchant",
        _TAG,
        "Change a merchant",
        "Members that are omitted keep their value. A change with `withdrawal_limit`, `fee`, `withdrawal_fee`, "
        "`rolling_basis_points` or `rolling_days` waits for the approval of another module or person. Payments that "
        "exist keep their settlement date. " + _AWAY,
        {
            200: shown(answers.Merchant, "The merchant is changed."),
            202: _CHANGE,
            404: _NO_MERCHANT,
            409: _WAITING,
            422: _CLOSED,
        },
        (_ID,),
        (MerchantPatch, {"settlement": "daily", "settlement_days": 1}),
    ),
    Route(
        "POST",
        "/v1/merchants/{id}/fees",
        handlers.add_fee,
        ApiClass.ADMIN,
        "add_fee",
        _TAG,
        "Request a fee rule of a merchant",
        "The rule exists after another module or person has approved the change. Earlier rules are kept for the orders "
        "charged by them.",
        {
            202: _CHANGE,
            404: _NO_MERCHANT,
            409: _WAITING,
            422: Answer(
                "The rule would take effect too soon, or the merchant is closed.",
                problems=(Code.FEE_RULE_TOO_SOON, Code.MERCHANT_CLOSED),
            ),
        },
        (_ID,),
        (FeeRuleBody, {"product": "withdrawal", "fixed": 100}),
    ),
    Route(
        "POST",
        "/v1/merchants/{id}/suspend",
        handlers.suspend,
        ApiClass.ADMIN,
        "suspend_merchant",
        _TAG,
        "Suspend a merchant",
        "From now on, refunds, split refunds, settlements, withdrawals and transfers are refused, and no payout of a "
        "withdrawal is sent. Refunds that are posted already are sent. Facts and corrections are still accepted. "
        "Idempotent. " + _AWAY,
        {200: shown(answers.Merchant, "The merchant is suspended."), 404: _NO_MERCHANT, 422: _CLOSED},
        (_ID,),
        (ReasonBody, {"reason": "suspected fraud, case 17"}),
        role=_EITHER,
    ),
    Route(
        "POST",
        "/v1/merchants/{id}/resume",
        handlers.resume,
        ApiClass.ADMIN,
        "resume_merchant",
        _TAG,
        "Resume a merchant",
        "Ends a suspension. A merchant that is being closed can be resumed until its first account is closed. "
        "Idempotent. " + _AWAY,
        {200: shown(answers.Merchant, "The merchant is open."), 404: _NO_MERCHANT, 422: _CLOSED},
        (_ID,),
        (ReasonBody, {"reason": "case 17 is closed"}),
        role=_EITHER,
    ),
    Route(
        "POST",
        "/v1/merchants/{id}/close",
        handlers.close,
        ApiClass.ADMIN,
        "close_merchant",
        _TAG,
        "Close a merchant",
        "With `final`, pending payments are settled and the available balance is withdrawn. When nothing is left, the "
        "accounts are closed, which is permanent. Later payments and chargebacks are parked. Idempotent. " + _AWAY,
        {
            200: shown(answers.Merchant, "The merchant is closed."),
            202: shown(answers.Merchant, "The merchant is being closed."),
            404: _NO_MERCHANT,
            422: Answer(
                "The merchant is not closed.",
                problems=(
                    *(Code.MERCHANT_NOT_EMPTY, Code.MERCHANT_SUSPENDED, Code.CHANNEL_NOT_FOUND),
                    *(Code.CHANNEL_CLOSED, Code.PAYEE_REQUIRED, Code.PAYEE_NOT_FOUND),
                ),
            ),
        },
        (_ID,),
        (CloseRequest, {"reason": "contract has ended", "final": {"channel": "simulator"}}),
        role=_EITHER,
    ),
    Route(
        "GET",
        "/v1/merchants/{id}/history",
        handlers.get_history,
        ApiClass.QUERY,
        "get_history_of_merchant",
        _TAG,
        "Read the history of a merchant",
        "Returns each change of the merchant with who and why, oldest first.",
        {200: shown(registry.MerchantHistory, "A page of events."), 404: _NO_MERCHANT},
        (_ID, *page(handlers.LIMIT_DEFAULT, handlers.LIMIT_MAX, "events")),
    ),
    Route(
        "GET",
        "/v1/holidays",
        handlers.get_holidays,
        ApiClass.LIST,
        "get_holidays",
        _TAG,
        "Read the holidays of a region",
        "Returns the days that differ from the rule of weekends. They determine settlements after working days.",
        {200: shown(registry.Holidays, "The recorded days, in order.")},
        (_REGION,),
    ),
    Route(
        "POST",
        "/v1/holidays",
        handlers.post_holidays,
        ApiClass.ADMIN,
        "request_holidays",
        _TAG,
        "Request holidays of a region",
        "The days are recorded after another module or person has approved the change. Payments that exist keep their "
        "settlement date.",
        {202: _CHANGE, 409: _WAITING},
        (),
        (HolidaysRequest, {"region": "CNY", "days": [{"day": "2026-10-01", "name": "National Day"}]}),
    ),
]
