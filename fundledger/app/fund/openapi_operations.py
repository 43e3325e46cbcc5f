"""The operations of the fund service's OpenAPI file: one a route of routes.py, which a test sees to."""

from typing import Any, Final

from fundledger.app.fund.events import LIMIT_DEFAULT as EVENTS_DEFAULT
from fundledger.app.fund.events import LIMIT_MAX as EVENTS_MAX
from fundledger.app.fund.events import WAIT_S_MAX
from fundledger.app.fund.merchants import LIMIT_DEFAULT as MERCHANTS_DEFAULT
from fundledger.app.fund.merchants import LIMIT_MAX as MERCHANTS_MAX
from fundledger.app.fund.openapi_answers import MERCHANT_ID, ORDER_ID, ORDER_NO, STATE
from fundledger.app.fund.openapi_webhooks import WEBHOOKS
from fundledger.app.fund.orders import LIMIT_DEFAULT, LIMIT_MAX, NAMES, OF_THE_PLATFORM
from fundledger.app.openapi_operations import UNVERIFIED
from fundledger.app.openapi_schemas import UUID, Schema
from fundledger.app.openapi_service import SERVICE
from fundledger.app.openapi_types import Answer, Operation, no_such, path_parameter, query_parameter, shown
from fundledger.app.reply import JSON
from fundledger.app.routing import BATCH_BODY_BYTES_MAX
from fundledger.fund.order import PLATFORM, Kind
from fundledger.fund.refusal import Code
from fundledger.fund.requests import REQUESTS

_MERCHANT: Final = "10001"
_MERCHANT_PATH: Final = path_parameter(MERCHANT_ID, "id of the merchant", _MERCHANT)
_ORDER_PATH: Final = path_parameter(UUID, "id of the order", ORDER_ID)
_FUNDS: Final = ("account-closed", "account-frozen", "balance-out-of-range", "insufficient-funds")
_CURRENCY_UNKNOWN: Final = Answer("The request is malformed.", problems=("currency-unknown",))
_NAMED: Final = {"merchant": _MERCHANT, "order_no": "2026-0001"}
_EXAMPLES: Final[dict[Kind, dict[str, Any]]] = {
    Kind.PAYMENT: {**_NAMED, "amount": 10000, "currency": "CNY", "channel": "simulator"},
    Kind.REFUND: {**_NAMED, "payment_order_no": "2026-0001", "amount": 2500},
    Kind.SETTLEMENT: _NAMED,
    Kind.WITHDRAWAL: {**_NAMED, "amount": 5000, "channel": "simulator"},
    Kind.CHARGEBACK: {**_NAMED, "payment_order_no": "2026-0001", "amount": 1000},
    Kind.RECOVERY: {**_NAMED, "amount": 500},
    Kind.WRITE_OFF: {**_NAMED, "amount": 500, "reason": "closed its shop"},
    Kind.ADJUSTMENT: {**_NAMED, "amount": 100, "direction": "credit", "reason": "slip 17", "person": "an.li"},
    Kind.CHANNEL_COST: {"order_no": "2026-0001", "channel": "simulator", "amount": 30, "currency": "CNY"},
    Kind.BANK_DIFFERENCE: {
        "order_no": "2026-0001",
        "channel": "simulator",
        "amount": 7,
        "currency": "CNY",
        "direction": "more",
        "reason": "statement of 2026-11-23",
    },
    Kind.REVERSAL: {**_NAMED, "of_kind": "payment", "of_order_no": "2026-0002", "reason": "sent twice"},
}
_SUMMARIES: Final[dict[Kind, str]] = {
    Kind.PAYMENT: "Post a payment that its channel has confirmed",
    Kind.REFUND: "Refund a payment, in whole or in part",
    Kind.SETTLEMENT: "Settle payments that were to be settled later",
    Kind.WITHDRAWAL: "Pay out what a merchant has",
    Kind.CHARGEBACK: "Book what a payer's bank took back",
    Kind.RECOVERY: "Let a merchant pay what he owes",
    Kind.WRITE_OFF: "Give up what a merchant owes",
    Kind.ADJUSTMENT: "Ask for a correction of what a merchant has",
    Kind.CHANNEL_COST: "Book what a channel charges",
    Kind.BANK_DIFFERENCE: "Book a difference of a bank into suspense",
    Kind.REVERSAL: "Undo an order that nothing was built on",
}
_PAYMENT: Final = (Code.PAYMENT_NOT_FOUND, Code.PAYMENT_NOT_POSTED, Code.ORDER_ALREADY_REVERSED)
_CODES: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.PAYMENT: (Code.CURRENCY_MISMATCH,),
    Kind.REFUND: (*_PAYMENT, Code.PAYMENT_BEING_SETTLED, Code.REFUND_EXCEEDS_PAYMENT),
    Kind.SETTLEMENT: (Code.NOTHING_TO_SETTLE, Code.SETTLEMENT_EXCEEDS_PENDING),
    Kind.WITHDRAWAL: (Code.WITHDRAWAL_LIMIT_EXCEEDED,),
    Kind.CHARGEBACK: (*_PAYMENT, Code.CHARGEBACK_EXCEEDS_PAYMENT),
    Kind.RECOVERY: (),
    Kind.WRITE_OFF: (),
    Kind.ADJUSTMENT: (),
    Kind.CHANNEL_COST: (),
    Kind.BANK_DIFFERENCE: (),
    Kind.REVERSAL: (
        Code.ORDER_NOT_FOUND,
        Code.ORDER_NOT_REVERSIBLE,
        Code.ORDER_ALREADY_REVERSED,
        "voucher-already-reversed",
    ),
}


def _page(default: int, most: int, what: str) -> tuple[Schema, Schema]:
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return (
        query_parameter("cursor", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "`next_cursor` of the page before"),
        query_parameter("limit", limit, f"how many {what} at most"),
    )


def _taken(status: int, codes: tuple[str, ...]) -> dict[int, Answer]:
    """The answers of what moves an order on. `status`: when it is done."""
    repeat = {"Idempotent-Replay": False}
    done = shown(
        "Order", "It is done: the order." if status != 201 else "The order, posted; an adjustment is `created`."
    )
    answers = {status: done}
    if status != 200:
        answers[200] = Answer(
            "It was asked for before: the order as it stands.", done.media, {"Idempotent-Replay": True}
        )
    else:
        answers[200] = Answer("It is done, or was before: the order as it stands.", done.media, repeat)
    answers[202] = Answer("It is kept, and not certain yet: it ends by itself, a GET tells.", done.media, repeat)
    answers[422] = Answer(
        "No: see the problem's `type`. With `order`: the account service refused it for ever; else nothing is kept.",
        problems=codes,
    )
    return answers


def _currency(kind: Kind) -> dict[int, Answer]:
    named = "currency" in REQUESTS[kind].__struct_fields__
    return {400: _CURRENCY_UNKNOWN} if named else {}


def _of(kind: Kind) -> list[Operation]:
    path, name = f"/v1/{NAMES[kind]}", kind.value
    words = name.replace("_", " ")
    codes: tuple[str, ...] = (Code.ORDER_NO_REUSED, *_CODES[kind], *_FUNDS)
    if "merchant" in REQUESTS[kind].__struct_fields__:
        codes = (Code.MERCHANT_NOT_FOUND, *codes)
    is_ours = kind in OF_THE_PLATFORM
    merchant: Schema = {
        **query_parameter("merchant", MERCHANT_ID, f"whose; left out: `{PLATFORM}`" if is_ours else "whose"),
        "required": not is_ours,
    }
    if not is_ours:
        merchant["example"] = _MERCHANT
    found = shown("Order", "With `order_no` the order, else a page of them.")
    media = {JSON: {"oneOf": [found.media[JSON], shown("Orders", "").media[JSON]]}}
    return [
        Operation(
            "POST",
            path,
            f"post_{name}",
            "Orders",
            _SUMMARIES[kind],
            " ".join((REQUESTS[kind].__doc__ or "").split()),
            _taken(201, codes) | _currency(kind),
            body=REQUESTS[kind].__name__,
            example=_EXAMPLES[kind],
        ),
        Operation(
            "GET",
            path,
            f"list_{NAMES[kind].replace('-', '_')}",
            "Orders",
            f"Find a {words}, or list them",
            "By `order_no` the one that has it; else a merchant's, oldest first.",
            {200: Answer(found.description, media), 404: no_such(words)},
            (
                merchant,
                query_parameter("order_no", ORDER_NO, "the merchant's own number; not with `state` or `cursor`"),
                query_parameter("state", STATE, "only those that are in it now"),
                *_page(LIMIT_DEFAULT, LIMIT_MAX, "orders"),
            ),
        ),
        Operation(
            "GET",
            f"{path}/{{id}}",
            f"get_{name}",
            "Orders",
            f"Read a {words}",
            "As it stands.",
            {200: shown("Order", "The order."), 404: no_such(words)},
            (_ORDER_PATH,),
        ),
        Operation(
            "GET",
            f"{path}/{{id}}/history",
            f"get_history_of_{name}",
            "Orders",
            f"Read the history of a {words}",
            "Every state that it went into.",
            {200: shown("History", "Its states."), 404: no_such(words)},
            (_ORDER_PATH,),
        ),
        Operation(
            "POST",
            f"{path}/{{id}}/retry",
            f"retry_{name}",
            "Orders",
            f"Retry a stuck {words}",
            "Send it when the cause in `problem` is removed: the order goes back to the state that it came from, and "
            "its next step is done. Any other order is answered as it stands.",
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
        "1 to 5,000 at once; each stands alone. One that is no payment at all makes the whole batch 400: nothing is "
        "posted then. Of two with one number the second is a repeat of the first, or `order-no-reused`.",
        {200: shown("PaymentResults", "What became of each."), 400: _CURRENCY_UNKNOWN},
        body="PaymentsBody",
        example={"payments": [{**_EXAMPLES[Kind.PAYMENT], "order_no": "2026-0003"}]},
        body_bytes_max=BATCH_BODY_BYTES_MAX,
    ),
    Operation(
        "POST",
        "/v1/withdrawals/{id}/paid",
        "withdrawal_paid",
        "Orders",
        "A withdrawal was paid out",
        "By its channel. Once: the same again answers the order as it stands.",
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
        "A withdrawal came back",
        "The merchant has the money again, and the fee. Once, as above.",
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
        "By another module, or another person, than asked for it; then it is posted.",
        {**_taken(200, (Code.APPROVAL_NEEDS_ANOTHER, *_FUNDS)), 404: no_such("adjustment")},
        (_ORDER_PATH,),
        body="ApproveBody",
        body_required=False,
        example={"person": "wei.chen"},
    ),
)
_NO_ACCOUNTS: Final = "`unavailable` also while the account service does not answer."
MERCHANTS: Final = (
    Operation(
        "POST",
        "/v1/merchants",
        "create_merchant",
        "Merchants",
        "Create a merchant",
        "Opens his accounts, too. The id is the idempotency key: the same request again answers 200. " + _NO_ACCOUNTS,
        {
            201: shown("Merchant", "He is there."),
            200: shown("Merchant", "He was there, as asked for."),
            400: _CURRENCY_UNKNOWN,
            409: Answer("It exists with other content.", problems=(Code.MERCHANT_EXISTS,)),
            500: UNVERIFIED,
        },
        body="MerchantRequest",
        example={
            "id": _MERCHANT,
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
        "Oldest first, without balances.",
        {200: shown("Merchants", "A page.")},
        _page(MERCHANTS_DEFAULT, MERCHANTS_MAX, "merchants"),
    ),
    Operation(
        "GET",
        "/v1/merchants/{id}",
        "get_merchant",
        "Merchants",
        "Read a merchant",
        "With what he has. " + _NO_ACCOUNTS,
        {200: shown("Merchant", "The merchant."), 404: no_such("merchant"), 500: UNVERIFIED},
        (_MERCHANT_PATH,),
    ),
    Operation(
        "POST",
        "/v1/merchants/{id}/fees",
        "add_fee",
        "Merchants",
        "Charge a merchant otherwise",
        "A new rule; those before stay, for what was charged by them. Asked for twice, there are two.",
        {
            201: shown("FeeRule", "The rule."),
            404: no_such("merchant"),
            422: Answer("It would take effect too soon.", problems=(Code.FEE_RULE_TOO_SOON,)),
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
        "Hold a bank's statement against the books",
        "Each line is held against one order; what is left is booked to suspense, once. A statement is named by its "
        "channel and number: the same again is answered 200.",
        {
            201: shown("StatementReport", "What became of each line."),
            200: Answer(
                "It was sent before: as it stands.",
                shown("StatementReport", "").media,
                {"Idempotent-Replay": True},
            ),
            400: _CURRENCY_UNKNOWN,
            422: Answer("No: nothing is kept.", problems=(Code.STATEMENT_NO_REUSED, Code.CURRENCY_MISMATCH)),
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
        "Read what happened",
        "At least once, ordered per order. With `wait_s`, who has heard everything waits for more.",
        {200: shown("Events", "A page.")},
        (
            query_parameter("after", {"type": "integer", "minimum": 0}, "`seq` of the last one that you know"),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": EVENTS_MAX, "default": EVENTS_DEFAULT},
                "how many events at most",
            ),
            query_parameter("wait_s", {"type": "number", "minimum": 0, "maximum": WAIT_S_MAX}, "seconds"),
        ),
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
