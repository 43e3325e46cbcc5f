"""A model of the business of money: the balance of every account after each order, in exact integers.

It is written from the design of the fund service, and shares no code with it. One order is requested after the other,
so each outcome is certain. A balance is credits minus debits.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

POSTED, REFUSED, PARKED = "posted", "refused", "parked"
Moves = dict[str, int]


@dataclass(eq=False)
class Rule:
    """A fee: basis points rounded half up, plus a fixed part, within bounds, and never more than the amount."""

    points: int
    fixed: int = 0
    least: int = 0
    most: int | None = None

    def of(self, amount: int) -> int:
        fee = max(self.least, (amount * self.points + 5_000) // 10_000 + self.fixed)
        return min(amount, fee if self.most is None else min(fee, self.most))


@dataclass(eq=False)
class Payment:
    """A payment. `pending`: the part that is neither settled, nor refunded, nor charged back from the pending balance.
    `kept`: the settled part that is not refunded. `fee_due` and `fee_paid`: the parts of the fee that belong to them.
    `returned`: the part that went back to the payer.
    """

    number: str
    amount: int
    fee: int
    later: bool
    state: str
    pending: int = 0
    kept: int = 0
    fee_due: int = 0
    fee_paid: int = 0
    returned: int = 0
    has_settled: bool = False
    was_parked: bool = False
    moves: Moves = field(default_factory=dict)

    def take_pending(self, amount: int) -> int:
        """Take a part of the pending amount, with its share of the fee. Return this share."""
        share = share_of(self.fee_due, self.pending, amount)
        self.pending -= amount
        self.fee_due -= share
        return share


@dataclass(eq=False)
class Slip:
    """An order that may be reversed, or a withdrawal or a refund that may be ended.

    `pending`, `waived`: of a refund, the pending part of its payment that it took, and the fee of this part. `of`: the
    withdrawal of a payout return. `returned`: the part of a paid withdrawal that came back.
    """

    number: str
    kind: str
    moves: Moves
    amount: int = 0
    fee: int = 0
    is_open: bool = True
    payment: Payment | None = None
    pending: int = 0
    waived: int = 0
    of: "Slip | None" = None
    returned: int = 0
    was_parked: bool = False


@dataclass(eq=False)
class Parked:
    """An order that waits. `take`: post the order from an account, and return the outcome."""

    number: str
    take: Callable[[str], str]
    makes_debt: bool = False


@dataclass(eq=False)
class Merchant:
    """A merchant. `held`: its accounts take no entries. `withdrawals` and `refunds` have no end, `payouts` are paid."""

    id: str
    currency: str
    rule: Rule
    payout_rule: Rule
    payments: list[Payment] = field(default_factory=list)
    slips: list[Slip] = field(default_factory=list)
    withdrawals: list[Slip] = field(default_factory=list)
    refunds: list[Slip] = field(default_factory=list)
    payouts: list[Slip] = field(default_factory=list)
    held: bool = False
    parked: list[Parked] = field(default_factory=list)

    def of(self, name: str) -> str:
        return f"merchant:{self.id}:{name}"


def share_of(fee: int, whole: int, part: int) -> int:
    """Return the share of a fee for a part of an amount, rounded down. The last part takes the rest."""
    return fee if part == whole else fee * part // whole


class Platform:
    """The accounts of a platform. `home`: the currency whose accounts have no suffix."""

    def __init__(self, channel: str, home: str = "CNY") -> None:
        self.balances: Counter[str] = Counter()
        self.channel = channel
        self.home = home

    def named(self, name: str, currency: str) -> str:
        return name if currency == self.home else f"{name}:{currency}"

    def bank(self, currency: str) -> str:
        return self.named(f"bank:{self.channel}", currency)

    def transit(self, what: str, currency: str) -> str:
        return self.named(f"transit:{what}:{self.channel}", currency)

    def debt(self, merchant: Merchant) -> int:
        return -self.balances[merchant.of("receivable")]

    def move(self, moves: Moves) -> None:
        assert sum(moves.values()) == 0, moves
        self.balances.update(moves)

    def _post(self, merchant: Merchant, moves: Moves) -> str:
        """Post entries unless an account of the merchant is held, or would be overdrawn."""
        moves = {account: amount for account, amount in moves.items() if amount}
        own = {account: amount for account, amount in moves.items() if account.startswith("merchant:")}
        is_short = any(
            amount < 0 and self.balances[account] + amount < 0
            for account, amount in own.items()
            if not account.endswith(":receivable")
        )
        if own and (merchant.held or is_short):
            return REFUSED
        self.move(moves)
        return POSTED

    def _credit(self, merchant: Merchant, amount: int) -> Moves:
        """Return the credit of a merchant: its debt is repaid first."""
        repaid = min(amount, self.debt(merchant))
        return {merchant.of("receivable"): repaid, merchant.of("available"): amount - repaid}

    # --- Money in ---

    def pay(self, m: Merchant, number: str, amount: int, *, later: bool) -> str:
        payment = Payment(number, amount, m.rule.of(amount), later, POSTED)
        m.payments.append(payment)
        if self._take_in(m, payment, self.bank(m.currency)) == POSTED:
            return POSTED
        payment.state, payment.was_parked = PARKED, True
        return self._park(m, Parked(number, lambda source: self._take_in(m, payment, source)), amount)

    def _park(self, m: Merchant, parked: Parked, amount: int) -> str:
        """Park an order. `amount`: the money that the bank received, negative if the bank paid it."""
        m.parked.append(parked)
        self.move({self.bank(m.currency): -amount, self.named("suspense:parked", m.currency): amount})
        return PARKED

    def _take_in(self, m: Merchant, payment: Payment, source: str) -> str:
        amount, fee = payment.amount, payment.fee
        if payment.later:
            moves = {source: -amount, m.of("pending"): amount}
        else:
            moves = {source: -amount, self.named("income:fee", m.currency): fee, **self._credit(m, amount - fee)}
        if self._post(m, moves) == REFUSED:
            return REFUSED
        payment.state, payment.moves = POSTED, moves
        if payment.later:
            payment.pending, payment.fee_due = amount, fee
        else:
            payment.kept, payment.fee_paid = amount, fee
        return POSTED

    def settle(self, m: Merchant, amount: int | None) -> str:
        open_ = [p for p in m.payments if p.later and p.state == POSTED and p.pending]
        pending = sum(p.pending for p in open_)
        if not pending:
            return "nothing-to-settle"
        wanted = pending if amount is None else amount
        if wanted > pending:
            return "settlement-exceeds-pending"
        parts, left = [], wanted
        for payment in open_:
            part = min(left, payment.pending)
            if part:
                parts.append((payment, part, share_of(payment.fee_due, payment.pending, part)))
                left -= part
        fee = sum(share for _, _, share in parts)
        moves = {m.of("pending"): -wanted, self.named("income:fee", m.currency): fee, **self._credit(m, wanted - fee)}
        if self._post(m, moves) == REFUSED:
            return REFUSED
        for payment, part, share in parts:
            payment.take_pending(part)
            payment.kept += part
            payment.fee_paid += share
            payment.has_settled = True
        return POSTED

    # --- Money back to the payer ---

    def refund(self, m: Merchant, number: str, payment: Payment, amount: int) -> str:
        if (no := self._unreturnable(payment)) is not None:
            return no
        if amount > payment.amount - payment.returned:
            return "refund-exceeds-payment"
        pending = min(amount, payment.pending)
        settled = amount - pending
        fee = share_of(payment.fee_paid, payment.kept, settled) if settled else 0
        moves = {
            m.of("pending"): -pending,
            m.of("available"): fee - settled,
            self.named("income:fee", m.currency): -fee,
            self.transit("refund", m.currency): amount,
        }
        if self._post(m, moves) == REFUSED:
            return REFUSED
        waived = payment.take_pending(pending) if pending else 0
        payment.kept -= settled
        payment.fee_paid -= fee
        payment.returned += amount
        m.refunds.append(Slip(number, "refund", moves, amount, fee, True, payment, pending, waived))
        return POSTED

    def end_refund(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit, payment = self.transit("refund", m.currency), slip.payment
        m.refunds.remove(slip)
        if paid:
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        assert payment is not None
        settled = slip.amount - slip.pending
        back = {m.of("pending"): slip.pending, **self._credit(m, settled - slip.fee)}
        outcome = self._post(m, {transit: -slip.amount, self.named("income:fee", m.currency): slip.fee, **back})
        assert outcome == POSTED
        payment.pending += slip.pending
        payment.fee_due += slip.waived
        payment.kept += settled
        payment.fee_paid += slip.fee
        payment.returned -= slip.amount
        return "bounced"

    def charge_back(self, m: Merchant, number: str, payment: Payment, amount: int) -> str:
        if (no := self._unreturnable(payment)) is not None:
            return no
        if amount > payment.amount - payment.returned:
            return "chargeback-exceeds-payment"
        pending = min(amount, payment.pending)
        if pending:
            payment.take_pending(pending)
        payment.returned += amount
        if self._take_back(m, amount, pending, self.bank(m.currency)) == POSTED:
            return POSTED
        take = Parked(number, lambda target: self._take_back(m, amount, pending, target), makes_debt=True)
        return self._park(m, take, -amount)

    def _take_back(self, m: Merchant, amount: int, pending: int, target: str) -> str:
        rest = amount - pending
        available = min(rest, self.balances[m.of("available")])
        own = {
            m.of("pending"): -pending,
            m.of("available"): -available,
            m.of("receivable"): available - rest,
        }
        return self._post(m, {**own, target: amount})

    def _unreturnable(self, payment: Payment) -> str | None:
        if payment.state == PARKED:
            return "payment-not-posted"
        return "order-already-reversed" if payment.state == "reversed" else None

    def release(self, m: Merchant) -> list[str]:
        """Release the parked orders of a merchant whose accounts are not held. Return their numbers, in order."""
        parked, m.parked = m.parked, []
        for order in parked:
            assert order.take(self.named("suspense:parked", m.currency)) == POSTED
        return [order.number for order in parked]

    # --- Money out ---

    def withdraw(self, m: Merchant, number: str, amount: int) -> str:
        fee, debt = m.payout_rule.of(amount), self.debt(m)
        moves = {
            m.of("available"): -amount - fee - debt,
            m.of("receivable"): debt,
            self.transit("payout", m.currency): amount,
            self.named("income:fee", m.currency): fee,
        }
        if any(order.makes_debt for order in m.parked):
            return "debt-in-progress"
        outcome = self._post(m, moves)
        if outcome == POSTED:
            m.withdrawals.append(Slip(number, "withdrawal", moves, amount, fee))
        return outcome

    def end(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit = self.transit("payout", m.currency)
        m.withdrawals.remove(slip)
        if paid:
            m.payouts.append(slip)
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        back = self._credit(m, slip.amount + slip.fee)
        outcome = self._post(m, {transit: -slip.amount, self.named("income:fee", m.currency): -slip.fee, **back})
        assert outcome == POSTED
        return "bounced"

    def return_payout(self, m: Merchant, number: str, payout: Slip, amount: int, *, with_fee: bool) -> str:
        if payout not in m.payouts:
            return "withdrawal-not-paid"
        if amount > payout.amount - payout.returned:
            return "return-exceeds-withdrawal"
        fee = payout.fee * amount // payout.amount if with_fee else 0
        slip = Slip(number, "payout_return", {}, amount, fee, of=payout)
        payout.returned += amount
        m.slips.append(slip)
        if self._take_returned(m, slip, self.bank(m.currency)) == POSTED:
            return POSTED
        slip.was_parked = True
        return self._park(m, Parked(number, lambda source: self._take_returned(m, slip, source)), amount)

    def _take_returned(self, m: Merchant, slip: Slip, source: str) -> str:
        credit = self._credit(m, slip.amount + slip.fee)
        slip.moves = {source: -slip.amount, self.named("income:fee", m.currency): -slip.fee, **credit}
        return self._post(m, slip.moves)

    # --- Debts and corrections ---

    def recover(self, m: Merchant, amount: int) -> str:
        if amount > self.debt(m):
            return "debt-exceeded"
        return self._post(m, {m.of("available"): -amount, m.of("receivable"): amount})

    def write_off(self, m: Merchant, amount: int) -> str:
        if amount > self.debt(m):
            return "debt-exceeded"
        return self._post(m, {self.named("expense:loss", m.currency): -amount, m.of("receivable"): amount})

    def adjust(self, m: Merchant, number: str, amount: int, *, credit: bool) -> str:
        if credit:
            moves = {self.named("suspense:short", m.currency): -amount, **self._credit(m, amount)}
        else:
            moves = {m.of("available"): -amount, self.named("suspense:over", m.currency): amount}
        outcome = self._post(m, moves)
        if outcome == POSTED:
            m.slips.append(Slip(number, "adjustment", moves))
        return outcome

    def cost(self, number: str, amount: int, currency: str) -> Slip:
        moves = {self.named("expense:channel", currency): -amount, self.bank(currency): amount}
        self.move(moves)
        return Slip(number, "channel_cost", moves)

    def difference(self, number: str, amount: int, currency: str, *, more: bool) -> Slip:
        if more:
            moves = {self.bank(currency): -amount, self.named("suspense:over", currency): amount}
        else:
            moves = {self.named("suspense:short", currency): -amount, self.bank(currency): amount}
        self.move(moves)
        return Slip(number, "bank_difference", moves)

    def reverse_payment(self, m: Merchant, payment: Payment) -> str:
        if payment.state == "reversed":
            return "order-already-reversed"
        if payment.state != POSTED or payment.was_parked or payment.returned or payment.has_settled:
            return "order-not-reversible"
        outcome = self._post(m, {account: -amount for account, amount in payment.moves.items()})
        if outcome == POSTED:
            payment.state, payment.pending, payment.kept = "reversed", 0, 0
        return outcome

    def reverse(self, m: Merchant | None, slip: Slip) -> str:
        if not slip.is_open:
            return "order-already-reversed"
        if slip.was_parked:
            return "order-not-reversible"
        moves = {account: -amount for account, amount in slip.moves.items()}
        if m is None:
            self.move(moves)
        elif self._post(m, moves) == REFUSED:
            return REFUSED
        slip.is_open = False
        if slip.of is not None:
            slip.of.returned -= slip.amount
        return POSTED
