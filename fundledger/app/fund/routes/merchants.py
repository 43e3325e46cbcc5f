"""Routes of the fund service for merchants, handled by `handlers/merchants.py`: method, path, OpenAPI operation."""

from typing import Final

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import merchants
from fundledger.app.fund.routes.kinds import MERCHANT
from fundledger.app.fund.routes.orders import page
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, no_such, path, shown
from fundledger.app.http.routing import Route
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import MerchantId, MerchantRequest
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Merchants"
_ID: Final = path(MerchantId, "id of the merchant", MERCHANT)
_NO_ACCOUNTS: Final = "Returns `unavailable` if the account service does not answer."
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/merchants",
        merchants.create_merchant,
        ApiClass.ADMIN,
        "create_merchant",
        _TAG,
        "Create a merchant",
        "Also opens the merchant's accounts. The id is the idempotency key: a replay returns 200. " + _NO_ACCOUNTS,
        {
            201: shown(answers.Merchant, "The merchant was created."),
            200: shown(answers.Merchant, "The merchant already exists with the same data."),
            400: CURRENCY_UNKNOWN,
            409: Answer("The merchant already exists with different data.", problems=(Code.MERCHANT_EXISTS,)),
        },
        body=(
            MerchantRequest,
            {"id": MERCHANT, "name": "Tea House", "currency": "CNY", "fee": {"basis_points": 60}},
        ),
    ),
    Route(
        "GET",
        "/v1/merchants",
        merchants.list_merchants,
        ApiClass.LIST,
        "list_merchants",
        _TAG,
        "List merchants",
        "Returns merchants without balances, oldest first.",
        {200: shown(answers.Merchants, "A page of merchants.")},
        page(merchants.LIMIT_DEFAULT, merchants.LIMIT_MAX, "merchants"),
    ),
    Route(
        "GET",
        "/v1/merchants/{id}",
        merchants.get_merchant,
        ApiClass.QUERY,
        "get_merchant",
        _TAG,
        "Read a merchant",
        "Returns the merchant with its balances. " + _NO_ACCOUNTS,
        {200: shown(answers.Merchant, "The merchant."), 404: no_such("merchant")},
        (_ID,),
        whose=merchants.named,
    ),
]
