"""Accounts in the ledger's store: open accounts, and read them with their balances."""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account, Status, shard_of
from fundledger.ledger.model.batch import BufferedCredit
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.statement.positions import positions_at, snapshot
from fundledger.ledger.store.directory import AccountTampered, Directory, Reader
from fundledger.ledger.store.integrity import (
    UNREADABLE,
    Tampered,
    check_buffered,
    check_sub_accounts,
    fetch_of,
    verifies,
)
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.records import hold_message
from fundledger.security import canonical
from fundledger.security.keys import Keys


class NewAccount(msgspec.Struct, frozen=True):
    """A request of `module` to open an account.

    `metadata` is a JSON object as text. `buffered`: True if the credits of the account shall be buffered.
    """

    id: str
    module: str
    owner: str
    type: str
    currency: str
    metadata: str | None = None
    buffered: bool = False


class AccountView(msgspec.Struct):
    """An account with its balances, in the account's normal direction and in minor units.

    `module` is the module that opened the account. It is None if the account was opened before modules were recorded.
    """

    account: Account
    module: str | None
    owner: str
    metadata: str | None
    created_at: datetime
    status: Status
    posted: int
    held: int
    pending: int
    version: int
    sub_accounts: int
    heat: str = "cold"

    @property
    def available(self) -> int:
        return self.posted - self.held


class Opened(msgspec.Struct):
    """The answer to one request to open an account.

    `created`: True if this request opened the account. `same`: True if the account has the owner, type, currency and
    metadata of the request.
    """

    view: AccountView
    created: bool
    same: bool


class Layout(msgspec.Struct, frozen=True):
    """The settings that are fixed when the ledger is initialised."""

    shards: int
    platform_slots: int


async def open_accounts(
    connection: "asyncpg.Connection[asyncpg.Record]",
    directory: Directory,
    keys: Keys,
    layout: Layout,
    requests: Sequence[NewAccount],
) -> list[Opened]:
    """Open accounts in one transaction. Element i of the result answers `requests[i]`.

    A retry is safe, because each id is opened at most once. If two requests have the same id, the first request opens
    the account, and the second request is only compared with the account.
    """
    # The requests are sorted, so that two transactions with the same new ids cannot deadlock.
    unique = sorted({request.id: request for request in reversed(requests)}.values(), key=lambda request: request.id)
    async with connection.transaction():
        numbers = [row["number"] for row in await connection.fetch(SQL["reserve_account_numbers"], len(unique))]
        rows = _account_rows(keys, layout, unique, numbers)
        slots = _sub_account_rows(keys, layout, unique, numbers)
        *columns, modules = zip(*rows, strict=True)
        opened = await connection.fetch(SQL["open_accounts"], *columns, *zip(*slots, strict=True), modules)
    new = {row["id"] for row in opened}
    old = [request.id for request in unique if request.id not in new]
    views = await read_accounts(connection, directory, layout, old) if old else {}
    for number, row, request in zip(numbers, rows, unique, strict=True):
        if request.id in new:
            account = account_of(number, request, layout)
            directory.remember(account)
            views[request.id] = AccountView(
                account,
                request.module,
                request.owner,
                request.metadata,
                row[8],
                Status.OPEN,
                0,
                0,
                0,
                0,
                account.slots_total(layout.shards),
            )
    answers = []
    for request in requests:
        view = views[request.id]
        same = (view.owner, view.account.type.name, view.account.currency, view.metadata) == (
            request.owner,
            request.type,
            request.currency,
            request.metadata,
        )
        answers.append(Opened(view, request.id in new, same))
        new.discard(request.id)
    return answers


def account_of(number: int, new: NewAccount, layout: Layout) -> Account:
    kind = CHART[new.type]
    slots = layout.platform_slots if kind.platform else 1
    shard = shard_of(new.owner, layout.shards)
    return Account(number, new.id, shard, slots, new.currency, kind, new.buffered, new.owner)


def _account_rows(
    keys: Keys, layout: Layout, requests: Sequence[NewAccount], numbers: Sequence[int]
) -> list[tuple[Any, ...]]:
    key = keys.current
    created_us = clock.now_us()
    created = clock.moment(created_us)
    rows: list[tuple[Any, ...]] = []
    for number, new in zip(numbers, requests, strict=True):
        account = account_of(number, new, layout)
        message = canonical.account_2(
            number,
            new.id,
            new.module,
            new.owner,
            new.type,
            new.currency,
            account.shard,
            account.slots,
            new.buffered,
            created_us,
            new.metadata,
            key.version,
        )
        placed = (account.shard, account.slots, new.metadata, created, key.version, key.tag(message), new.buffered)
        rows.append((number, new.id, new.owner, new.type, new.currency, *placed, new.module))
    return rows


def _sub_account_rows(
    keys: Keys, layout: Layout, requests: Sequence[NewAccount], numbers: Sequence[int]
) -> list[tuple[Any, ...]]:
    key = keys.current
    genesis = canonical.GENESIS
    rows: list[tuple[Any, ...]] = []
    for number, new in zip(numbers, requests, strict=True):
        account = account_of(number, new, layout)
        kind = account.type
        for shard in account.shards(layout.shards):
            for slot in account.slots_in(shard):
                message = canonical.sub_account(
                    number, slot, new.currency.encode(), 0, 0, 0, Status.OPEN, 0, 0, genesis, key.version
                )
                mac = key.tag(canonical.first_of(1, new.buffered, message))
                rows.append((shard, number, slot, kind.normal, kind.bounded, key.version, genesis, mac, new.buffered))
    return rows


async def read_accounts(
    reader: Reader, directory: Directory, layout: Layout, account_ids: Sequence[str]
) -> dict[str, AccountView]:
    """Read the accounts that exist among these ids, with their balances. Raises AccountTampered, Tampered."""
    views = {}
    for row in await reader.fetch(SQL["accounts_by_id"], account_ids):
        account = directory.verified(row)
        views[account.id] = _view(account, row, await read_verified(reader, directory.keys, account, layout))
    return views


async def read_accounts_apart(
    reader: Reader, directory: Directory, layout: Layout, account_ids: Sequence[str]
) -> tuple[list[AccountView], list[str]]:
    """Return the accounts that exist among these ids, and the ids of existing accounts whose rows do not verify.

    Both lists are in the order of `account_ids`. Normally two queries are run. If a row has a value that cannot be
    decoded, two queries are run for each account, so that the other accounts are still returned.
    """
    try:
        rows = {row["id"]: row for row in await reader.fetch(SQL["accounts_by_id"], account_ids)}
        accounts: dict[str, Account] = {}
        for id_, row in rows.items():
            with contextlib.suppress(AccountTampered, *UNREADABLE):
                accounts[id_] = directory.verified(row)
        of: dict[int, list[asyncpg.Record]] = {account.number: [] for account in accounts.values()}
        for row in await reader.fetch(SQL["read_balances_of_many"], list(of)):
            of[row["account_number"]].append(row)
    except (ValueError, OverflowError) as error:
        if isinstance(error, asyncpg.InterfaceError):
            raise
        return await _read_one_by_one(reader, directory, layout, account_ids)
    views = []
    for id_ in account_ids:
        account = accounts.get(id_)
        with contextlib.suppress(Tampered, *UNREADABLE):
            if account is not None:
                held = held_of(directory.keys, account, layout, sorted(of[account.number], key=_place))
                views.append(_view(account, rows[id_], held))
    shown = {view.account.id for view in views}
    return views, [id_ for id_ in account_ids if id_ in rows and id_ not in shown]


def _place(row: asyncpg.Record) -> tuple[int, int, int]:
    """Return the sort key of a row of `read_balances_of_many` within its account."""
    if row["shard"] is None:
        return 1, row["held"], row["slot"]
    return 0, row["slot"], row["shard"]


async def _read_one_by_one(
    reader: Reader, directory: Directory, layout: Layout, account_ids: Sequence[str]
) -> tuple[list[AccountView], list[str]]:
    views: list[AccountView] = []
    unverified: list[str] = []
    for id_ in account_ids:
        try:
            views += (await read_accounts(reader, directory, layout, [id_])).values()
        except (AccountTampered, Tampered):
            unverified.append(id_)
        except UNREADABLE as error:
            if isinstance(error, asyncpg.InterfaceError):
                raise
            unverified.append(id_)
    return views, unverified


def _view(account: Account, row: asyncpg.Record, held: "Held") -> AccountView:
    standing = [slot for slot in held.sub_accounts if slot["status"] != Status.MERGED]
    return AccountView(
        account,
        row["module"],
        row["owner"],
        row["metadata"],
        row["created_at"],
        Status(max((slot["status"] for slot in standing), default=Status.OPEN)),
        sum(slot["posted"] for slot in held.sub_accounts) * account.type.normal,
        sum(slot["held"] for slot in held.sub_accounts),
        held.pending,
        sum(slot["version"] for slot in held.sub_accounts),
        len(standing),
        held.heat,
    )


class AccountFilter(msgspec.Struct, frozen=True):
    """A filter of account lists. A field that is None matches all accounts."""

    owner: str | None = None
    type: str | None = None
    currency: str | None = None


LOOKED_MAX = 1000
"""Maximum number of accounts read for a page. The maximum bounds the work if only few accounts match a filter."""


async def list_account_ids(
    reader: Reader, wanted: AccountFilter, after: str, limit: int
) -> tuple[list[str], str | None]:
    """Return at most `limit` ids of matching accounts, ascending, and the id after which the next page begins.

    The second element is None on the last page. A page may be short or empty although more pages follow, because at
    most LOOKED_MAX accounts are read for a page.
    """
    looked_max = limit + 1 if wanted.type is None and wanted.currency is None else LOOKED_MAX
    arguments: list[object] = [after, looked_max, wanted.type, wanted.currency]
    if wanted.owner is None:
        rows = await reader.fetch(SQL["list_accounts"], *arguments)
    else:
        rows = await reader.fetch(SQL["list_accounts_of_owner"], *arguments, wanted.owner)
    ids: list[str] = []
    for i, row in enumerate(rows):
        if row["matches"]:
            ids.append(row["id"])
        if len(ids) == limit and i + 1 < len(rows):
            return ids, row["id"]
    return ids, rows[-1]["id"] if len(rows) == looked_max else None


class Held(msgspec.Struct, frozen=True):
    """The verified rows of an account: sub-accounts in the order of slots, sum of the buffered credits, and heat."""

    sub_accounts: list[asyncpg.Record]
    pending: int
    heat: str


async def read_verified(reader: Reader, keys: Keys, account: Account, layout: Layout) -> Held:
    """Read all rows of an account in one query, and verify them. Raises Tampered.

    The work grows with the number of buffered credits of the account. Buffered credits are drained several times a
    second.
    """
    return held_of(keys, account, layout, await fetch_of(reader, account, "read_balances"))


def held_of(keys: Keys, account: Account, layout: Layout, rows: Sequence[asyncpg.Record]) -> Held:
    """Verify all rows of `read_balances` of an account, and add them up. Raises Tampered."""
    sub_accounts = [row for row in rows if row["shard"] is not None]
    check_sub_accounts(keys, account, layout, sub_accounts)
    buffered = [
        BufferedCredit(
            row["held"],
            row["slot"],
            row["seq"],
            row["voucher_id"],
            row["posted"],
            row["accounting_date"],
            clock.us(row["posted_at"]),
            row["key_version"],
            row["mac"],
            row["module"],
        )
        for row in rows[len(sub_accounts) :]
    ]
    check_buffered(keys, account, buffered)
    return Held(sub_accounts, sum(row.amount for row in buffered), rows[0]["heat"])


async def balance_at(reader: Reader, keys: Keys, account: Account, layout: Layout, at: datetime) -> tuple[int, int]:
    """Return `(posted, held)` of an account at the time `at`, in the account's normal direction. Raises Tampered."""
    async with snapshot(reader) as frozen:
        sub_accounts = (await read_verified(frozen, keys, account, layout)).sub_accounts
        positions = await positions_at(frozen, keys, account, sub_accounts, at)
        held = 0
        for row in await fetch_of(frozen, account, "holds_at", at):
            message = partial(hold_message, row, row["layout"], row["key_version"])
            if not verifies(keys, row["key_version"], row["mac"], message):
                raise Tampered(account, account.shard, row["slot"], f"hold {row['id']} does not match its MAC", row)
            held += row["amount"]
    return sum(position.balance for position in positions) * account.type.normal, held
