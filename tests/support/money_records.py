"""The records of the model of the business of money: fee rules, payments, orders that can be undone, merchants."""

from dataclasses import dataclass, field
from datetime import date

from tests.support.calendar_model import Terms

POSTED, REFUSED, PARKED, CLEARED = "posted", "refused", "parked", "cleared"
OWN = ("available", "pending", "receivable")
Moves = dict[str, int]


@dataclass(eq=False)
class Rule:
    """A fee: basis points rounded half up, plus a fixed part, within bounds, and never more than the amount. `tax`: the
    basis points of the tax on the fee, which the fee includes, unless it is `added`. `keeps`: refunds return no fee.
    """

    points: int
    fixed: int = 0
    least: int = 0
    most: int | None = None
    tax: int = 0
    added: bool = False
    keeps: bool = False

    def of(self, amount: int, commission: int | None = None) -> tuple[int, int]:
        """Return what is charged, and the part of it that is tax."""
        fee = max(self.least, half_up(amount * self.points, 10_000) + self.fixed)
        fee = min(amount, fee if self.most is None else min(fee, self.most))
        if commission is not None:
            fee = commission
        if self.added:
            tax = half_up(fee * self.tax, 10_000)
            if fee + tax <= amount:
                return fee + tax, tax
            fee = amount
        return fee, half_up(fee * self.tax, 10_000 + self.tax)


@dataclass(eq=False)
class Payment:
    """A payment. `pending`: the part that is neither settled, nor refunded, nor charged back from the pending balance.
    `refunded_pending`: the part that was refunded from the
    pending balance. `kept`: the settled part that is not refunded. `fee_due` and `fee_paid`: the parts of the fee that belong to them.
    `fee_open` and `tax_open`: what no settlement has charged, whether it is still due or waived. `tax_paid`: the tax in
    `fee_paid`. `keeps`: refunds return no fee. `charged`: the part of `kept` that was charged back. `returned`: the part
    that went back to the payer. `settled`: the part of a payment to be settled later that is settled. `due`: the day on
    which it is settled automatically.
    """

    number: str
    amount: int
    fee: int
    tax: int
    later: bool
    state: str
    keeps: bool = False
    pending: int = 0
    kept: int = 0
    refunded_pending: int = 0
    fee_due: int = 0
    fee_paid: int = 0
    fee_open: int = 0
    tax_open: int = 0
    tax_paid: int = 0
    charged: int = 0
    returned: int = 0
    settled: int = 0
    was_parked: bool = False
    due: date | None = None
    moves: Moves = field(default_factory=dict)

    def take_pending(self, amount: int) -> int:
        """Take a part of the pending amount, with its share of the fee. Return this share. A fee that refunds keep belongs
        to the amount that would be pending without them.
        """
        share = share_of(self.fee_due, self.pending + (self.refunded_pending if self.keeps else 0), amount)
        self.pending -= amount
        self.fee_due -= share
        return share


@dataclass(eq=False)
class Slip:
    """An order that may be reversed, or that may be ended. `parts`: the settled payments, each with its part, the share
    of the fee and the tax in it. `became_debt`: a part of it was not covered. `parked`: the parked order that it cleared.

    `payment`, `pending`, `waived`: of a refund, its payment, the pending part that it took, and the fee of this part.
    `of`: the withdrawal of a payout return. `returned`: the part of a paid withdrawal that came back. `invoice`: the
    invoice that a payable payment pays.
    """

    number: str
    kind: str
    moves: Moves
    amount: int = 0
    fee: int = 0
    tax: int = 0
    is_open: bool = True
    parts: "list[tuple[Payment, int, int, int]]" = field(default_factory=list)
    became_debt: bool = False
    was_parked: bool = False
    parked: "Parked | None" = None
    other: "Merchant | None" = None
    payment: Payment | None = None
    pending: int = 0
    waived: int = 0
    of: "Slip | None" = None
    returned: int = 0
    invoice: "Invoice | None" = None


@dataclass(eq=False)
class Invoice:
    """An invoice of the channel. `paid`: what payments that are not reversed have paid."""

    number: str
    currency: str
    amount: int
    paid: int = 0
    is_open: bool = True


@dataclass(eq=False)
class Charge:
    """A chargeback or a dispute: `pending` and `share` were taken from the pending part of the payment and its fee.
    `won`: what came back of it.
    """

    number: str
    kind: str
    payment: Payment
    amount: int
    pending: int
    share: int
    state: str
    won: int = 0

    @property
    def settled(self) -> int:
        return self.amount - self.pending


@dataclass(eq=False)
class Parked:
    """A parked order. `outside`: the account whose money is in suspense. `of`: the payment, the chargeback or the slip of
    the order.
    """

    number: str
    kind: str
    amount: int
    outside: str
    of: "Payment | Charge | Slip | None" = None

    @property
    def is_in(self) -> bool:
        return self.kind in ("payment", "payout_return", "top_up", "dispute_won")


@dataclass(eq=False)
class Merchant:
    """A merchant. `held`: its accounts take no entries, except for the reserve. `parked`: orders that wait. `withdrawals`
    and `refunds` have no end, `payouts` are paid.
    """

    id: str
    currency: str
    rule: Rule
    payout_rule: Rule
    terms: Terms = field(default_factory=Terms)
    payments: list[Payment] = field(default_factory=list)
    slips: list[Slip] = field(default_factory=list)
    withdrawals: list[Slip] = field(default_factory=list)
    refunds: list[Slip] = field(default_factory=list)
    payouts: list[Slip] = field(default_factory=list)
    held: bool = False
    in_parked_splits: int = 0
    """The number of parked split chargebacks with a part of the merchant."""
    parked: list[Parked] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)

    @property
    def may_owe_more(self) -> bool:
        """Whether a parked order may still change the debt."""
        parked = any(order.kind in ("chargeback", "dispute_fee") for order in self.parked)
        return parked or self.in_parked_splits > 0

    def of(self, name: str) -> str:
        return f"merchant:{self.id}:{name}"


def half_up(numerator: int, denominator: int) -> int:
    """Return the quotient, rounded half up."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest >= denominator)


def share_of(fee: int, whole: int, part: int) -> int:
    """Return the share of a fee for a part of an amount, rounded down. The last part takes the rest."""
    return fee if part == whole else fee * part // whole
