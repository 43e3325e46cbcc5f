"""Requests of the account service: conversion of voucher bodies to ledger vouchers, with account look-up."""

from collections.abc import Callable, Sequence
from typing import Any

from fundledger.app.account.requests.bodies import VoucherBody, account_id, voucher_id, voucher_type
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.batch_decoding import LoopTurn, at
from fundledger.app.http.bodies.decoding import metadata
from fundledger.app.http.problems import BadRequest
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.voucher import Voucher, digest_of


def to_voucher(
    parsed: VoucherBody,
    module: str,
    find: Callable[[str], Account | None],
    *,
    looked_up: bool = False,
    hold: str | None = None,
    hold_shard: int = 0,
    hold_place: int = 0,
) -> Voucher | None:
    """Return the voucher for a body, or None if an account must be looked up first. Raises BadRequest.

    `find` returns the account with an id, or None. `looked_up`: all accounts were looked up before, so an account for
    which `find` returns None does not exist.
    """
    lines: list[tuple[Account, int]] = []
    asked: list[tuple[str, int]] = []
    imbalance = 0
    unknown: str | None = None
    for entry in parsed.entries:
        amount = entry.amount if entry.side == "credit" else -entry.amount
        imbalance += amount
        account = find(entry.account)
        if account is None:
            if not looked_up:
                return None
            unknown = unknown or entry.account
        else:
            lines.append((account, amount))
        asked.append((entry.account, amount))
    meta = metadata(parsed.metadata)
    type_ = voucher_type(parsed.type)
    return Voucher(
        voucher_id(parsed.id),
        module,
        type_,
        lines if unknown is None else [],
        imbalance,
        digest_of(type_, asked, parsed.reference, meta, hold, None),
        parsed.reference,
        meta,
        hold,
        hold_shard,
        hold_place,
        unknown=unknown,
    )


async def accounts_of(bodies: Sequence[VoucherBody]) -> set[str]:
    """Return the account ids in the entries of the bodies. Raises BadRequest."""
    turn = LoopTurn()
    ids: set[str] = set()
    for i, body in enumerate(bodies):
        for j, entry in enumerate(body.entries):
            if entry.account not in ids:
                try:
                    ids.add(account_id(entry.account, f"entries[{j}].account"))
                except BadRequest as bad:
                    raise _at(bad, i, len(bodies)) from None
        if turn.is_over():
            await turn.next()
    return ids


async def prepare(
    service: Service, module: str, bodies: Sequence[VoucherBody], ids: set[str], **hold: Any
) -> list[Voucher]:
    """Return the vouchers for the bodies. `ids`: the ids of all accounts in the bodies. Makes at most one query.
    Raises BadRequest, Unavailable.
    """
    turn = LoopTurn()
    if any(service.directory.get(id_) is None for id_ in ids):
        # Malformed bodies are rejected before the database is queried.
        for i, body in enumerate(bodies):
            try:
                metadata(body.metadata)
                voucher_type(body.type)
                voucher_id(body.id)
            except BadRequest as bad:
                raise _at(bad, i, len(bodies)) from None
            if turn.is_over():
                await turn.next()
    found: dict[str, Account] = await service.reading(lambda: service.directory.resolve(service.pool, sorted(ids)))
    vouchers = []
    for i, body in enumerate(bodies):
        try:
            voucher = to_voucher(body, module, found.get, looked_up=True, **hold)
        except BadRequest as bad:
            raise _at(bad, i, len(bodies)) from None
        assert voucher is not None
        vouchers.append(voucher)
        if turn.is_over():
            await turn.next()
    return vouchers


def _at(bad: BadRequest, index: int, of: int) -> BadRequest:
    return bad if of == 1 else at(bad, f"vouchers[{index}]")
