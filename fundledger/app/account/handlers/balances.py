"""HTTP handler of the account service for the trial balance. `routes/balances.py` declares its route."""

from typing import Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.decoding import instant
from fundledger.app.http.bodies.spreadsheet import csv_page, wants_csv
from fundledger.app.http.problems import malformed
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.json_values import time_text
from fundledger.ledger.model.account import Account
from fundledger.ledger.statement.cursors import BadCursor
from fundledger.ledger.statement.trial_balance import read_trial_balance

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 100
COLUMNS: Final = ("row", "account", "owner", "type", "currency", "debit", "credit")


async def get_balances(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/balances?at=`: a page of the trial balance, ordered by account id; JSON or CSV.

    The last page also has the totals of each currency.
    """
    query = call.query
    limit = number(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    at = instant(query["at"], "at") if "at" in query else None
    try:
        page = await service.reading_durable(
            lambda: read_trial_balance(service.pool, service.directory, service.layout, at, query.get("cursor"), limit)
        )
    except BadCursor as bad:
        raise malformed(str(bad), field="cursor") from None
    found = sorted(page.totals.items()) if page.cursor is None else ()
    if wants_csv(call):
        lines = [("account", r.account.id, r.account.owner, *_of(r.account), r.debit, r.credit) for r in page.rows]
        totals = [("total", None, None, None, currency, sums.debit, sums.credit) for currency, sums in found]
        return csv_page(COLUMNS, [*lines, *totals], page.cursor, page.unverified)
    answer = answers.TrialBalance(
        time_text(page.at),
        [answers.TrialBalanceRow(r.account.id, r.account.owner, *_of(r.account), r.debit, r.credit) for r in page.rows],
        [answers.Total(currency, sums.debit, sums.credit) for currency, sums in found],
        page.unverified,
        page.cursor,
    )
    return Reply(200, encode(answer))


def _of(account: Account) -> tuple[str, str]:
    return account.type.name, account.currency
