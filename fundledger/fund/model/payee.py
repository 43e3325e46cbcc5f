"""Model of the fund service: payees, the bank accounts to which a merchant withdraws, and the withdrawals that they
permit. Pure.

A payee never changes, so the payee of an order names one bank account permanently. A payee is only disabled. To correct
an account, register another payee that replaces it.
"""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from fundledger.fund.model.bank_account import (
    AccountNumber,
    BankAccount,
    BankCode,
    Holder,
    Iban,
    checked_iban,
    masked,
    require_one_number,
)
from fundledger.fund.model.order import Order
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Currency, Reason
from fundledger.json_values import Uuid, about

PAYEES_MAX: Final = 100
"""The maximum number of active payees of a merchant."""
PayeeState = Literal["active", "disabled"]


class Payee(msgspec.Struct, frozen=True):
    """A row of fund.payees. `id` is that of the change that registered the payee. Withdrawals to the payee are refused
    before `usable_from`. `registered_by` and `disabled_by` are identities. `replaces`: the payee that was disabled when
    this one was registered.
    """

    id: UUID
    merchant: str
    holder: str
    iban: str | None
    account: str | None
    bank_code: str | None
    currency: str
    state: PayeeState
    registered_by: str
    created_at: datetime
    usable_from: datetime
    replaces: UUID | None = None
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    disabled_why: str | None = None
    seq: int = 0

    @property
    def bank_account(self) -> BankAccount:
        return BankAccount(self.holder, self.iban, self.account, self.bank_code)


class PayeeRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A new payee of a merchant: `iban`, or `account` with `bank_code`. `replaces`: a payee that is disabled when this
    one is registered.
    """

    holder: Holder
    currency: Currency
    iban: Iban | None = None
    account: AccountNumber | None = None
    bank_code: BankCode | None = None
    replaces: Annotated[Uuid, about("id of the payee that this one replaces")] | None = None
    why: Reason | None = None

    def __post_init__(self) -> None:
        require_one_number(self.iban, self.account, self.bank_code)
        if self.iban is not None:
            self.iban = checked_iban(self.iban)

    @property
    def number(self) -> str:
        return self.iban or self.account or ""


def refusal_of(order: Order, payee: Payee | None, *, is_registered: bool) -> Refusal | None:
    """Return why a withdrawal to a payee is refused, or None. `payee`: the payee that the order names, None if there is
    no such payee. `is_registered`: the merchant has a payee, or had one before it was disabled.
    """
    no = refusal_for(order.merchant, order.currency, order.payee, payee, is_registered=is_registered)
    if no is not None or payee is None:
        return no
    if payee.usable_from > order.created_at:
        usable = payee.usable_from.isoformat(timespec="seconds")
        return Refusal(Code.PAYEE_COOLING, f"payee {payee.id} is usable from {usable}", "payee")
    return None


def refusal_for(
    merchant: str, currency: str, named: UUID | None, payee: Payee | None, *, is_registered: bool
) -> Refusal | None:
    """Return why a merchant cannot withdraw to the payee `named`, or None. The cooling time is ignored."""
    if named is None:
        detail = f"merchant {merchant} has registered payees, and its withdrawals have to name one"
        return Refusal(Code.PAYEE_REQUIRED, detail, "payee") if is_registered else None
    no = _unusable(merchant, currency, named, payee)
    return None if no is None else Refusal(Code.PAYEE_NOT_FOUND, no, "payee")


def unusable(order: Order, payee: Payee | None) -> str | None:
    """Return why a withdrawal cannot be paid out to its payee, or None if it can be."""
    return _unusable(order.merchant, order.currency, order.payee, payee)


def _unusable(merchant: str, currency: str, named: UUID | None, payee: Payee | None) -> str | None:
    if payee is None or (payee.merchant, payee.currency) != (merchant, currency):
        return f"merchant {merchant} has no payee {named} in {currency}"
    if payee.state == "disabled":
        return f"payee {payee.id} ({masked(payee.bank_account.number)}) is disabled"
    return None
