"""A model of the business of money: the balance of every account after each order, in exact integers.

It is written from the design of the fund service, and shares no code with it. One order is requested after the other,
so each outcome is certain. A balance is credits minus debits.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from tests.support.calendar_model import CalendarModel, Terms

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
    `returned`: the part that went back to the payer. `due`: the day on which a payment is settled automatically.
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
    due: date | None = None
    moves: Moves = field(default_factory=dict)

    def take_pending(self, amount: int) -> int:
        """Take a part of the pending amount, with its share of the fee. Return this share."""
        share = share_of(self.fee_due, self.pending, amount)
        self.pending -= amount
        self.fee_due -= share
        return share


@dataclass(eq=False)
class Slip:
    """An order that may be reversed, or a withdrawal that may be ended."""

    number: str
    kind: str
    moves: Moves
    amount: int = 0
    fee: int = 0
    is_open: bool = True


@dataclass(eq=False)
class Merchant:
    """A merchant. `held`: its accounts take no entries. `parked`: orders that wait, as (number, payment or None, moves,
    amount).
    """

    id: str
    currency: str
    rule: Rule
    payout_rule: Rule
    terms: Terms = field(default_factory=Terms)
    payments: list[Payment] = field(default_factory=list)
    slips: list[Slip] = field(default_factory=list)
    withdrawals: list[Slip] = field(default_factory=list)
    held: bool = False
    parked: "list[tuple[str, Payment | None, int, int]]" = field(default_factory=list)

    def of(self, name: str) -> str:
        return f"merchant:{self.id}:{name}"


def share_of(fee: int, whole: int, part: int) -> int:
    """Return the share of a fee for a part of an amount, rounded down. The last part takes the rest."""
    return fee if part == whole else fee * part // whole


class Platform:
    """The accounts of a platform. `home`: the currency whose accounts have no suffix. `now`: the time of new orders."""

    def __init__(self, channel: str, home: str = "CNY", days: CalendarModel | None = None) -> None:
        self.balances: Counter[str] = Counter()
        self.days = days or CalendarModel()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.channel = channel
        self.home = home

    def named(self, name: str, currency: str) -> str:
        return name if currency == self.home else f"{name}:{currency}"

    def bank(self, currency: str) -> str:
        return self.named(f"bank:{self.channel}", currency)

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
        due = m.terms.due(self.days, self.now) if later else None
        payment = Payment(number, amount, m.rule.of(amount), later, POSTED, due=due)
        m.payments.append(payment)
        if self._take_in(m, payment, self.bank(m.currency)) == POSTED:
            return POSTED
        payment.state, payment.was_parked = PARKED, True
        m.parked.append((number, payment, amount, 0))
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

    def settle(self, m: Merchant, amount: int | None, day: date | None = None) -> str:
        open_ = [p for p in m.payments if p.later and p.state == POSTED and p.pending]
        if day is not None:
            open_ = [p for p in open_ if p.due is not None and p.due <= day]
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

    def refund(self, m: Merchant, payment: Payment, amount: int) -> str:
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
            self.bank(m.currency): amount,
        }
        if self._post(m, moves) == REFUSED:
            return REFUSED
        if pending:
            payment.take_pending(pending)
        payment.kept -= settled
        payment.fee_paid -= fee
        payment.returned += amount
        return POSTED

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
        m.parked.append((number, None, amount, pending))
        self.move({self.named("suspense:parked", m.currency): -amount, self.bank(m.currency): amount})
        return PARKED

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
        source = self.named("suspense:parked", m.currency)
        for _, payment, amount, pending in parked:
            if payment is None:
                assert self._take_back(m, amount, pending, source) == POSTED
            else:
                assert self._take_in(m, payment, source) == POSTED
        return [number for number, *_ in parked]

    # --- Money out ---

    def withdraw(self, m: Merchant, number: str, amount: int) -> str:
        fee, debt = m.payout_rule.of(amount), self.debt(m)
        transit = self.named(f"transit:payout:{self.channel}", m.currency)
        moves = {
            m.of("available"): -amount - fee - debt,
            m.of("receivable"): debt,
            transit: amount,
            self.named("income:fee", m.currency): fee,
        }
        if any(payment is None for _, payment, *_ in m.parked):
            return "debt-in-progress"
        outcome = self._post(m, moves)
        if outcome == POSTED:
            m.withdrawals.append(Slip(number, "withdrawal", moves, amount, fee))
        return outcome

    def withdraw_all(self, m: Merchant, number: str) -> str:
        left = 0 if m.held else self.balances[m.of("available")] - self.debt(m)
        # The fee of a larger amount is never smaller, so the first amount that fits is the largest.
        amount = next((a for a in range(left, 0, -1) if a + m.payout_rule.of(a) <= left), 0)
        return self.withdraw(m, number, amount) if amount else "nothing-to-withdraw"

    def end(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit = self.named(f"transit:payout:{self.channel}", m.currency)
        slip.is_open = False
        if paid:
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        back = self._credit(m, slip.amount + slip.fee)
        outcome = self._post(m, {transit: -slip.amount, self.named("income:fee", m.currency): -slip.fee, **back})
        assert outcome == POSTED
        return "bounced"

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
        moves = {account: -amount for account, amount in slip.moves.items()}
        if m is None:
            self.move(moves)
        elif self._post(m, moves) == REFUSED:
            return REFUSED
        slip.is_open = False
        return POSTED
