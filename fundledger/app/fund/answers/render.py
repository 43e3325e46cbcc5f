"""Answers of the fund service: conversion of orders, histories of orders, merchants and fee rules to JSON.

The JSON of a single order is defined in `fund/model/order_json.py`, because the event feed and the webhooks of
`fundledger.fund` contain it, too. Everything that only HTTP answers contain is here.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers import structs as answers
from fundledger.app.http.wire.reply import encode
from fundledger.client.types import Account
from fundledger.fund.model import accounts
from fundledger.fund.model.days import cut_text
from fundledger.fund.model.fees import FeeRule, choose
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import Order
from fundledger.fund.model.order_json import published
from fundledger.fund.store.orders import Step
from fundledger.json_values import Balance, time_text

_decode_problem: Final[Callable[[bytes], answers.RefusedOrder]] = msgspec.json.Decoder(answers.RefusedOrder).decode


def raw(json: bytes | str) -> msgspec.Raw:
    """Return encoded JSON as a value that an answer can include unchanged."""
    return msgspec.Raw(json.encode() if isinstance(json, str) else json)


def order(order_: Order) -> bytes:
    return encode(published(order_))


def refused_order(order_: Order) -> bytes:
    """Return the problem that the account service answered, with the refused order as its member `order`."""
    assert order_.problem is not None
    problem = _decode_problem(order_.problem)
    # The status of this response is 422, whatever status the account service returned.
    problem.status, problem.order = 422, published(order_)
    return encode(problem)


def page(orders: Iterable[Order], next_cursor: str | None, unverified: list[answers.Unverified] | UnsetType) -> bytes:
    return encode(answers.Orders([published(each) for each in orders], next_cursor, unverified))


def history(order_: Order, steps: Iterable[Step]) -> bytes:
    states = [
        answers.Step(step.state, time_text(step.at), UNSET if step.detail is None else raw(step.detail))
        for step in steps
    ]
    return encode(answers.History(order_.id, states))


def merchant(merchant_: Merchant, balances: Mapping[str, Account] | None = None) -> answers.Merchant:
    """Return a merchant, with the balances of its accounts if they are given.

    `fees`: every rule that may apply, including the rules for all merchants. `fee`: the current fee of payments.
    """
    found = balances or {}
    rolling = (None, None, None) if merchant_.rolling is None else msgspec.structs.astuple(merchant_.rolling)
    shown = {id_: Balance(**msgspec.structs.asdict(account.balance)) for id_, account in found.items()}
    return answers.Merchant(
        merchant_.id,
        merchant_.name,
        merchant_.currency,
        merchant_.withdrawal_limit,
        merchant_.settlement,
        _fee_now(merchant_),
        [fee_rule(rule) for rule in merchant_.fee_rules],
        [name.id for name in accounts.of_merchant(merchant_.id)],
        time_text(merchant_.created_at),
        UNSET if balances is None else shown,
        merchant_.state,
        merchant_.settlement_days,
        None if merchant_.settlement_cut is None else cut_text(merchant_.settlement_cut),
        merchant_.settlement_region,
        *rolling,
    )


def _fee_now(merchant: Merchant) -> answers.FeeNow | None:
    """Return the current fee of a payment through a channel that has no fee rule of its own."""
    rule = choose(merchant.fee_rules, merchant.id, "payment", None, datetime.now(UTC))
    return None if rule is None else answers.FeeNow(rule.basis_points, rule.fixed, rule.minimum, rule.maximum)


def fee_rule(rule: FeeRule) -> answers.FeeRule:
    members: dict[str, Any] = msgspec.structs.asdict(rule)
    members["tiers"] = [answers.FeeTierShown(*msgspec.structs.astuple(tier)) for tier in rule.tiers]
    members["effective_at"] = time_text(rule.effective_at)
    return answers.FeeRule(**members)
