"""Operations of the account service's OpenAPI document, one per route of routes.py (asserted by a test)."""

from typing import Any, Final

from fundledger.app.account.accounts import LIST_DEFAULT as ACCOUNTS_DEFAULT
from fundledger.app.account.accounts import LIST_MAX as ACCOUNTS_MAX
from fundledger.app.account.openapi.events import EVENTS
from fundledger.app.account.openapi.examples import (
    BANK,
    CAPTURE,
    HOLD,
    MERCHANT,
    OTHER_VOUCHER,
    REVERSAL,
    VOUCHER,
)
from fundledger.app.http.openapi.operations import SERVICE
from fundledger.app.http.openapi.schemas import ID, INSTANT, REF, UUID
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
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.refusal import Code
from fundledger.ledger.statement.pages import LIMIT_DEFAULT, LIMIT_MAX

_ACCOUNT_ID: Final = path_parameter(ID, "id of the account", MERCHANT)
_VOUCHER_ID: Final = path_parameter(UUID, "id of the voucher", VOUCHER)
_HOLD_ID: Final = path_parameter(ID, "id of the hold", HOLD)
_STATUS: Final = (Code.ACCOUNT_CLOSED, Code.ACCOUNT_FROZEN)
_FUNDS: Final = (Code.BALANCE_OUT_OF_RANGE, Code.INSUFFICIENT_FUNDS)
_POSTING: Final = (Code.VOUCHER_ID_REUSED, Code.ACCOUNT_NOT_FOUND, Code.CURRENCY_MISMATCH, *_STATUS, *_FUNDS)
_ENDED: Final = (Code.HOLD_CAPTURED, Code.HOLD_RELEASED, Code.HOLD_EXPIRED, Code.HOLD_REFUSED)
_TAMPERED: Final = Answer(
    "The record of the account does not match its MAC. Report it to the operator.",
    problems=(Code.ACCOUNT_FROZEN,),
)
_VOUCHER_EXAMPLE: Final = {
    "id": VOUCHER,
    "type": "pay",
    "entries": [
        {"account": BANK, "side": "debit", "amount": 10000},
        {"account": MERCHANT, "side": "credit", "amount": 10000},
    ],
    "reference": "order 2026-0001",
}


def _moves(id_: str, amount: int) -> dict[str, Any]:
    entries = [
        {"account": MERCHANT, "side": "debit", "amount": amount},
        {"account": BANK, "side": "credit", "amount": amount},
    ]
    return {"id": id_, "type": "withdraw", "entries": entries}


def replayed(schema: str) -> Answer:
    description = "A replay: the first answer to the same request, byte for byte."
    return Answer(description, {JSON: {"$ref": REF + schema}}, {"Idempotent-Replay": True})


def refused(*codes: str) -> Answer:
    return Answer("Refused by the ledger: see the problem's `type`.", problems=codes)


def refused_for_ever(*codes: str) -> Answer:
    description = (
        "Refused by the ledger: see the problem's `type`. Nothing was posted. A final refusal is permanent for the id."
    )
    return Answer(description, headers={"Idempotent-Replay": False}, problems=codes)


ACCOUNTS: Final = (
    Operation(
        "POST",
        "/v1/accounts",
        "open_account",
        "Accounts",
        "Open an account",
        "The id is the idempotency key: a repeated request is answered 200 with the current state of the account.",
        {
            201: shown("Account", "The account is open."),
            200: shown("Account", "An equal account exists."),
            400: Answer("The request is malformed.", problems=("currency-unknown",)),
            409: Answer(
                "An account with this id has a different owner, type, currency or metadata.",
                problems=("account-exists",),
            ),
            422: _TAMPERED,
        },
        body="AccountBody",
        example={"id": MERCHANT, "owner": "merchant:10001", "type": "merchant_available", "currency": "CNY"},
    ),
    Operation(
        "GET",
        "/v1/accounts",
        "list_accounts",
        "Accounts",
        "List accounts",
        "Returns a page, ordered by id. It may have fewer accounts than `limit`, or none, while `next_cursor` is not "
        "null. With `Accept: text/csv` the page is CSV, with the header `X-Next-Cursor` unless it is the last one.",
        {
            200: Answer(
                "A page.",
                {JSON: {"$ref": REF + "Accounts"}, "text/csv": {"type": "string"}},
                {"X-Next-Cursor": False},
            ),
        },
        (
            query_parameter("owner", ID, "only accounts of this owner"),
            query_parameter("type", {"type": "string", "enum": list(CHART)}, "only accounts of this type"),
            query_parameter("currency", {"type": "string", "pattern": "^[A-Z]{3}$"}, "only accounts in this currency"),
            query_parameter(
                "status", {"type": "string", "enum": ["open", "frozen", "closed"]}, "only accounts with this status"
            ),
            query_parameter("cursor", ID, "`next_cursor` of the previous page"),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": ACCOUNTS_MAX, "default": ACCOUNTS_DEFAULT},
                "maximum number of accounts",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}",
        "get_account",
        "Accounts",
        "Read an account",
        "The balance is the sum over its sub-accounts, read in one statement.",
        {200: shown("Account", "The account."), 404: no_such("account"), 500: FIGURES_WITHHELD},
        (_ACCOUNT_ID,),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}/entries",
        "get_entries",
        "Accounts",
        "Read an account's statement",
        "Returns a page, oldest line first. Each line of a voucher is one line, also if a debit was taken from several "
        "slots. Moves between slots are omitted. The order of returned lines never changes. `level=entries` returns "
        "the stored entries. With `Accept: text/csv` the page is CSV, with the header `X-Next-Cursor` unless it is the "
        "last one. Text that a spreadsheet would evaluate is prefixed with an apostrophe. A cursor is valid only for "
        "the same account, `from`, `to` and `level`.",
        {
            200: Answer(
                "A page.",
                {JSON: {"$ref": REF + "Statement"}, "text/csv": {"type": "string"}},
                {"X-Next-Cursor": False},
            ),
            404: no_such("account"),
            500: FIGURES_WITHHELD,
        },
        (
            _ACCOUNT_ID,
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
                "maximum number of entries",
            ),
            query_parameter("cursor", {"type": "string"}, "`next_cursor` of the previous page"),
            query_parameter("from", INSTANT, "earliest `posted_at`, inclusive"),
            query_parameter("to", INSTANT, "latest `posted_at`, inclusive"),
            query_parameter(
                "level",
                {"type": "string", "enum": ["vouchers", "entries"], "default": "vouchers"},
                "`vouchers`: lines of vouchers; `entries`: as stored, with parts, moves between slots, and summaries",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}/balance",
        "get_balance",
        "Accounts",
        "Read the balance at a time",
        "Returns the posted balance and the open holds at that time.",
        {200: shown("BalanceAt", "The balance."), 404: no_such("account"), 500: FIGURES_WITHHELD},
        (_ACCOUNT_ID, query_parameter("at", INSTANT, "the time; without it, the current balance")),
    ),
    Operation(
        "POST",
        "/v1/accounts/{id}/freeze",
        "freeze_account",
        "Accounts",
        "Freeze an account",
        "Blocks debits; with scope `all`, blocks all entries. The body may be empty.",
        {200: shown("Account", "The account."), 404: no_such("account"), 422: refused(*_STATUS)},
        (_ACCOUNT_ID,),
        "FreezeBody",
        body_required=False,
        example={"reason": "dispute 7"},
    ),
    Operation(
        "POST",
        "/v1/accounts/{id}/unfreeze",
        "unfreeze_account",
        "Accounts",
        "Unfreeze an account",
        "Allows all entries again. An account that was frozen because its books do not verify stays frozen.",
        {200: shown("Account", "The account."), 404: no_such("account"), 422: refused(*_STATUS)},
        (_ACCOUNT_ID,),
        "ReasonBody",
        body_required=False,
        example={"reason": "dispute 7 is settled"},
    ),
    Operation(
        "POST",
        "/v1/accounts/{id}/close",
        "close_account",
        "Accounts",
        "Close an account",
        "Closes the account permanently. Requires a balance of 0 and no holds.",
        {
            200: shown("Account", "The account."),
            404: no_such("account"),
            422: refused(*_STATUS, Code.ACCOUNT_NOT_EMPTY),
        },
        (path_parameter(ID, "id of the account", "merchant:10002:available"),),
        "ReasonBody",
        body_required=False,
        example={"reason": "contract ended"},
    ),
    Operation(
        "POST",
        "/v1/accounts/{id}/policy",
        "set_account_policy",
        "Accounts",
        "Set how credits are posted",
        "Merchant accounts only. `buffered` credits count as `pending` immediately and are posted in groups within "
        "moments; debits are decided against all of them.",
        {200: shown("Account", "The account."), 404: no_such("account"), 422: refused(*_STATUS)},
        (_ACCOUNT_ID,),
        "PolicyBody",
        example={"posting": "buffered", "reason": "flash sale"},
    ),
)

VOUCHERS: Final = (
    Operation(
        "POST",
        "/v1/vouchers",
        "post_voucher",
        "Vouchers",
        "Post a voucher",
        "Moves money: 2 to 64 entries, debits = credits, one currency. The answer is sent after the voucher is "
        "durable. The id is the idempotency key and never expires: after a timeout, send the same request again.",
        {
            201: shown("Voucher", "The voucher is posted."),
            200: replayed("Voucher"),
            400: Answer("The request is malformed.", problems=(Code.VOUCHER_UNBALANCED,)),
            422: refused_for_ever(*_POSTING),
        },
        body="VoucherBody",
        example=_VOUCHER_EXAMPLE,
    ),
    Operation(
        "POST",
        "/v1/vouchers/batch",
        "post_vouchers",
        "Vouchers",
        "Post up to 5,000 vouchers",
        "Each item is decided separately: a refused item does not affect the others. With `atomic` all items are "
        "posted, or none, and they have at most 20,000 entries in all. A malformed item causes a 400 for the whole "
        "batch, and nothing is posted.",
        {200: shown("BatchResults", "The outcome of each item."), 422: _TAMPERED},
        body="BatchBody",
        example={"vouchers": [{**_VOUCHER_EXAMPLE, "id": OTHER_VOUCHER}], "atomic": False},
        body_bytes_max=BATCH_BODY_BYTES_MAX,
    ),
    Operation(
        "GET",
        "/v1/vouchers/{id}",
        "get_voucher",
        "Vouchers",
        "Read a voucher",
        "Also returns a voucher with a final refusal, with its problem.",
        {200: shown("Voucher", "The voucher."), 404: no_such("voucher"), 500: FIGURES_WITHHELD},
        (_VOUCHER_ID,),
    ),
    Operation(
        "POST",
        "/v1/vouchers/{id}/reverse",
        "reverse_voucher",
        "Vouchers",
        "Reverse a voucher",
        "Posts the opposite voucher under a new id, linked both ways. A voucher can be reversed once.",
        {
            201: shown("Voucher", "The reversal is posted."),
            200: replayed("Voucher"),
            404: no_such("voucher"),
            422: refused_for_ever(
                Code.VOUCHER_ID_REUSED,
                Code.VOUCHER_ALREADY_REVERSED,
                Code.VOUCHER_NOT_POSTED,
                *_STATUS,
                *_FUNDS,
            ),
        },
        (path_parameter(UUID, "id of the voucher to reverse", OTHER_VOUCHER),),
        "ReverseBody",
        example={"id": REVERSAL},
    ),
)

HOLDS: Final = (
    Operation(
        "POST",
        "/v1/holds",
        "place_hold",
        "Holds",
        "Place a hold",
        "Sets an amount of an account aside until it is captured, released or expires. The id is the idempotency key.",
        {
            201: shown("Hold", "The amount is held."),
            200: replayed("Hold"),
            400: Answer("The request is malformed.", problems=(Code.HOLD_EXPIRY_PAST,)),
            422: refused_for_ever(
                Code.HOLD_ID_REUSED,
                Code.ACCOUNT_NOT_FOUND,
                Code.HOLD_ON_PLATFORM_ACCOUNT,
                *_STATUS,
                Code.INSUFFICIENT_FUNDS,
            ),
        },
        body="HoldBody",
        example={"id": HOLD, "account": MERCHANT, "amount": 5000},
    ),
    Operation(
        "GET",
        "/v1/holds/{id}",
        "get_hold",
        "Holds",
        "Read a hold",
        "Returns the current state.",
        {200: shown("Hold", "The hold."), 404: no_such("hold"), 500: FIGURES_WITHHELD},
        (_HOLD_ID,),
    ),
    Operation(
        "POST",
        "/v1/holds/{id}/capture",
        "capture_hold",
        "Holds",
        "Capture a hold",
        "Posts a voucher that debits the held account for at most the held amount; the rest is released.",
        {
            201: shown("Voucher", "The voucher is posted, and the hold is captured."),
            200: replayed("Voucher"),
            400: Answer("The request is malformed.", problems=(Code.VOUCHER_UNBALANCED,)),
            404: no_such("hold"),
            422: refused_for_ever(*_POSTING, Code.HOLD_NOT_FOUND, *_ENDED, Code.HOLD_EXCEEDED),
        },
        (_HOLD_ID,),
        "CaptureBody",
        example={"voucher": _moves(CAPTURE, 3000)},
    ),
    Operation(
        "POST",
        "/v1/holds/{id}/release",
        "release_hold",
        "Holds",
        "Release a hold",
        "Makes the held amount available again. The body may be empty.",
        {
            200: Answer("The released hold.", {JSON: {"$ref": REF + "Hold"}}, {"Idempotent-Replay": False}),
            404: no_such("hold"),
            422: refused(*_ENDED, Code.ACCOUNT_FROZEN),
        },
        (path_parameter(ID, "id of the hold", "hold:10001:2"),),
        "ReasonBody",
        body_required=False,
        example={"reason": "order cancelled"},
    ),
)

OPERATIONS: Final = (*ACCOUNTS, *VOUCHERS, *HOLDS, *EVENTS, *SERVICE)
