"""Answers of the fund service about payees: their types, and the conversion of rows to these types."""

from typing import Annotated, Any, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers.structs import LeftOut, NextCursor
from fundledger.fund.model.bank_account import masked
from fundledger.fund.model.payee import Payee as StoredPayee
from fundledger.fund.model.payee import PayeeState
from fundledger.fund.model.requests import MerchantId
from fundledger.json_values import CurrencyCode, Instant, Uuid, about, time_text


class ListedPayee(msgspec.Struct):
    id: Annotated[Uuid, about("also the id of the change that registered the payee")]
    merchant: MerchantId
    holder: str
    number: Annotated[str, about("the IBAN or account number; in lists only its last four characters")]
    currency: CurrencyCode
    state: Annotated[str, about("a disabled payee is never active again", enum=list(get_args(PayeeState)))]
    registered_by: Annotated[str, about("the identity that requested the payee")]
    created_at: Instant
    usable_from: Annotated[Instant, about("earlier withdrawals to the payee are refused")]
    disabled_at: Instant | UnsetType = UNSET
    disabled_by: str | UnsetType = UNSET
    disabled_why: str | UnsetType = UNSET
    replaces: Annotated[Uuid, about("the payee that was disabled when this one was registered")] | UnsetType = UNSET


class Payee(ListedPayee):
    iban: str | UnsetType = UNSET
    account: Annotated[str, about("national account number, if there is no IBAN")] | UnsetType = UNSET
    bank_code: Annotated[str, about("code of the bank, or its BIC")] | UnsetType = UNSET


class Payees(msgspec.Struct):
    payees: Annotated[list[ListedPayee], about("in the sequence of their registration, also disabled ones")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


def listed(payee: StoredPayee) -> ListedPayee:
    """Return a payee with a masked account number."""
    return ListedPayee(**_members(payee, masked(payee.bank_account.number)))


def full(payee: StoredPayee) -> Payee:
    """Return a payee with its whole account number."""
    account = {name: _or_unset(getattr(payee, name)) for name in ("iban", "account", "bank_code")}
    return Payee(**_members(payee, payee.bank_account.number), **account)


def _members(payee: StoredPayee, number: str) -> dict[str, Any]:
    always = ("id", "merchant", "holder", "currency", "state", "registered_by")
    times = {name: time_text(getattr(payee, name)) for name in ("created_at", "usable_from")}
    disabled = UNSET if payee.disabled_at is None else time_text(payee.disabled_at)
    maybe = {name: _or_unset(getattr(payee, name)) for name in ("disabled_by", "disabled_why", "replaces")}
    named = {name: getattr(payee, name) for name in always}
    return {**named, "number": number, **times, "disabled_at": disabled, **maybe}


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value
