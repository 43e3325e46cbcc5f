"""Answers of the account service: conversion of a page of an account's statement to JSON and to CSV."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from fundledger.app.account.answers import structs as answers
from fundledger.app.http.wire.reply import encode
from fundledger.json_values import time_text
from fundledger.ledger.model.account import Account
from fundledger.ledger.statement.pages import StatementEntry

COLUMNS: Final = [name for name in answers.StatementEntry.__struct_fields__ if not name.endswith("_text")]


class _OfOrder(msgspec.Struct):
    """The members of a voucher's metadata that identify its order."""

    order_no: Any = None
    kind: Any = None


def as_json(account: Account, lines: Sequence[StatementEntry], cursor: str | None) -> bytes:
    return encode(answers.Statement([_entry(account, line) for line in lines], cursor))


def rows(account: Account, lines: Sequence[StatementEntry]) -> Iterator[list[object]]:
    """Yield a row of CSV for each line."""
    for line in lines:
        entry = _entry(account, line)
        others = " ".join(entry.counter_accounts)
        yield [others if name == "counter_accounts" else getattr(entry, name) for name in COLUMNS]


def _entry(account: Account, line: StatementEntry) -> answers.StatementEntry:
    """Return the answer for a line of a statement. `counter_account` is null unless the other side has one account."""
    source = line.source
    others = [] if source is None else source.counter_accounts(line.side)
    order = _of_order(None if source is None else source.metadata)
    return answers.StatementEntry(
        seq=line.seq,
        voucher_id=line.voucher_id,
        type=line.type,
        side=line.side,
        amount=line.amount,
        balance_after=line.balance_after,
        posted_at=time_text(line.posted_at),
        accounting_date=line.accounting_date,
        slot=line.slot,
        summary=line.summary,
        currency=account.currency,
        reference=None if source is None else source.reference,
        counter_account=others[0] if len(others) == 1 else None,
        counter_accounts=others,
        order_no=order.order_no if isinstance(order.order_no, str) else None,
        kind=order.kind if isinstance(order.kind, str) else None,
    )


def _of_order(metadata: str | None) -> _OfOrder:
    if metadata is None:
        return _OfOrder()
    try:
        return msgspec.json.decode(metadata, type=_OfOrder)
    except msgspec.MsgspecError:
        return _OfOrder()
