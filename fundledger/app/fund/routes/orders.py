"""Routes of the fund service for orders: method, path, class, OpenAPI operation.

Each kind of order has the routes that `_of` returns. Some kinds have further routes. `handlers/orders.py` handles
posting and reading. `handlers/withdrawals.py` handles the later steps of an order.
"""

from collections.abc import Iterator
from typing import Annotated, Final

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import orders, withdrawals
from fundledger.app.fund.requests.bodies import (
    BouncedBody,
    EmptyBody,
    LostBody,
    PaidBody,
    PaymentsBody,
    RetryBody,
    WithdrawalsBody,
)
from fundledger.app.fund.routes.kinds import KINDS, MERCHANT, one_of
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, Parameter, count, no_such, path, query, shown
from fundledger.app.http.problems import PROBLEM_TYPE
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.order import PLATFORM, REFUNDS, SENDING, Kind
from fundledger.fund.model.order_json import Order, StateName
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.requests import MerchantId, OrderNo
from fundledger.json_values import Uuid, about
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Orders"
ID: Final = path(Uuid, "id of the order", "e7a4c3e6-2a63-8d53-94dd-28fb4eb9a3ba")
FUNDS: Final = ("account-closed", "account-frozen", "balance-out-of-range", "insufficient-funds")
_ENDING: Final = {
    Kind.WITHDRAWAL: (Code.WITHDRAWAL_NOT_POSTED, Code.WITHDRAWAL_PAID, Code.WITHDRAWAL_BOUNCED),
    **dict.fromkeys(REFUNDS, (Code.REFUND_NOT_POSTED, Code.REFUND_PAID, Code.REFUND_BOUNCED)),
}
_PAID_REFS: Final = {
    Kind.WITHDRAWAL: "P-20261123-1",
    Kind.REFUND: "B-20261123-1",
    Kind.SPLIT_REFUND: "B-20261123-2",
}
"""The references of the examples: a reference of a channel counts once."""
_ENDED: Final = (Code.ORDER_NOT_POSTED, Code.ORDER_ENDED, Code.RECEIPT_ALREADY_BOOKED)


def page(default: int, most: int, items: str) -> tuple[Parameter, Parameter]:
    """Return the query parameters of a list that is returned in pages."""
    cursor = Annotated[str, about(pattern="^[0-9]{1,18}$")]
    return query("cursor", cursor, "`next_cursor` of the previous page"), count(default, most, items)


def taken(codes: tuple[str, ...]) -> dict[int, Answer]:
    """Return the responses, by status, of an operation that advances an order."""
    order, repeat = {JSON: Order}, {"Idempotent-Replay": False}
    return {
        200: Answer("The step is complete, now or by an earlier request: the current order.", order, repeat),
        202: Answer(
            "The order is stored and its outcome is not known yet. It completes automatically; poll it with GET.",
            order,
            repeat,
        ),
        422: Answer(
            "Refused: see the problem's `type`. With `order`, the account service refused it permanently. Without "
            "`order`, nothing is stored.",
            {PROBLEM_TYPE: answers.RefusedOrder},
            problems=codes,
        ),
    }


_POSTED: Final = {
    201: shown(Order, "The order is posted; an order that needs an approval is `created`."),
    200: Answer("Replay of an earlier request: the current order.", {JSON: Order}, {"Idempotent-Replay": True}),
}


def _of(kind: Kind) -> Iterator[Route[FundService]]:
    api, name, request = KINDS[kind], kind.value, REQUESTS[kind]
    template, collection = f"/v1/{api.collection}", api.collection.replace("-", "_")
    words = name.replace("_", " ")
    codes: tuple[str, ...] = (Code.ORDER_NO_REUSED, *api.refusals, *FUNDS)
    if "merchant" in request.__struct_fields__:
        codes = (Code.MERCHANT_NOT_FOUND, *codes)
    if "channel" in request.__struct_fields__:
        codes = (Code.CHANNEL_NOT_FOUND, *codes)
    unknown = {400: CURRENCY_UNKNOWN} if "currency" in request.__struct_fields__ else {}
    not_found = {404: no_such(words)}
    yield Route(
        "POST",
        template,
        orders.posting(kind),
        api.api_class,
        f"post_{name}",
        _TAG,
        api.summary,
        " ".join((request.__doc__ or "").split()),
        {**taken(codes), **_POSTED, **unknown},
        body=(request, api.example),
        enters=True,
        by_body=kind is Kind.PAYMENT,
    )
    if RULES[kind].of_platform:
        merchant = query("merchant", MerchantId, f"id of the merchant; default: `{PLATFORM}`")
    else:
        merchant = Parameter("merchant", "query", MerchantId, "id of the merchant", required=True, example=MERCHANT)
    # The handler sets the API class: QUERY if the query names one order, else LIST.
    yield Route(
        "GET",
        template,
        orders.listing(kind),
        ApiClass.LIST,
        f"list_{collection}",
        _TAG,
        f"Find {one_of(kind)} or list a merchant's orders of this kind",
        "With `order_no`, returns the order with this number. Otherwise returns a page, oldest first.",
        {200: shown((Order, answers.Orders), "The order with `order_no`, or a page of orders."), **not_found},
        (
            merchant,
            query("order_no", OrderNo, "the merchant's own number; cannot be combined with `state` or `cursor`"),
            query("state", StateName, "return only orders in this state"),
            *page(orders.LIMIT_DEFAULT, orders.LIMIT_MAX, "orders"),
        ),
        enters=True,
        by_body=True,
    )
    yield Route(
        "GET",
        f"{template}/{{id}}",
        orders.getting(kind),
        ApiClass.QUERY,
        f"get_{name}",
        _TAG,
        f"Read {one_of(kind)}",
        "Returns the current state of the order.",
        {200: shown(Order, "The order."), **not_found},
        (ID,),
    )
    yield Route(
        "GET",
        f"{template}/{{id}}/history",
        orders.history(kind),
        ApiClass.QUERY,
        f"get_history_of_{name}",
        _TAG,
        f"Read the history of {one_of(kind)}",
        "Returns every state that the order entered, oldest first.",
        {200: shown(answers.History, "The states."), **not_found},
        (ID,),
    )
    yield Route(
        "POST",
        f"{template}/{{id}}/retry",
        withdrawals.retrying(kind),
        ApiClass.ADMIN,
        f"retry_{name}",
        _TAG,
        f"Retry {one_of(kind, 'stuck')}",
        "Send this after the cause in `problem` was removed. The order returns to its state before `stuck`, and its "
        "next step is repeated. An order that is not stuck is returned unchanged.",
        {**taken(FUNDS), **not_found},
        (ID,),
        (RetryBody, {"reason": "the account is open again"}),
        enters=True,
        role=Role.OPERATOR,
    )


def _ends_of(kind: Kind) -> Iterator[Route[FundService]]:
    """Return the routes that end an order of a kind with the states `paid` and `bounced`."""
    template, words = f"/v1/{KINDS[kind].collection}/{{id}}", kind.value.replace("_", " ")
    responses = {404: no_such(words)}
    yield Route(
        "POST",
        f"{template}/paid",
        withdrawals.paid(kind),
        ApiClass.CONFIRM,
        f"{kind.value}_paid",
        _TAG,
        f"Mark a {words} as paid",
        f"Records that the channel paid the {words} out. Idempotent.",
        {**taken((*_ENDING[kind], Code.RECEIPT_ALREADY_BOOKED)), **responses},
        (ID,),
        (PaidBody, {"channel_ref": _PAID_REFS[kind]}),
        enters=True,
        role=Role.OPERATOR,
    )
    yield Route(
        "POST",
        f"{template}/bounced",
        withdrawals.bounced(kind),
        ApiClass.CONFIRM,
        f"{kind.value}_bounced",
        _TAG,
        f"Mark a {words} as bounced",
        "Returns the money to the merchant, as it was before the order. Idempotent.",
        {**taken((*_ENDING[kind], Code.RECEIPT_ALREADY_BOOKED)), **responses},
        (ID,),
        (BouncedBody, {"reason": "account closed"}),
        enters=True,
        role=Role.OPERATOR,
    )


ROUTES: Final[list[Route[FundService]]] = [
    *[route for kind in Kind for route in _of(kind)],
    Route(
        "POST",
        "/v1/payments/batch",
        orders.post_payments,
        ApiClass.BATCH,
        "post_payments",
        _TAG,
        "Post many payments",
        "1 to 5,000 payments, each posted independently. A malformed payment fails the whole batch with 400, and "
        "nothing is posted. The second of two payments with the same number is a replay or `order-no-reused`.",
        {200: shown(answers.PaymentResults, "The result of each payment."), 400: CURRENCY_UNKNOWN},
        body=(PaymentsBody, {"payments": [{**KINDS[Kind.PAYMENT].example, "order_no": "2026-0003"}]}),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        enters=True,
    ),
    *[route for kind in SENDING for route in _ends_of(kind)],
    Route(
        "POST",
        "/v1/withdrawals/batch",
        orders.post_withdrawals,
        ApiClass.BATCH,
        "post_withdrawals",
        _TAG,
        "Post many withdrawals",
        "1 to 5,000 withdrawals, each posted independently. A malformed withdrawal fails the whole batch with 400, and "
        "nothing is posted. The second of two withdrawals with the same number is a replay or `order-no-reused`.",
        {200: shown(answers.WithdrawalResults, "The result of each withdrawal.")},
        body=(WithdrawalsBody, {"withdrawals": [{**KINDS[Kind.WITHDRAWAL].example, "order_no": "2026-0004"}]}),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        enters=True,
    ),
    Route(
        "POST",
        "/v1/own-transfers/{id}/paid",
        withdrawals.paid(Kind.OWN_TRANSFER),
        ApiClass.CONFIRM,
        "own_transfer_paid",
        _TAG,
        "Mark an own transfer as paid",
        "Records that the money has arrived at the channel `channel`, under the reference of that channel. Idempotent.",
        {**taken(_ENDED), 404: no_such("own transfer")},
        (ID,),
        (PaidBody, {"channel_ref": "R-20261123-1"}),
        enters=True,
        role=Role.OPERATOR,
    ),
    Route(
        "POST",
        "/v1/own-transfers/{id}/bounced",
        withdrawals.bounced(Kind.OWN_TRANSFER),
        ApiClass.CONFIRM,
        "own_transfer_bounced",
        _TAG,
        "Mark an own transfer as bounced",
        "Records that the money has come back to the channel that it left. Idempotent.",
        {**taken(_ENDED), 404: no_such("own transfer")},
        (ID,),
        (BouncedBody, {"reason": "account closed"}),
        enters=True,
        role=Role.OPERATOR,
    ),
    Route(
        "POST",
        "/v1/disputes/{id}/won",
        withdrawals.won,
        ApiClass.CONFIRM,
        "won_dispute",
        _TAG,
        "Mark a dispute as won",
        "Returns the amount of an open dispute to the merchant. Idempotent.",
        {**taken(_ENDED), 404: no_such("dispute")},
        (ID,),
        (EmptyBody, {}),
        enters=True,
        role=Role.OPERATOR,
    ),
    Route(
        "POST",
        "/v1/disputes/{id}/lost",
        withdrawals.lost,
        ApiClass.CONFIRM,
        "lost_dispute",
        _TAG,
        "Mark a dispute as lost",
        "Records that the payer's bank has taken the amount. The dispute is the chargeback of its payment. Idempotent.",
        {**taken(_ENDED), 404: no_such("dispute")},
        (ID,),
        (LostBody, {"channel_ref": "C-20261123-1"}),
        enters=True,
        role=Role.OPERATOR,
    ),
]
