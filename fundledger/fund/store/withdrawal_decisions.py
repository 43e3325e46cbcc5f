"""Store of the fund service: the decisions about withdrawals, and the amount of a withdrawal of all."""

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.fees import FeeRule, charge_of, largest_with_fee
from fundledger.fund.model.order import Order
from fundledger.fund.model.payee import refusal_of
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX
from fundledger.fund.store.decisions import Locked
from fundledger.fund.store.mac_layouts import Day


def withdraw(draft: Draft, key: Day, withdrawn: dict[Day, int], locked: Locked) -> Refusal | OrderFault | None:
    """Reserve a withdrawal from the daily limit, if its payee permits it. Its voucher also repays the whole debt of the
    merchant, so that the merchant can withdraw only the rest. Decide the amount of a withdrawal of all. `key`: the
    merchant and the day.
    """
    order = draft.order
    payee = None if order.payee is None else locked.payees.get(order.payee)
    no = refusal_of(order, payee, is_registered=order.merchant in locked.with_payees)
    if no is not None:
        return no
    if key not in withdrawn:
        detail = f"the withdrawn amount of merchant {key[0]} on {key[1]} does not match its MAC"
        return OrderFault(detail, tampered=True)
    if order.takes_all and order.merchant not in locked.unverified_debts:
        no = take_all(order, rule_of(draft), draft.debitable, locked.debts.get(order.merchant, 0))
        if no is not None:
            return no
    limit = limit_of(draft, locked)
    if limit is not None and withdrawn[key] + order.amount > limit:
        detail = f"{withdrawn[key]} of the daily limit of {limit} are already withdrawn"
        return Refusal(Code.WITHDRAWAL_LIMIT_EXCEEDED, detail, "amount")
    if order.merchant in locked.unverified_debts:
        return OrderFault(locked.unverified_debts[order.merchant], tampered=True)
    if order.merchant in locked.undecided:
        # If the outcome increases the debt, this withdrawal would take money that the merchant owes.
        detail = f"an order that may change the debt of merchant {order.merchant} is in progress"
        return Refusal(Code.DEBT_IN_PROGRESS, detail)
    owed = locked.debts.get(order.merchant, 0)
    if order.amount + order.fee + owed > AMOUNT_MAX:
        return Refusal(Code.DEBT_EXCEEDED, f"amount, fee and the debt of {owed} exceed {AMOUNT_MAX}", "amount")
    order.set_off = owed
    locked.debts[order.merchant] = 0
    withdrawn[key] += order.amount
    return None


def limit_of(draft: Draft, locked: Locked) -> int | None:
    """Return the daily limit of a merchant: that of its locked row, which is newer than that of a cache."""
    terms = locked.terms.get(draft.order.merchant)
    if terms is not None:
        return terms.withdrawal_limit
    return None if draft.merchant is None else draft.merchant.withdrawal_limit


def rule_of(draft: Draft) -> FeeRule | None:
    """Return the fee rule by which an order was charged."""
    rules = [] if draft.merchant is None else draft.merchant.fee_rules
    return next((rule for rule in rules if rule.version == draft.order.fee_version), None)


def take_all(order: Order, rule: FeeRule | None, debitable: int, owed: int) -> Refusal | None:
    """Set the amount and the fee of a withdrawal of all: the largest amount that, with its fee and the debt `owed`, the
    available balance `debitable` covers. Return a refusal if there is no such amount.
    """
    amount = largest_with_fee(rule, min(debitable, AMOUNT_MAX) - owed)
    if amount <= 0:
        detail = f"{debitable} of the available balance can be debited, not more than the debt of {owed} and the fee"
        return Refusal(Code.NOTHING_TO_WITHDRAW, detail)
    order.amount, (order.fee, order.tax) = amount, charge_of(rule, amount)
    return None
