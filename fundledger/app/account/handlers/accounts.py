"""HTTP handlers of the account service for accounts. `routes/accounts.py` declares the routes that call them."""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from fundledger.app.account.answers import render, statement
from fundledger.app.account.answers import structs as answers
from fundledger.app.account.answers.problems import refused
from fundledger.app.account.requests.bodies import AccountBody, FreezeBody, PolicyBody, ReasonBody, account_id
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.decoding import decoder, instant, known_currency, metadata
from fundledger.app.http.bodies.spreadsheet import csv_page, wants_csv
from fundledger.app.http.problems import BadRequest, faulted, malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Fault
from fundledger.json_values import time_text
from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import SetPolicy, SetStatus
from fundledger.ledger.model.chart import CHART, AccountType
from fundledger.ledger.statement.pages import ENTRIES, LIMIT_DEFAULT, LIMIT_MAX, LINES, BadCursor, read_statement
from fundledger.ledger.store.accounts import (
    AccountFilter,
    AccountView,
    NewAccount,
    balance_at,
    list_account_ids,
    read_accounts,
    read_accounts_apart,
)

_decode_account = decoder(AccountBody)
_decode_freeze = decoder(FreezeBody)
_decode_policy = decoder(PolicyBody)
_decode_reason = decoder(ReasonBody)
LEVELS: Final = (LINES, ENTRIES)


async def open_account(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/accounts`: 201 if created, 200 if an equal account exists, 409 if a different one exists."""
    body = _decode_account(call.body)
    if body.type not in CHART:
        raise malformed(f"an account type is one of {', '.join(CHART)}", field="type")
    buffered = body.posting == "buffered"
    if buffered:
        _may_be_buffered(CHART[body.type])
    currency = known_currency(body.currency)
    meta = metadata(body.metadata)
    request = NewAccount(body.id, call.module, body.owner, body.type, currency, meta, buffered)
    opened = await service.open_account(request)
    if not opened.same:
        detail = f"account {body.id} exists with a different owner, type, currency or metadata"
        raise BadRequest(409, "account-exists", "The account exists with different properties", detail, account=body.id)
    return Reply(201 if opened.created else 200, encode(render.account(opened.view)))


def _may_be_buffered(type_: AccountType) -> None:
    """Raise BadRequest (400) unless credits of accounts of this type can be buffered."""
    if type_.platform or type_.normal < 0:
        raise malformed(
            f"credits of a {type_.name} account cannot be buffered; use a merchant account", field="posting"
        )


def whose(service: Service, parameters: dict[str, str]) -> Account | None:
    """Return the account in a path with these parameters, or None if this worker has not cached the account."""
    return service.directory.get(parameters["id"])


async def _account(service: Service, call: Call) -> Account:
    """Return the account that the path names. Raises BadRequest (404), Unavailable."""
    id_ = account_id(call.parameters["id"], "id")
    account = service.directory.get(id_)
    if account is None:
        found = await service.reading(lambda: service.directory.resolve(service.pool, [id_]))
        account = found.get(id_)
    if account is None:
        raise not_found(f"account {id_}")
    return account


LIST_DEFAULT: Final = 20
LIST_MAX: Final = 100
LIST_COLUMNS: Final = (
    "id",
    "owner",
    "type",
    "currency",
    "status",
    "posted",
    "held",
    "pending",
    "available",
    "created_at",
)
_is_currency = re.compile(r"[A-Z]{3}\Z").match
_STATUSES: Final = tuple(dict.fromkeys(answers.STATUS_NAMES.values()))


async def list_accounts(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/accounts`: a page of the matching accounts, ordered by id; JSON or CSV.

    A page may have fewer accounts than `limit`, or none, although more accounts follow. On the last page `next_cursor`
    is null.
    """
    query = call.query
    limit = number(query, "limit", LIST_DEFAULT, 1, LIST_MAX)
    owner = account_id(query["owner"], "owner") if "owner" in query else None
    after = account_id(query["cursor"], "cursor") if "cursor" in query else ""
    type_, status = (_one_of(query.get(name), name, names) for name, names in (("type", CHART), ("status", _STATUSES)))
    currency = query.get("currency")
    # Codes outside ISO 4217 are accepted here, because accounts from before the check of codes may have such a code.
    if currency is not None and not _is_currency(currency):
        raise malformed("a currency is three capital letters, such as CNY", field="currency")
    wanted = AccountFilter(owner, type_, currency)

    async def read() -> tuple[list[AccountView], list[str], str | None]:
        ids, cursor = await list_account_ids(service.pool, wanted, after, limit)
        views, unverified = await read_accounts_apart(service.pool, service.directory, service.layout, ids)
        return views, unverified, cursor

    views, unverified, cursor = await service.reading_durable(read)
    shown = [render.account(view) for view in views if status in (None, answers.STATUS_NAMES[view.status])]
    if wants_csv(call):
        return csv_page(LIST_COLUMNS, map(_row, shown), cursor, unverified)
    return Reply(200, encode(answers.Accounts(shown, unverified, cursor)))


def _one_of(text: str | None, name: str, accepted: Collection[str]) -> str | None:
    if text is not None and text not in accepted:
        raise malformed(f"{name} is one of {', '.join(accepted)}", field=name)
    return text


def _row(account: answers.Account) -> list[object]:
    members = {**msgspec.structs.asdict(account), **msgspec.structs.asdict(account.balance)}
    return [members[name] for name in LIST_COLUMNS]


async def get_account(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/accounts/{id}`: one account with its current balance."""
    account = await _account_to_read(service, call)
    return await _shown(service, account)


async def _account_to_read(service: Service, call: Call) -> Account:
    """Return the account in the path. If the stored account does not match its MAC, store a finding.

    Raises BadRequest (404), Tampered, Unavailable.
    """
    return await service.reading_verified(lambda: _account(service, call))


async def _shown(service: Service, account: Account) -> Reply:
    views = await service.reading_verified(
        lambda: read_accounts(service.pool, service.directory, service.layout, [account.id])
    )
    return Reply(200, encode(render.account(views[account.id])))


async def get_balance(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/accounts/{id}/balance?at=`: the balance at that time; without `at`, the current balance."""
    text = call.query.get("at")
    account = await _account_to_read(service, call)
    if text is None:
        views = await service.reading_verified(
            lambda: read_accounts(service.pool, service.directory, service.layout, [account.id])
        )
        posted, held, at = views[account.id].posted, views[account.id].held, None
    else:
        moment = instant(text, "at")
        posted, held = await service.reading_verified(
            lambda: balance_at(service.pool, service.keys, account, service.layout, moment)
        )
        at = time_text(moment)
    return Reply(200, encode(answers.BalanceAt(account.id, at, posted, held, posted - held)))


async def get_entries(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/accounts/{id}/entries`: one page of the statement, oldest entry first; JSON or CSV."""
    query = call.query
    limit = number(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    from_ = instant(query["from"], "from") if "from" in query else None
    to = instant(query["to"], "to") if "to" in query else None
    level = query.get("level", LINES)
    if level not in LEVELS:
        raise malformed(f"level is one of {', '.join(LEVELS)}", field="level")
    account = await _account_to_read(service, call)
    try:
        lines, cursor = await service.reading_verified(
            lambda: read_statement(
                service.pool,
                service.directory,
                account,
                service.layout,
                limit,
                query.get("cursor"),
                from_,
                to,
                level=level,
            )
        )
    except BadCursor as bad:
        raise malformed(str(bad), field="cursor") from None
    if wants_csv(call):
        return csv_page(statement.COLUMNS, statement.rows(account, lines), cursor)
    return Reply(200, statement.as_json(account, lines, cursor))


async def _set_status(service: Service, call: Call, status: Status, reason: str) -> Reply:
    account = await _account(service, call)
    return await _ask(service, account, SetStatus(account, status, reason, call.module))


async def _ask(service: Service, account: Account, command: SetStatus | SetPolicy) -> Reply:
    outcome = await service.ask(account.shard, command)
    if isinstance(outcome, Fault):
        return faulted(outcome)
    if outcome.refusal is not None:
        return refused(outcome.refusal)
    return await _shown(service, account)


async def freeze(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/accounts/{id}/freeze`: block debits; with scope `all`, block all entries."""
    body = _decode_freeze(call.body)
    status = Status.FROZEN_ALL if body.scope == "all" else Status.FROZEN_DEBITS
    return await _set_status(service, call, status, body.reason)


async def unfreeze(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/accounts/{id}/unfreeze`: allow entries again."""
    return await _set_status(service, call, Status.OPEN, _decode_reason(call.body).reason)


async def close(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/accounts/{id}/close`: close the account permanently. Requires a balance of 0 and no holds."""
    return await _set_status(service, call, Status.CLOSED, _decode_reason(call.body).reason)


async def set_policy(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/accounts/{id}/policy`: set whether credits of the account are posted directly or buffered."""
    body = _decode_policy(call.body)
    account = await _account(service, call)
    buffered = body.posting == "buffered"
    if buffered:
        _may_be_buffered(account.type)
    reply = await _ask(service, account, SetPolicy(account, buffered, body.reason, call.module))
    if reply.status == 200:
        # The policy takes effect in this worker immediately, and in the other workers within a second.
        known = service.directory.get(account.id) or account
        service.directory.remember(msgspec.structs.replace(known, buffered=buffered))
    return reply
