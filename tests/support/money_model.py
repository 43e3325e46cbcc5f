"""A model of the business of money: the balance of every account after each order, in exact integers.

It is written from the design of the fund service, and shares no code with it. One order is requested after the other,
so each outcome is certain. A balance is credits minus debits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

POSTED, REFUSED, PARKED = "posted", "refused", "parked"
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
        fee = max(self.least, (amount * self.points + 5_000) // 10_000 + self.fixed)
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
    `kept`: the settled part that is not refunded. `fee_due` and `fee_paid`: the parts of the fee that belong to them.
    `fee_open` and `tax_open`: what no settlement has charged, whether it is still due or waived. `tax_paid`: the tax in
    `fee_paid`. `keeps`: refunds return no fee. `returned`: the part that went back to the payer.
    """

    number: str
    amount: int
    fee: int
    tax: int
    later: bool
    state: str
    keeps: bool
    pending: int = 0
    kept: int = 0
    fee_due: int = 0
    fee_paid: int = 0
    fee_open: int = 0
    tax_open: int = 0
    tax_paid: int = 0
    returned: int = 0
    has_settled: bool = False
    was_parked: bool = False
    moves: Moves = field(default_factory=dict)

    def take_pending(self, amount: int, *, keeps: bool = False) -> None:
        """Take a part of the pending amount, with its share of the fee. `keeps`: the fee stays due, as far as the rest
        of the pending amount covers it.
        """
        share = share_of(self.fee_due, self.pending, amount)
        self.pending -= amount
        self.fee_due = min(self.fee_due, self.pending) if keeps else self.fee_due - share


@dataclass(eq=False)
class Slip:
    """An order that may be reversed, or a withdrawal that may be ended."""

    number: str
    kind: str
    moves: Moves
    amount: int = 0
    fee: int = 0
    tax: int = 0
    is_open: bool = True


@dataclass(eq=False)
class SplitPart:
    """The part of one merchant. `fee` and `tax`: what was charged and has not come back."""

    merchant: "Merchant"
    amount: int
    fee: int
    tax: int
    keeps: bool
    refunded: int = 0
    charged_back: int = 0

    @property
    def left(self) -> int:
        return self.amount - self.refunded - self.charged_back


@dataclass(eq=False)
class SplitPayment:
    number: str
    parts: list[SplitPart]
    state: str = POSTED
    was_parked: bool = False
    moves: Moves = field(default_factory=dict)

    @property
    def merchants(self) -> "list[Merchant]":
        return [part.merchant for part in self.parts]

    @property
    def left(self) -> int:
        return sum(part.left for part in self.parts)


@dataclass(eq=False)
class Invoice:
    """An invoice of the channel. `paid`: what payments that are not reversed have paid."""

    number: str
    currency: str
    amount: int
    paid: int = 0
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
    payments: list[Payment] = field(default_factory=list)
    slips: list[Slip] = field(default_factory=list)
    withdrawals: list[Slip] = field(default_factory=list)
    held: bool = False
    parked: "list[tuple[str, Payment | None, int, int]]" = field(default_factory=list)

    def of(self, name: str) -> str:
        return f"merchant:{self.id}:{name}"


def half_up(numerator: int, denominator: int) -> int:
    """Return the quotient, rounded half up."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest >= denominator)


def divided(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide an amount in proportion to weights. A unit that is left goes to the largest remainder, of equal ones to
    the first.
    """
    total = sum(weights)
    shares = [amount * weight // total for weight in weights]
    remainders = [amount * weight % total for weight in weights]
    for _ in range(amount - sum(shares)):
        first = remainders.index(max(remainders))
        shares[first] += 1
        remainders[first] = -1
    return shares


def share_of(fee: int, whole: int, part: int) -> int:
    """Return the share of a fee for a part of an amount, rounded down. The last part takes the rest."""
    return fee if part == whole else fee * part // whole


class Platform:
    """The accounts of a platform. `home`: the currency whose accounts have no suffix."""

    def __init__(self, channel: str, home: str = "CNY") -> None:
        self.balances: Counter[str] = Counter()
        self.channel = channel
        self.home = home
        self.parked_splits: list[tuple[str, SplitPayment, dict[str, int] | None]] = []
        """Split orders that wait, as (number, payment, amounts of a chargeback by merchant, or None for a payment)."""
        self.splits: list[SplitPayment] = []

    def named(self, name: str, currency: str) -> str:
        return name if currency == self.home else f"{name}:{currency}"

    def bank(self, currency: str) -> str:
        return self.named(f"bank:{self.channel}", currency)

    def debt(self, merchant: Merchant) -> int:
        return -self.balances[merchant.of("receivable")]

    def move(self, moves: Moves) -> None:
        assert sum(moves.values()) == 0, moves
        self.balances.update(moves)

    def _fee(self, currency: str, fee: int, tax: int) -> Moves:
        return {self.named("income:fee", currency): fee - tax, self.named("tax:output", currency): tax}

    def _post(self, merchant: Merchant | Sequence[Merchant], moves: Moves) -> str:
        """Post entries unless an account of a merchant is held, or would be overdrawn."""
        moves = {account: amount for account, amount in moves.items() if amount}
        own = {account: amount for account, amount in moves.items() if account.startswith("merchant:")}
        is_short = any(
            amount < 0 and self.balances[account] + amount < 0
            for account, amount in own.items()
            if not account.endswith(":receivable")
        )
        merchants = [merchant] if isinstance(merchant, Merchant) else merchant
        is_held = any(each.held and any(each.of(name) in own for name in OWN) for each in merchants)
        if is_held or is_short:
            return REFUSED
        self.move(moves)
        return POSTED

    def _credit(self, merchant: Merchant, amount: int) -> Moves:
        """Return the credit of a merchant: its debt is repaid first."""
        repaid = min(amount, self.debt(merchant))
        return {merchant.of("receivable"): repaid, merchant.of("available"): amount - repaid}

    # --- Money in ---

    def pay(self, m: Merchant, number: str, amount: int, *, later: bool) -> str:
        payment = Payment(number, amount, *m.rule.of(amount), later, POSTED, m.rule.keeps)
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
            moves = {source: -amount, **self._fee(m.currency, fee, payment.tax), **self._credit(m, amount - fee)}
        if self._post(m, moves) == REFUSED:
            return REFUSED
        payment.state, payment.moves = POSTED, moves
        if payment.later:
            payment.pending, payment.fee_due = amount, fee
            payment.fee_open, payment.tax_open = fee, payment.tax
        else:
            payment.kept, payment.fee_paid, payment.tax_paid = amount, fee, payment.tax
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
                share = share_of(payment.fee_due, payment.pending, part)
                parts.append((payment, part, share, share_of(payment.tax_open, payment.fee_open, share)))
                left -= part
        fee, tax = sum(share for _, _, share, _ in parts), sum(tax for *_, tax in parts)
        moves = {m.of("pending"): -wanted, **self._fee(m.currency, fee, tax), **self._credit(m, wanted - fee)}
        if self._post(m, moves) == REFUSED:
            return REFUSED
        for payment, part, share, tax in parts:
            payment.take_pending(part)
            payment.kept += part
            payment.fee_paid += share
            payment.tax_paid += tax
            payment.fee_open -= share
            payment.tax_open -= tax
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
        fee = share_of(payment.fee_paid, payment.kept, settled) if settled and not payment.keeps else 0
        tax = share_of(payment.tax_paid, payment.fee_paid, fee) if fee else 0
        moves = {
            m.of("pending"): -pending,
            m.of("available"): fee - settled,
            **self._fee(m.currency, -fee, -tax),
            self.bank(m.currency): amount,
        }
        if self._post(m, moves) == REFUSED:
            return REFUSED
        if pending:
            payment.take_pending(pending, keeps=payment.keeps)
        payment.kept -= settled
        payment.fee_paid -= fee
        payment.tax_paid -= tax
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

    def _unreturnable(self, payment: Payment | SplitPayment) -> str | None:
        if payment.state == PARKED:
            return "payment-not-posted"
        return "order-already-reversed" if payment.state == "reversed" else None

    def release(self, m: Merchant) -> list[str]:
        """Release the parked orders of a merchant whose accounts are not held. Return their numbers, in order."""
        parked, m.parked = m.parked, []
        source = self.named("suspense:parked", m.currency)
        ready = [split for split in self.parked_splits if not any(each.held for each in split[1].merchants)]
        self.parked_splits = [split for split in self.parked_splits if split not in ready]
        for _, payment, amount, pending in parked:
            if payment is None:
                assert self._take_back(m, amount, pending, source) == POSTED
            else:
                assert self._take_in(m, payment, source) == POSTED
        for _, split, amounts in ready:
            source = self.named("suspense:parked", split.merchants[0].currency)
            if amounts is None:
                assert self._take_in_parts(split, source) == POSTED
            else:
                assert self._take_back_parts(split, amounts, source) == POSTED
        return [number for number, *_ in [*parked, *ready]]

    # --- Split payments ---

    def pay_split(self, number: str, parts: Sequence[tuple[Merchant, int, int | None]]) -> str:
        """Take a payment in, for merchants of one currency: (merchant, amount, commission or None) each."""
        split = SplitPayment(number, [SplitPart(m, a, *m.rule.of(a, fee), m.rule.keeps) for m, a, fee in parts])
        self.splits.append(split)
        currency = parts[0][0].currency
        if self._take_in_parts(split, self.bank(currency)) == POSTED:
            return POSTED
        split.state, split.was_parked = PARKED, True
        self.parked_splits.append((number, split, None))
        amount = sum(part.amount for part in split.parts)
        self.move({self.bank(currency): -amount, self.named("suspense:parked", currency): amount})
        return PARKED

    def _take_in_parts(self, split: SplitPayment, source: str) -> str:
        parts, currency = split.parts, split.merchants[0].currency
        moves = {
            source: -sum(part.amount for part in parts),
            **self._fee(currency, sum(part.fee for part in parts), sum(part.tax for part in parts)),
        }
        for part in parts:
            moves |= self._credit(part.merchant, part.amount - part.fee)
        if self._post(split.merchants, moves) == REFUSED:
            return REFUSED
        split.state, split.moves = POSTED, moves
        return POSTED

    def refund_split(self, split: SplitPayment, amounts: dict[str, int] | int) -> str:
        """Refund amounts by merchant, or an amount in proportion to what is left of the parts."""
        if (no := self._unreturnable(split)) is not None:
            return no
        if (division := self._division(split, amounts)) is None:
            return "refund-exceeds-payment"
        moves: Moves = {self.bank(split.merchants[0].currency): sum(division.values())}
        returned = []
        for part in split.parts:
            amount = division.get(part.merchant.id, 0)
            fee = 0 if part.keeps or not amount else share_of(part.fee, part.amount - part.refunded, amount)
            tax = share_of(part.tax, part.fee, fee) if fee else 0
            returned.append((part, amount, fee, tax))
            moves[part.merchant.of("available")] = fee - amount
        fees, taxes = sum(fee for *_, fee, _ in returned), sum(tax for *_, tax in returned)
        moves |= self._fee(split.merchants[0].currency, -fees, -taxes)
        if self._post(split.merchants, moves) == REFUSED:
            return REFUSED
        for part, amount, fee, tax in returned:
            part.refunded += amount
            part.fee -= fee
            part.tax -= tax
        return POSTED

    def charge_back_split(self, number: str, split: SplitPayment, amounts: dict[str, int] | int) -> str:
        if (no := self._unreturnable(split)) is not None:
            return no
        if (division := self._division(split, amounts)) is None:
            return "chargeback-exceeds-payment"
        for part in split.parts:
            part.charged_back += division.get(part.merchant.id, 0)
        currency = split.merchants[0].currency
        if self._take_back_parts(split, division, self.bank(currency)) == POSTED:
            return POSTED
        self.parked_splits.append((number, split, division))
        amount = sum(division.values())
        self.move({self.named("suspense:parked", currency): -amount, self.bank(currency): amount})
        return PARKED

    def _take_back_parts(self, split: SplitPayment, amounts: dict[str, int], target: str) -> str:
        moves: Moves = {target: sum(amounts.values())}
        for merchant in split.merchants:
            amount = amounts.get(merchant.id, 0)
            available = min(amount, self.balances[merchant.of("available")])
            moves |= {merchant.of("available"): -available, merchant.of("receivable"): available - amount}
        return self._post(split.merchants, moves)

    @staticmethod
    def _division(split: SplitPayment, amounts: dict[str, int] | int) -> dict[str, int] | None:
        """Return the amount of each merchant, None if one exceeds what is left of its part."""
        left = {part.merchant.id: part.left for part in split.parts}
        if isinstance(amounts, dict):
            return None if any(amount > left.get(id_, 0) for id_, amount in amounts.items()) else amounts
        if amounts > split.left:
            return None
        return dict(zip(left, divided(amounts, list(left.values())), strict=True))

    def reverse_split(self, split: SplitPayment) -> str:
        if split.state == "reversed":
            return "order-already-reversed"
        if split.state != POSTED or split.was_parked or split.left < sum(part.amount for part in split.parts):
            return "order-not-reversible"
        outcome = self._post(split.merchants, {account: -amount for account, amount in split.moves.items()})
        if outcome == POSTED:
            split.state = "reversed"
        return outcome

    # --- Money out ---

    def withdraw(self, m: Merchant, number: str, amount: int) -> str:
        (fee, tax), debt = m.payout_rule.of(amount), self.debt(m)
        transit = self.named(f"transit:payout:{self.channel}", m.currency)
        moves = {
            m.of("available"): -amount - fee - debt,
            m.of("receivable"): debt,
            transit: amount,
            **self._fee(m.currency, fee, tax),
        }
        if self.is_undecided(m):
            return "debt-in-progress"
        outcome = self._post(m, moves)
        if outcome == POSTED:
            m.withdrawals.append(Slip(number, "withdrawal", moves, amount, fee, tax))
        return outcome

    def is_undecided(self, m: Merchant) -> bool:
        """Return whether a parked chargeback may still make the merchant owe."""
        of_splits = any(amounts is not None and amounts.get(m.id) for _, _, amounts in self.parked_splits)
        return of_splits or any(payment is None for _, payment, *_ in m.parked)

    def end(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit = self.named(f"transit:payout:{self.channel}", m.currency)
        slip.is_open = False
        if paid:
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        back = self._credit(m, slip.amount + slip.fee)
        outcome = self._post(m, {transit: -slip.amount, **self._fee(m.currency, -slip.fee, -slip.tax), **back})
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

    def invoice(self, number: str, amount: int, currency: str) -> Invoice:
        self.move({self.named("expense:channel", currency): -amount, self.payable(currency): amount})
        return Invoice(number, currency, amount)

    def pay_invoice(self, invoice: Invoice, number: str, amount: int) -> Slip | str:
        if not invoice.is_open or amount > invoice.amount - invoice.paid:
            return "invoice-exceeded"
        moves = {self.payable(invoice.currency): -amount, self.bank(invoice.currency): amount}
        self.move(moves)
        invoice.paid += amount
        return Slip(number, "channel_invoice_payment", moves, amount)

    def reverse_invoice(self, invoice: Invoice) -> str:
        if not invoice.is_open:
            return "order-already-reversed"
        if invoice.paid:
            return "order-not-reversible"
        cost = self.named("expense:channel", invoice.currency)
        self.move({cost: invoice.amount, self.payable(invoice.currency): -invoice.amount})
        invoice.is_open = False
        return POSTED

    def payable(self, currency: str) -> str:
        return self.named(f"payable:channel:{self.channel}", currency)

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
