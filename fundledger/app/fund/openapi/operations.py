"""OpenAPI operations of the fund service: one for each route of routes.py, which a test asserts."""

from typing import Final

from fundledger.app.fund.kinds import KINDS, MERCHANT
from fundledger.app.fund.merchants import LIMIT_DEFAULT as MERCHANTS_DEFAULT
from fundledger.app.fund.merchants import LIMIT_MAX as MERCHANTS_MAX
from fundledger.app.fund.openapi.answers import MERCHANT_ID, ORDER_ID, ORDER_NO, STATE
from fundledger.app.fund.openapi.webhooks import WEBHOOKS
from fundledger.app.fund.orders import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.app.http.openapi.operations import EVENTS_QUERY, SERVICE
from fundledger.app.http.openapi.schemas import UUID, Schema
from fundledger.app.http.openapi.types import (
    FIGURES_WITHHELD,
    Answer,
    Operation,
    no_such,
    path_parameter,
    query_parameter,
    shown,
)
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.order import PLATFORM, Kind
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import REQUESTS

_MERCHANT_PATH: Final = path_parameter(MERCHANT_ID, "id of the merchant", MERCHANT)
_ORDER_PATH: Final = path_parameter(UUID, "id of the order", ORDER_ID)
_FUNDS: Final = ("account-closed", "account-frozen", "balance-out-of-range", "insufficient-funds")
_CURRENCY_UNKNOWN: Final = Answer("The request is malformed.", problems=("currency-unknown",))


def _page(default: int, most: int, what: str) -> tuple[Schema, Schema]:
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return (
        query_parameter("cursor", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "`next_cursor` of the previous page"),
        query_parameter("limit", limit, f"maximum number of {what}"),
    )


def _taken(status: int, codes: tuple[str, ...]) -> dict[int, Answer]:
    """Return the responses of an operation that advances an order. `status`: status of a completed step."""
    repeat = {"Idempotent-Replay": False}
    done = shown(
        "Order", "The step is complete." if status != 201 else "The order is posted; an adjustment is `created`."
    )
    answers = {status: done}
    if status != 200:
        answers[200] = Answer(
            "Replay of an earlier request: the current order.", done.media, {"Idempotent-Replay": True}
        )
    else:
        answers[200] = Answer(
            "The step is complete, now or by an earlier request: the current order.", done.media, repeat
        )
    answers[202] = Answer(
        "The order is stored and its outcome is not known yet. It completes automatically; poll it with GET.",
        done.media,
        repeat,
    )
    answers[422] = Answer(
        "Refused: see the problem's `type`. With `order`, the account service refused it permanently. Without `order`, "
        "nothing is stored.",
        problems=codes,
    )
    return answers


def _currency(kind: Kind) -> dict[int, Answer]:
    named = "currency" in REQUESTS[kind].__struct_fields__
    return {400: _CURRENCY_UNKNOWN} if named else {}


def _of(kind: Kind) -> list[Operation]:
    api, name = KINDS[kind], kind.value
    path = f"/v1/{api.collection}"
    words = name.replace("_", " ")
    codes: tuple[str, ...] = (Code.ORDER_NO_REUSED, *api.refusals, *_FUNDS)
    if "merchant" in REQUESTS[kind].__struct_fields__:
        codes = (Code.MERCHANT_NOT_FOUND, *codes)
    is_ours = RULES[kind].of_platform
    merchant: Schema = {
        **query_parameter(
            "merchant", MERCHANT_ID, f"id of the merchant; default: `{PLATFORM}`" if is_ours else "id of the merchant"
        ),
        "required": not is_ours,
    }
    if not is_ours:
        merchant["example"] = MERCHANT
    found = shown("Order", "The order with `order_no`, or a page of orders.")
    media = {JSON: {"oneOf": [found.media[JSON], shown("Orders", "").media[JSON]]}}
    return [
        Operation(
            "POST",
            path,
            f"post_{name}",
            "Orders",
            api.summary,
            " ".join((REQUESTS[kind].__doc__ or "").split()),
            _taken(201, codes) | _currency(kind),
            body=REQUESTS[kind].__name__,
            example=api.example,
        ),
        Operation(
            "GET",
            path,
            f"list_{api.collection.replace('-', '_')}",
            "Orders",
            f"Find a {words} or list a merchant's orders of this kind",
            "With `order_no`, returns the order with this number. Otherwise returns a page, oldest first.",
            {200: Answer(found.description, media), 404: no_such(words)},
            (
                merchant,
                query_parameter(
                    "order_no", ORDER_NO, "the merchant's own number; cannot be combined with `state` or `cursor`"
                ),
                query_parameter("state", STATE, "return only orders in this state"),
                *_page(LIMIT_DEFAULT, LIMIT_MAX, "orders"),
            ),
        ),
        Operation(
            "GET",
            f"{path}/{{id}}",
            f"get_{name}",
            "Orders",
            f"Read a {words}",
            "Returns the current state of the order.",
            {200: shown("Order", "The order."), 404: no_such(words)},
            (_ORDER_PATH,),
        ),
        Operation(
            "GET",
            f"{path}/{{id}}/history",
            f"get_history_of_{name}",
            "Orders",
            f"Read the history of a {words}",
            "Returns every state that the order entered, oldest first.",
            {200: shown("History", "The states."), 404: no_such(words)},
            (_ORDER_PATH,),
        ),
        Operation(
            "POST",
            f"{path}/{{id}}/retry",
            f"retry_{name}",
            "Orders",
            f"Retry a stuck {words}",
            "Send this after the cause in `problem` was removed. The order returns to its state before `stuck`, and "
            "its next step is repeated. An order that is not stuck is returned unchanged.",
            {**_taken(200, _FUNDS), 404: no_such(words)},
            (_ORDER_PATH,),
            body="RetryBody",
            body_required=False,
            example={"reason": "the account is open again"},
        ),
    ]


_ENDING: Final = (Code.WITHDRAWAL_NOT_POSTED, Code.WITHDRAWAL_PAID, Code.WITHDRAWAL_BOUNCED)
ORDERS: Final = (
    *[operation for kind in Kind for operation in _of(kind)],
    Operation(
        "POST",
        "/v1/payments/batch",
        "post_payments",
        "Orders",
        "Post many payments",
        "1 to 5,000 payments, each posted independently. A malformed payment fails the whole batch with 400, and "
        "nothing is posted. The second of two payments with the same number is a replay or `order-no-reused`.",
        {200: shown("PaymentResults", "The result of each payment."), 400: _CURRENCY_UNKNOWN},
        body="PaymentsBody",
        example={"payments": [{**KINDS[Kind.PAYMENT].example, "order_no": "2026-0003"}]},
        body_bytes_max=BATCH_BODY_BYTES_MAX,
    ),
    Operation(
        "POST",
        "/v1/withdrawals/{id}/paid",
        "withdrawal_paid",
        "Orders",
        "Mark a withdrawal as paid",
        "Records that the channel paid the withdrawal out. Idempotent.",
        {**_taken(200, _ENDING), 404: no_such("withdrawal")},
        (_ORDER_PATH,),
        body="PaidBody",
        example={"channel_ref": "P-20261123-1"},
    ),
    Operation(
        "POST",
        "/v1/withdrawals/{id}/bounced",
        "withdrawal_bounced",
        "Orders",
        "Mark a withdrawal as bounced",
        "Returns the amount and the fee to the merchant. Idempotent.",
        {**_taken(200, _ENDING), 404: no_such("withdrawal")},
        (_ORDER_PATH,),
        body="BouncedBody",
        example={"reason": "account closed"},
    ),
    Operation(
        "POST",
        "/v1/adjustments/{id}/approve",
        "approve_adjustment",
        "Orders",
        "Approve an adjustment",
        "The approver must be a different module or person than the requester. The adjustment is then posted.",
        {**_taken(200, (Code.APPROVAL_NEEDS_ANOTHER, *_FUNDS)), 404: no_such("adjustment")},
        (_ORDER_PATH,),
        body="ApproveBody",
        body_required=False,
        example={"person": "wei.chen"},
    ),
)
_NO_ACCOUNTS: Final = "Returns `unavailable` if the account service does not answer."
MERCHANTS: Final = (
    Operation(
        "POST",
        "/v1/merchants",
        "create_merchant",
        "Merchants",
        "Create a merchant",
        "Also opens the merchant's accounts. The id is the idempotency key: a replay returns 200. " + _NO_ACCOUNTS,
        {
            201: shown("Merchant", "The merchant was created."),
            200: shown("Merchant", "The merchant already exists with the same data."),
            400: _CURRENCY_UNKNOWN,
            409: Answer("The merchant already exists with different data.", problems=(Code.MERCHANT_EXISTS,)),
            500: FIGURES_WITHHELD,
        },
        body="MerchantRequest",
        example={
            "id": MERCHANT,
            "name": "Tea House",
            "currency": "CNY",
            "fee": {"basis_points": 60},
        },
    ),
    Operation(
        "GET",
        "/v1/merchants",
        "list_merchants",
        "Merchants",
        "List merchants",
        "Returns merchants without balances, oldest first.",
        {200: shown("Merchants", "A page of merchants.")},
        _page(MERCHANTS_DEFAULT, MERCHANTS_MAX, "merchants"),
    ),
    Operation(
        "GET",
        "/v1/merchants/{id}",
        "get_merchant",
        "Merchants",
        "Read a merchant",
        "Returns the merchant with its balances. " + _NO_ACCOUNTS,
        {200: shown("Merchant", "The merchant."), 404: no_such("merchant"), 500: FIGURES_WITHHELD},
        (_MERCHANT_PATH,),
    ),
    Operation(
        "POST",
        "/v1/merchants/{id}/fees",
        "add_fee",
        "Merchants",
        "Add a fee rule to a merchant",
        "Earlier rules are kept for the orders charged by them. Not idempotent: each request adds a rule.",
        {
            201: shown("FeeRule", "The rule."),
            404: no_such("merchant"),
            422: Answer("The rule would take effect too soon.", problems=(Code.FEE_RULE_TOO_SOON,)),
        },
        (_MERCHANT_PATH,),
        body="FeeRuleBody",
        example={"product": "withdrawal", "fixed": 100},
    ),
)
STATEMENTS: Final = (
    Operation(
        "POST",
        "/v1/bank-statements",
        "post_bank_statement",
        "Orders",
        "Import a bank statement",
        "Each line is matched with one order. Each difference is posted to suspense once. Channel and statement number "
        "are the idempotency key: a replay returns 200.",
        {
            201: shown("StatementReport", "The result of each line."),
            200: Answer(
                "Replay of an earlier request: the same report.",
                shown("StatementReport", "").media,
                {"Idempotent-Replay": True},
            ),
            400: _CURRENCY_UNKNOWN,
            422: Answer("Refused: nothing is stored.", problems=(Code.STATEMENT_NO_REUSED, Code.CURRENCY_MISMATCH)),
        },
        body="StatementRequest",
        example={
            "channel": "simulator",
            "statement_no": "2026-1123",
            "currency": "CNY",
            "lines": [{"ref": "P-20261123-1", "amount": -5000}],
        },
        body_bytes_max=BATCH_BODY_BYTES_MAX,
    ),
)
EVENTS: Final = (
    Operation(
        "GET",
        "/v1/events",
        "get_events",
        "Events",
        "Read events",
        "Returns events at least once, in order for each order. With `wait_s`, waits for new events if there are none.",
        {200: shown("Events", "A page of events.")},
        EVENTS_QUERY,
    ),
)
OPERATIONS: Final = (
    *MERCHANTS,
    *ORDERS,
    *STATEMENTS,
    *EVENTS,
    *WEBHOOKS,
    *[operation for operation in SERVICE if operation.path != "/debug/hotkeys"],
)
