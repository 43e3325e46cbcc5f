"""Routes of the account service for accounts, handled by `handlers/accounts.py`: method, path, OpenAPI operation."""

from typing import Annotated, Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.handlers import accounts
from fundledger.app.account.openapi.examples import MERCHANT
from fundledger.app.account.requests.bodies import AccountBody, FreezeBody, PolicyBody, ReasonBody
from fundledger.app.account.routes.refusals import STATUS, TAMPERED, refused
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.spreadsheet import HEADERS
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, count, no_such, path, query, shown
from fundledger.app.http.routing import Route
from fundledger.app.http.wire.reply import JSON
from fundledger.json_values import CurrencyCode, Id, Instant, about
from fundledger.ledger.model.refusal import Code
from fundledger.ledger.statement.pages import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Accounts"
_ID: Final = path(Id, "id of the account", MERCHANT)
_CHANGED: Final = {200: shown(answers.Account, "The account."), 404: no_such("account"), 422: refused(*STATUS)}
ROUTES: Final[list[Route[Service]]] = [
    Route(
        "POST",
        "/v1/accounts",
        accounts.open_account,
        ApiClass.PAYMENT,
        "open_account",
        _TAG,
        "Open an account",
        "The id is the idempotency key: a repeated request is answered 200 with the current state of the account.",
        {
            201: shown(answers.Account, "The account is open."),
            200: shown(answers.Account, "An equal account exists."),
            400: CURRENCY_UNKNOWN,
            409: Answer(
                "An account with this id has a different owner, type, currency or metadata.",
                problems=("account-exists",),
            ),
            422: TAMPERED,
        },
        body=(
            AccountBody,
            {"id": MERCHANT, "owner": "merchant:10001", "type": "merchant_available", "currency": "CNY"},
        ),
    ),
    Route(
        "GET",
        "/v1/accounts",
        accounts.list_accounts,
        ApiClass.LIST,
        "list_accounts",
        _TAG,
        "List accounts",
        "Returns a page, ordered by id. It may have fewer accounts than `limit`, or none, while `next_cursor` is not "
        "null. With `Accept: text/csv` the page is CSV, with the header `X-Next-Cursor` unless it is the last one.",
        {200: Answer("A page.", {JSON: answers.Accounts, "text/csv": str}, HEADERS)},
        (
            query("owner", Id, "only accounts of this owner"),
            query("type", answers.AccountType, "only accounts of this type"),
            query("currency", CurrencyCode, "only accounts in this currency"),
            query("status", answers.AccountStatus, "only accounts with this status"),
            query("cursor", Id, "`next_cursor` of the previous page"),
            count(accounts.LIST_DEFAULT, accounts.LIST_MAX, "accounts"),
        ),
    ),
    Route(
        "GET",
        "/v1/accounts/{id}",
        accounts.get_account,
        ApiClass.QUERY,
        "get_account",
        _TAG,
        "Read an account",
        "The balance is the sum over its sub-accounts, read in one statement.",
        {200: shown(answers.Account, "The account."), 404: no_such("account")},
        (_ID,),
        whose=accounts.whose,
    ),
    Route(
        "GET",
        "/v1/accounts/{id}/entries",
        accounts.get_entries,
        ApiClass.LIST,
        "get_entries",
        _TAG,
        "Read an account's statement",
        "Returns a page, oldest line first. Each line of a voucher is one line, also if a debit was taken from several "
        "slots. Moves between slots are omitted. The order of returned lines never changes. `level=entries` returns "
        "the stored entries. With `Accept: text/csv` the page is CSV, with the header `X-Next-Cursor` unless it is the "
        "last one. Text that a spreadsheet would evaluate is prefixed with an apostrophe. A cursor is valid only for "
        "the same account, `from`, `to` and `level`.",
        {
            200: Answer("A page.", {JSON: answers.Statement, "text/csv": str}, HEADERS),
            404: no_such("account"),
        },
        (
            _ID,
            count(LIMIT_DEFAULT, LIMIT_MAX, "entries"),
            query("cursor", str, "`next_cursor` of the previous page"),
            query("from", Instant, "earliest `posted_at`, inclusive"),
            query("to", Instant, "latest `posted_at`, inclusive"),
            query(
                "level",
                Annotated[str, about(enum=list(accounts.LEVELS))],
                "`vouchers`: lines of vouchers; `entries`: as stored, with parts, moves between slots, and summaries",
                accounts.LEVELS[0],
            ),
        ),
        whose=accounts.whose,
    ),
    Route(
        "GET",
        "/v1/accounts/{id}/balance",
        accounts.get_balance,
        ApiClass.QUERY,
        "get_balance",
        _TAG,
        "Read the balance at a time",
        "Returns the posted balance and the open holds at that time.",
        {200: shown(answers.BalanceAt, "The balance."), 404: no_such("account")},
        (_ID, query("at", Instant, "the time; without it, the current balance")),
        whose=accounts.whose,
    ),
    # A freeze has the class of a withdrawal, because both are equally urgent. No account is charged for a freeze. So a
    # freeze is admitted even if the quota of the account is exhausted or the rate-limit store is unavailable.
    Route(
        "POST",
        "/v1/accounts/{id}/freeze",
        accounts.freeze,
        ApiClass.WITHDRAW,
        "freeze_account",
        _TAG,
        "Freeze an account",
        "Blocks debits; with scope `all`, blocks all entries. The body may be empty.",
        _CHANGED,
        (_ID,),
        (FreezeBody, {"reason": "dispute 7"}),
    ),
    Route(
        "POST",
        "/v1/accounts/{id}/unfreeze",
        accounts.unfreeze,
        ApiClass.ADMIN,
        "unfreeze_account",
        _TAG,
        "Unfreeze an account",
        "Allows all entries again. An account that was frozen because its books do not verify stays frozen.",
        _CHANGED,
        (_ID,),
        (ReasonBody, {"reason": "dispute 7 is settled"}),
        whose=accounts.whose,
    ),
    Route(
        "POST",
        "/v1/accounts/{id}/close",
        accounts.close,
        ApiClass.ADMIN,
        "close_account",
        _TAG,
        "Close an account",
        "Closes the account permanently. Requires a balance of 0 and no holds.",
        {**_CHANGED, 422: refused(*STATUS, Code.ACCOUNT_NOT_EMPTY)},
        (path(Id, "id of the account", "merchant:10002:available"),),
        (ReasonBody, {"reason": "contract ended"}),
        whose=accounts.whose,
    ),
    Route(
        "POST",
        "/v1/accounts/{id}/policy",
        accounts.set_policy,
        ApiClass.ADMIN,
        "set_account_policy",
        _TAG,
        "Set how credits are posted",
        "Merchant accounts only. `buffered` credits count as `pending` immediately and are posted in groups within "
        "moments; debits are decided against all of them.",
        _CHANGED,
        (_ID,),
        (PolicyBody, {"posting": "buffered", "reason": "flash sale"}),
        whose=accounts.whose,
    ),
]
