"""Answers of the account service: conversion of ledger records (vouchers, holds, accounts) to JSON.

Equal records give equal bytes, so a replay returns the bytes of the first answer.
"""

from collections.abc import Callable
from datetime import date
from typing import Final

import msgspec
from asyncpg.pgproto.pgproto import UUID
from msgspec import UNSET

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.answers.problems import refusal_members
from fundledger.app.account.answers.structs import STATUS_NAMES
from fundledger.app.http.wire.reply import encode
from fundledger.json_values import Balance, time_text
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Status
from fundledger.ledger.model.hold import Hold, HoldStatus
from fundledger.ledger.model.voucher import Record
from fundledger.ledger.store.accounts import AccountView

_decode_voucher: Final[Callable[[bytes], answers.Voucher]] = msgspec.json.Decoder(answers.Voucher).decode
_last_instant = (-1, "")
_last_status: tuple[int, date, str, str] = (-1, date.min, "", "")


def instant(us: int) -> str:
    """Return a time as RFC 3339 text in UTC, with microseconds.

    The last text is cached, because all vouchers of a batch have the same time.
    """
    global _last_instant  # noqa: PLW0603 - the cache of the last text
    if _last_instant[0] != us:
        _last_instant = (us, time_text(clock.moment(us)))
    return _last_instant[1]


def voucher(record: Record) -> bytes:
    """Return a posted voucher as JSON, for the first answer and for every replay.

    The bytes equal those of an encoded `answers.Voucher`. Each payment waits for this function, and joining text here
    is faster than the encoder. Ids and types need no escaping.
    """
    entries = ",".join(
        [
            f'{{"account":"{account.id}","side":"credit","amount":{amount}}}'
            if amount > 0
            else f'{{"account":"{account.id}","side":"debit","amount":{-amount}}}'
            for account, amount in record.lines
        ]
    )
    reference = "null" if record.reference is None else encode(record.reference).decode()
    more = ""
    if record.hold is not None:
        more += f',"hold":"{record.hold}"'
    if record.reverses is not None:
        more += f',"reverses":"{record.reverses}"'
    if record.metadata is not None:
        more += f',"metadata":{record.metadata}'
    return (
        f'{{"id":"{record.id}","type":"{record.type}",{_status(record)},"entries":[{entries}],"reference":{reference}{more}}}'
    ).encode()


def _status(record: Record) -> str:
    """Return the JSON members from `status` to `module`.

    The last text is cached, because all vouchers of a batch have the same time and most have the same module.
    """
    global _last_status  # noqa: PLW0603 - the cache of the last text
    us, date_, module, members = _last_status
    if us != record.posted_at_us or module != record.module or date_ != record.accounting_date:
        us, date_, module = record.posted_at_us, record.accounting_date, record.module
        members = f'"status":"posted","posted_at":"{instant(us)}","accounting_date":"{date_}","module":"{module}"'
        _last_status = (us, date_, module, members)
    return members


def voucher_members(record: Record, reversed_by: UUID | None) -> answers.Voucher:
    """Return a voucher with the id of its reversal, and with the problem if the voucher was refused."""
    found = _decode_voucher(voucher(record))
    if record.refusal is not None:
        found.status = "refused"
        found.problem = refusal_members(record.refusal)
    if reversed_by is not None:
        found.reversed_by = reversed_by
    return found


def hold(hold_: Hold, now_us: int) -> answers.Hold:
    status = HoldStatus.EXPIRED if hold_.expired_at(now_us) else hold_.status
    return answers.Hold(
        id=hold_.id,
        module=hold_.module,
        account=hold_.account.id,
        amount=hold_.amount,
        captured=hold_.captured,
        status=status.name.lower(),
        created_at=time_text(clock.moment(hold_.created_at_us)),
        expires_at=time_text(clock.moment(hold_.expires_at_us)) if hold_.expires_at_us else None,
        ended_at=time_text(clock.moment(hold_.ended_at_us)) if hold_.ended_at_us else None,
        voucher_id=hold_.voucher_id,
        problem=UNSET if hold_.refusal is None else refusal_members(hold_.refusal),
    )


def placed_hold(hold_: Hold) -> answers.Hold:
    """Return a hold in the state in which it was placed, without later changes."""
    first = msgspec.structs.replace(hold_, captured=0, status=HoldStatus.OPEN, voucher_id=None, ended_at_us=0)
    return hold(first, 0)


def account(view: AccountView) -> answers.Account:
    is_frozen_for_all = view.status in (Status.FROZEN_ALL, Status.FROZEN_INTEGRITY)
    return answers.Account(
        id=view.account.id,
        module=view.module,
        owner=view.owner,
        type=view.account.type.name,
        currency=view.account.currency,
        status=STATUS_NAMES[view.status],
        balance=Balance(view.posted, view.held, view.pending, view.available),
        version=view.version,
        sub_accounts=view.sub_accounts,
        heat=view.heat,
        posting="buffered" if view.account.buffered else "direct",
        created_at=time_text(view.created_at),
        metadata=UNSET if view.metadata is None else msgspec.Raw(view.metadata.encode()),
        frozen_scope="all" if is_frozen_for_all else UNSET,
    )
