"""The operations of the OpenAPI file: one a route of server.py, which tests/test_openapi.py sees to."""

from typing import Any, Final

from fundledger.app.accounts import LIST_DEFAULT as ACCOUNTS_DEFAULT
from fundledger.app.accounts import LIST_MAX as ACCOUNTS_MAX
from fundledger.app.openapi_events import EVENTS
from fundledger.app.openapi_schemas import ID, INSTANT, REF, UUID
from fundledger.app.openapi_service import SERVICE
from fundledger.app.openapi_types import (
    BANK,
    CAPTURE,
    HOLD,
    MERCHANT,
    OTHER_VOUCHER,
    REVERSAL,
    VOUCHER,
    Answer,
    Operation,
    no_such,
    path_parameter,
    query_parameter,
    refused,
    refused_for_ever,
    replayed,
    shown,
)
from fundledger.app.reply import JSON
from fundledger.app.routing import BATCH_BODY_BYTES_MAX
from fundledger.ledger.chart import CHART
from fundledger.ledger.journal import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.ledger.refusal import Code

_ACCOUNT_ID: Final = path_parameter(ID, "id of the account", MERCHANT)
_VOUCHER_ID: Final = path_parameter(UUID, "id of the voucher", VOUCHER)
_HOLD_ID: Final = path_parameter(ID, "id of the hold", HOLD)
_STATUS: Final = (Code.ACCOUNT_CLOSED, Code.ACCOUNT_FROZEN)
_FUNDS: Final = (Code.BALANCE_OUT_OF_RANGE, Code.INSUFFICIENT_FUNDS)
_POSTING: Final = (Code.VOUCHER_ID_REUSED, Code.ACCOUNT_NOT_FOUND, Code.CURRENCY_MISMATCH, *_STATUS, *_FUNDS)
_ENDED: Final = (Code.HOLD_CAPTURED, Code.HOLD_RELEASED, Code.HOLD_EXPIRED, Code.HOLD_REFUSED)
_TAMPERED: Final = Answer(
    "What is recorded of the account does not match its MAC: an operator has to look at it.",
    problems=(Code.ACCOUNT_FROZEN,),
)
UNVERIFIED: Final = Answer(
    "The rows of the account do not verify, so none of its figures is shown; or a defect of ours.",
    problems=("integrity",),
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


ACCOUNTS: Final = (
    Operation(
        "POST",
        "/v1/accounts",
        "open_account",
        "Accounts",
        "Open an account",
        "The id is the idempotency key: the same request again answers 200 with the account as it stands.",
        {
            201: shown("Account", "The account is open."),
            200: shown("Account", "It exists, as asked for."),
            400: Answer("The request is malformed.", problems=("currency-unknown",)),
            409: Answer(
                "It exists with another owner, type, currency or metadata.",
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
        "A page in the order of their ids. It may have fewer accounts than `limit`, or none, although `next_cursor` is "
        "not null. With `Accept: text/csv` the same as CSV, with the header `X-Next-Cursor` while there is more.",
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
            query_parameter("cursor", ID, "`next_cursor` of the page before"),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": ACCOUNTS_MAX, "default": ACCOUNTS_DEFAULT},
                "how many accounts at most",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}",
        "get_account",
        "Accounts",
        "Read an account",
        "Its balance is the sum over its slices, read in one statement.",
        {200: shown("Account", "The account."), 404: no_such("account"), 500: UNVERIFIED},
        (_ACCOUNT_ID,),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}/entries",
        "get_entries",
        "Accounts",
        "Read an account's statement",
        "A page, newest last: one line for each line of a voucher, also where a debit was taken from several "
        "slices; moves between slices are not shown. The order of what was shown never changes. `level=entries` shows "
        "what is stored. With `Accept: text/csv` the same as CSV, with the header `X-Next-Cursor` while there is more; "
        "text that a spreadsheet would run comes after an apostrophe. A cursor belongs to its account, `from`, `to` "
        "and `level`.",
        {
            200: Answer(
                "A page.",
                {JSON: {"$ref": REF + "Statement"}, "text/csv": {"type": "string"}},
                {"X-Next-Cursor": False},
            ),
            404: no_such("account"),
            500: UNVERIFIED,
        },
        (
            _ACCOUNT_ID,
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
                "how many entries at most",
            ),
            query_parameter("cursor", {"type": "string"}, "`next_cursor` of the page before"),
            query_parameter("from", INSTANT, "first moment of `posted_at`, inclusive"),
            query_parameter("to", INSTANT, "last moment of `posted_at`, inclusive"),
            query_parameter(
                "level",
                {"type": "string", "enum": ["vouchers", "entries"], "default": "vouchers"},
                "`vouchers`: lines of vouchers; `entries`: as stored, with parts, moves between slices, and summaries",
            ),
        ),
    ),
    Operation(
        "GET",
        "/v1/accounts/{id}/balance",
        "get_balance",
        "Accounts",
        "Read the balance at a time",
        "As it was then: what had been posted, and the holds that were open.",
        {200: shown("BalanceAt", "The balance."), 404: no_such("account"), 500: UNVERIFIED},
        (_ACCOUNT_ID, query_parameter("at", INSTANT, "the moment; without it: now")),
    ),
    Operation(
        "POST",
        "/v1/accounts/{id}/freeze",
        "freeze_account",
        "Accounts",
        "Freeze an account",
        "It takes no debits any more; with scope `all` it takes no entries. An empty body is fine.",
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
        "It takes all entries again. An account that was frozen because its books do not verify stays frozen.",
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
        "For ever, and only with a balance of 0 and no holds.",
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
        "Buffer an account's credits, or not",
        "Of a merchant's account: `buffered` credits count as `pending` at once and are posted within moments, many at "
        "a time; what is spent is decided upon all of them.",
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
        "Moves money: 2 to 64 entries, debits = credits, one currency. It is answered after it is durable. "
        "The id is the idempotency key and never expires: after a timeout, send the same request again.",
        {
            201: shown("Voucher", "It is posted."),
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
        "Each item stands alone: one that is refused does not touch the others. With `atomic` all are posted or "
        "none, and they have at most 20,000 entries in all. An item that is no voucher at all (wrong shape) makes the "
        "whole batch 400, and nothing is posted.",
        {200: shown("BatchResults", "What became of each."), 422: _TAMPERED},
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
        "Also one that was refused for ever: it shows its problem.",
        {200: shown("Voucher", "The voucher."), 404: no_such("voucher"), 500: UNVERIFIED},
        (_VOUCHER_ID,),
    ),
    Operation(
        "POST",
        "/v1/vouchers/{id}/reverse",
        "reverse_voucher",
        "Vouchers",
        "Reverse a voucher",
        "Posts the opposite voucher under an id of its own, linked both ways. A voucher is reversed once.",
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
        (path_parameter(UUID, "id of the voucher to undo", OTHER_VOUCHER),),
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
        "As it stands now.",
        {200: shown("Hold", "The hold."), 404: no_such("hold"), 500: UNVERIFIED},
        (_HOLD_ID,),
    ),
    Operation(
        "POST",
        "/v1/holds/{id}/capture",
        "capture_hold",
        "Holds",
        "Capture a hold",
        "Posts a voucher that debits the held account for at most what is held; the rest is free again.",
        {
            201: shown("Voucher", "The voucher is posted, the hold captured."),
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
        "What was held is free again. An empty body is fine.",
        {
            200: Answer("The hold, released.", {JSON: {"$ref": REF + "Hold"}}, {"Idempotent-Replay": False}),
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
