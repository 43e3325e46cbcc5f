"""A model of the business of money: the balance of every account after each order, in exact integers.

It is written from the design of the fund service, and shares no code with it. One order is requested after the other,
so each outcome is certain. A balance is credits minus debits.
"""

from collections import Counter
from datetime import UTC, date, datetime

from tests.support.calendar_model import CalendarModel
from tests.support.money_records import (
    CLEARED,
    OWN,
    PARKED,
    POSTED,
    REFUSED,
    Charge,
    Invoice,
    Merchant,
    Moves,
    Parked,
    Payment,
    Slip,
    share_of,
)


class Platform:
    """The accounts of a platform with two banks. `home`: the currency whose accounts have no suffix. The account of the
    bank `second` cannot be overdrawn. `before`: the balances of accounts of the platform before the first order. `now`:
    the time of new orders. `days`: the calendar of the platform.
    """

    def __init__(self, channel: str, second: str = "", home: str = "CNY", days: CalendarModel | None = None) -> None:
        self.balances: Counter[str] = Counter()
        self.days = days or CalendarModel()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.before: dict[str, int] = {}
        self.channel = channel
        self.second = second
        self.home = home
        self.own: Counter[tuple[str, str]] = Counter()
        """Own funds that came in (`in`) and left (`out`), and fees that were swept (`swept`), by currency."""

    def named(self, name: str, currency: str) -> str:
        return name if currency == self.home else f"{name}:{currency}"

    def bank(self, currency: str, channel: str | None = None) -> str:
        return self.named(f"bank:{channel or self.channel}", currency)

    def transit(self, what: str, currency: str) -> str:
        return self.named(f"transit:{what}:{self.channel}", currency)

    def payable(self, currency: str) -> str:
        return self.named(f"payable:{self.channel}", currency)

    def holds(self, name: str, currency: str) -> int:
        """Return what an account of the platform holds, with what it held before."""
        account = self.named(name, currency)
        return self.balances[account] + self.before.get(account, 0)

    def is_underfunded(self, channel: str, amount: int, currency: str) -> bool:
        return channel == self.second and amount > -self.balances[self.bank(currency, channel)]

    def debt(self, merchant: Merchant) -> int:
        return -self.balances[merchant.of("receivable")]

    def move(self, moves: Moves) -> None:
        assert sum(moves.values()) == 0, moves
        self.balances.update(moves)

    def charge(self, currency: str, fee: int, tax: int) -> Moves:
        """Return the entries of a fee that is charged, and of the tax in it."""
        return {self.named("income:fee", currency): fee - tax, self.named("tax:output", currency): tax}

    def post(self, merchant: Merchant, moves: Moves, *others: Merchant) -> str:
        """Post entries unless an account of a merchant is held, or would be overdrawn."""
        moves = {account: amount for account, amount in moves.items() if amount}
        own = {account: amount for account, amount in moves.items() if account.startswith("merchant:")}
        is_short = any(
            amount < 0 and self.balances[account] + amount < 0
            for account, amount in own.items()
            if not account.endswith(":receivable")
        )
        held = [m for m in (merchant, *others) if m.held]
        if is_short or any(m.of(name) in own for m in held for name in OWN):
            return REFUSED
        self.move(moves)
        return POSTED

    def credit(self, merchant: Merchant, amount: int) -> Moves:
        """Return the credit of a merchant: its debt is repaid first."""
        repaid = min(amount, self.debt(merchant))
        return {merchant.of("receivable"): repaid, merchant.of("available"): amount - repaid}

    # --- Money in ---

    def pay(self, m: Merchant, number: str, amount: int, *, later: bool) -> str:
        due = m.terms.due(self.days, self.now) if later else None
        payment = Payment(number, amount, *m.rule.of(amount), later, POSTED, m.rule.keeps, due=due)
        m.payments.append(payment)
        if self._take_in(m, payment, self.bank(m.currency)) == POSTED:
            return POSTED
        payment.state, payment.was_parked = PARKED, True
        return self._park(m, Parked(number, "payment", amount, self.bank(m.currency), payment))

    def _park(self, m: Merchant, order: Parked) -> str:
        """Move the amount of an order into suspense, or out of it."""
        amount = order.amount if order.is_in else -order.amount
        m.parked.append(order)
        self.move({order.outside: -amount, self.named("suspense:parked", m.currency): amount})
        return PARKED

    def _take_in(self, m: Merchant, payment: Payment, source: str) -> str:
        amount, fee = payment.amount, payment.fee
        if payment.later:
            moves = {source: -amount, m.of("pending"): amount}
        else:
            moves = {source: -amount, **self.charge(m.currency, fee, payment.tax), **self.credit(m, amount - fee)}
        if self.post(m, moves) == REFUSED:
            return REFUSED
        payment.state, payment.moves = POSTED, moves
        if payment.later:
            payment.pending, payment.fee_due = amount, fee
            payment.fee_open, payment.tax_open = fee, payment.tax
        else:
            payment.kept, payment.fee_paid, payment.tax_paid = amount, fee, payment.tax
        return POSTED

    def settle(self, m: Merchant, number: str, amount: int | None, day: date | None = None) -> str:
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
                share = min(part, share_of(payment.fee_due, payment.pending, part))
                tax = share_of(payment.tax_open, payment.fee_open, share) if share else 0
                parts.append((payment, part, share, tax))
                left -= part
        fee, taxes = sum(share for _, _, share, _ in parts), sum(tax for *_, tax in parts)
        moves = {m.of("pending"): -wanted, **self.charge(m.currency, fee, taxes), **self.credit(m, wanted - fee)}
        if self.post(m, moves) == REFUSED:
            return REFUSED
        for payment, part, share, tax in parts:
            payment.pending -= part
            payment.fee_due -= share
            payment.kept += part
            payment.fee_paid += share
            payment.tax_paid += tax
            payment.fee_open -= share
            payment.tax_open -= tax
            payment.settled += part
        m.slips.append(Slip(number, "settlement", moves, parts=parts))
        return POSTED

    # --- Money back to the payer ---

    def refund(self, m: Merchant, number: str, payment: Payment, amount: int) -> str:
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
            **self.charge(m.currency, -fee, -tax),
            self.transit("refund", m.currency): amount,
        }
        if self.post(m, moves) == REFUSED:
            return REFUSED
        waived = 0
        if pending and payment.keeps:
            payment.pending -= pending
        elif pending:
            waived = payment.take_pending(pending)
        payment.refunded_pending += pending
        payment.kept -= settled
        payment.fee_paid -= fee
        payment.tax_paid -= tax
        payment.returned += amount
        slip = Slip(number, "refund", moves, amount, fee, tax, payment=payment, pending=pending, waived=waived)
        m.refunds.append(slip)
        return POSTED

    def end_refund(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit, payment = self.transit("refund", m.currency), slip.payment
        m.refunds.remove(slip)
        if paid:
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        assert payment is not None
        settled = slip.amount - slip.pending
        back = {m.of("pending"): slip.pending, **self.credit(m, settled - slip.fee)}
        outcome = self.post(m, {transit: -slip.amount, **self.charge(m.currency, slip.fee, slip.tax), **back})
        assert outcome == POSTED
        payment.pending += slip.pending
        payment.refunded_pending -= slip.pending
        payment.fee_due += slip.waived
        payment.kept += settled
        payment.fee_paid += slip.fee
        payment.tax_paid += slip.tax
        payment.returned -= slip.amount
        return "bounced"

    def charge_back(self, m: Merchant, number: str, payment: Payment, amount: int) -> str:
        if (no := self._unreturnable(payment)) is not None:
            return no
        if amount > payment.amount - payment.returned:
            return "chargeback-exceeds-payment"
        charge = self._charge(number, "chargeback", payment, amount)
        m.charges.append(charge)
        if self._take_back(m, amount, charge.pending, self.bank(m.currency)) == POSTED:
            return POSTED
        charge.state = PARKED
        return self._park(m, Parked(number, "chargeback", amount, self.bank(m.currency), charge))

    def _charge(self, number: str, kind: str, payment: Payment, amount: int) -> Charge:
        pending = min(amount, payment.pending)
        share = payment.take_pending(pending) if pending else 0
        payment.returned += amount
        payment.charged += amount - pending
        return Charge(number, kind, payment, amount, pending, share, POSTED)

    def _take_back(self, m: Merchant, amount: int, pending: int, target: str) -> str:
        rest = amount - pending
        available = min(rest, self.balances[m.of("available")])
        own = {
            m.of("pending"): -pending,
            m.of("available"): -available,
            m.of("receivable"): available - rest,
        }
        return self.post(m, {**own, target: amount})

    def _unreturnable(self, payment: Payment) -> str | None:
        if payment.state in (PARKED, CLEARED):
            return "payment-not-posted"
        return "order-already-reversed" if payment.state == "reversed" else None

    def release(self, m: Merchant) -> list[str]:
        """Release the parked orders of a merchant whose accounts are not held. Return their numbers, in order."""
        parked, m.parked = m.parked, []
        source = self.named("suspense:parked", m.currency)
        for order in parked:
            match order.of:
                case Payment():
                    assert self._take_in(m, order.of, source) == POSTED
                case Charge():
                    order.of.state = POSTED
                    assert self._take_back(m, order.amount, order.of.pending, source) == POSTED
                case Slip(kind="payout_return"):
                    assert self._take_returned(m, order.of, source) == POSTED
                case _ if order.is_in:
                    assert self.post(m, {source: -order.amount, **self.credit(m, order.amount)}) == POSTED
                case _:
                    assert self._take_back(m, order.amount, 0, source) == POSTED
        return [order.number for order in parked]

    # --- Money out ---

    def withdraw(self, m: Merchant, number: str, amount: int) -> str:
        (fee, tax), debt = m.payout_rule.of(amount), self.debt(m)
        moves = {
            m.of("available"): -amount - fee - debt,
            m.of("receivable"): debt,
            self.transit("payout", m.currency): amount,
            **self.charge(m.currency, fee, tax),
        }
        if m.may_owe_more:
            return "debt-in-progress"
        outcome = self.post(m, moves)
        if outcome == POSTED:
            m.withdrawals.append(Slip(number, "withdrawal", moves, amount, fee, tax))
        return outcome

    def withdraw_all(self, m: Merchant, number: str) -> str:
        left = 0 if m.held else self.balances[m.of("available")] - self.debt(m)
        # The charge of a larger amount is never smaller, so the first amount that fits is the largest.
        amount = next((a for a in range(left, 0, -1) if a + m.payout_rule.of(a)[0] <= left), 0)
        return self.withdraw(m, number, amount) if amount else "nothing-to-withdraw"

    def end(self, m: Merchant, slip: Slip, *, paid: bool) -> str:
        transit = self.transit("payout", m.currency)
        m.withdrawals.remove(slip)
        if paid:
            m.payouts.append(slip)
            self.move({transit: -slip.amount, self.bank(m.currency): slip.amount})
            return "paid"
        back = self.credit(m, slip.amount + slip.fee)
        outcome = self.post(m, {transit: -slip.amount, **self.charge(m.currency, -slip.fee, -slip.tax), **back})
        assert outcome == POSTED
        return "bounced"

    def return_payout(self, m: Merchant, number: str, payout: Slip, amount: int, *, with_fee: bool) -> str:
        if payout not in m.payouts:
            return "withdrawal-not-paid"
        if amount > payout.amount - payout.returned:
            return "return-exceeds-withdrawal"
        fee = payout.fee * amount // payout.amount if with_fee else 0
        tax = payout.tax * fee // payout.fee if fee else 0
        slip = Slip(number, "payout_return", {}, amount, fee, tax, of=payout)
        payout.returned += amount
        m.slips.append(slip)
        if self._take_returned(m, slip, self.bank(m.currency)) == POSTED:
            return POSTED
        slip.was_parked = True
        return self._park(m, Parked(number, "payout_return", amount, self.bank(m.currency), slip))

    def _take_returned(self, m: Merchant, slip: Slip, source: str) -> str:
        credit = self.credit(m, slip.amount + slip.fee)
        slip.moves = {source: -slip.amount, **self.charge(m.currency, -slip.fee, -slip.tax), **credit}
        return self.post(m, slip.moves)

    # --- Debts and corrections ---

    def _slip(self, m: Merchant, slip: Slip) -> str:
        """Post an order that can be reversed later."""
        outcome = self.post(m, slip.moves)
        if outcome == POSTED:
            m.slips.append(slip)
        return outcome

    def recover(self, m: Merchant, number: str, amount: int) -> str:
        if amount > self.debt(m):
            return "debt-exceeded"
        return self._slip(m, Slip(number, "recovery", {m.of("available"): -amount, m.of("receivable"): amount}))

    def write_off(self, m: Merchant, number: str, amount: int) -> str:
        if amount > self.debt(m):
            return "debt-exceeded"
        moves = {self.named("expense:loss", m.currency): -amount, m.of("receivable"): amount}
        return self._slip(m, Slip(number, "write_off", moves))

    def adjust(self, m: Merchant, number: str, amount: int, *, credit: bool, against: str | None = None) -> str:
        """Adjust a balance. `against`: the suspense account whose item the slip closes, None: the slip opens one."""
        if against is not None and self._exceeds_suspense(against, amount, m.currency, is_credit=not credit):
            return "suspense-exceeded"
        suspense = self.named(f"suspense:{against or ('short' if credit else 'over')}", m.currency)
        if credit:
            moves = {suspense: -amount, **self.credit(m, amount)}
        else:
            moves = {m.of("available"): -amount, suspense: amount}
        return self._slip(m, Slip(number, "adjustment", moves))

    def _exceeds_suspense(self, name: str, amount: int, currency: str, *, is_credit: bool) -> bool:
        """Return whether an entry would change the sign of a suspense account. An overage is a credit, a shortage is a
        debit.
        """
        held = self.holds(f"suspense:{name}", currency)
        return is_credit == (name == "short") and amount > (-held if name == "short" else held)

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
        if payment.state != POSTED or payment.was_parked or payment.returned or payment.settled:
            return "order-not-reversible"
        outcome = self.post(m, {account: -amount for account, amount in payment.moves.items()})
        if outcome == POSTED:
            payment.state, payment.pending, payment.kept = "reversed", 0, 0
        return outcome

    def reverse(self, m: Merchant | None, slip: Slip, currency: str) -> str:
        if not slip.is_open:
            return "order-already-reversed"
        if slip.became_debt or slip.was_parked or not all(self._is_kept(*part) for part in slip.parts):
            return "order-not-reversible"
        moves = {account: -amount for account, amount in slip.moves.items()}
        for name in ("over", "short"):
            amount = moves.get(self.named(f"suspense:{name}", currency), 0)
            if amount and self._exceeds_suspense(name, abs(amount), currency, is_credit=amount > 0):
                return "suspense-exceeded"
        if slip.kind == "own_funds in" and slip.amount > self.own["in", currency] - self.own["out", currency]:
            return "own-funds-exceeded"
        if -moves.get(self.payable(currency), 0) > self.balances[self.payable(currency)]:
            return "payable-exceeded"
        merchants = [each for each in (m, slip.other) if each is not None]
        if not merchants:
            self.move(moves)
        elif self.post(merchants[0], moves, *merchants[1:]) == REFUSED:
            return REFUSED
        slip.is_open = False
        for payment, part, share, tax in slip.parts:
            payment.pending += part
            payment.fee_due += share
            payment.fee_open += share
            payment.tax_open += tax
            payment.kept -= part
            payment.fee_paid -= share
            payment.tax_paid -= tax
            payment.settled -= part
        if slip.invoice is not None:
            slip.invoice.paid -= slip.amount
        if slip.of is not None:
            slip.of.returned -= slip.amount
        if slip.kind.startswith("own_funds"):
            self.own[slip.kind.removeprefix("own_funds "), currency] -= slip.amount
        if slip.kind == "fee_sweep":
            self.own["swept", currency] -= slip.amount
        return POSTED

    @staticmethod
    def _is_kept(payment: Payment, part: int, share: int, tax: int) -> bool:
        left = payment.kept - part
        return left >= payment.charged and 0 <= payment.tax_paid - tax <= payment.fee_paid - share <= left

    # --- Own money of the platform ---

    def transfer_own(self, amount: int, currency: str, from_: str) -> str:
        if self.is_underfunded(from_, amount, currency):
            return "channel-underfunded"
        self.move({self.named("transit:bank", currency): -amount, self.bank(currency, from_): amount})
        return POSTED

    def arrive(self, amount: int, currency: str, at: str) -> None:
        """End an own transfer at the bank that it was sent to, or at that from which it was sent."""
        self.move({self.bank(currency, at): -amount, self.named("transit:bank", currency): amount})

    def fund(self, number: str, amount: int, currency: str, channel: str, *, comes: bool) -> str | Slip:
        if not comes and amount > self.own["in", currency] - self.own["out", currency]:
            return "own-funds-exceeded"
        if not comes and self.is_underfunded(channel, amount, currency):
            return "channel-underfunded"
        way = "in" if comes else "out"
        return self._move_own(f"own_funds {way}", way, number, amount, currency, channel)

    def sweep(self, number: str, amount: int, currency: str, channel: str) -> str | Slip:
        names = ("income:fee", "income:other", "expense:channel", "expense:loss")
        if amount > sum(self.holds(name, currency) for name in names) - self.own["swept", currency]:
            return "sweep-exceeds-income"
        if self.is_underfunded(channel, amount, currency):
            return "channel-underfunded"
        return self._move_own("fee_sweep", "swept", number, amount, currency, channel)

    def _move_own(self, kind: str, sum_: str, number: str, amount: int, currency: str, channel: str) -> Slip:
        self.own[sum_, currency] += amount
        signed = amount if sum_ == "in" else -amount
        slip = Slip(
            number, kind, {self.bank(currency, channel): -signed, self.named("equity:own", currency): signed}, amount
        )
        self.move(slip.moves)
        return slip

    def pay_payable(
        self, number: str, amount: int, currency: str, invoice: Invoice | None = None, *, is_tax: bool = False
    ) -> str | Slip:
        owed = self.named("tax:output", currency) if is_tax else self.payable(currency)
        if amount > self.balances[owed] + self.before.get(owed, 0):
            return "payable-exceeded"
        if invoice is not None and not invoice.is_open:
            return "order-already-reversed"
        if invoice is not None and amount > invoice.amount - invoice.paid:
            return "invoice-exceeded"
        slip = Slip(number, "payable_payment", {owed: -amount, self.bank(currency): amount}, amount, invoice=invoice)
        self.move(slip.moves)
        if invoice is not None:
            invoice.paid += amount
        return slip

    def invoice(self, number: str, amount: int, currency: str) -> Invoice:
        self.move({self.named("expense:channel", currency): -amount, self.payable(currency): amount})
        return Invoice(number, currency, amount)

    def reverse_invoice(self, invoice: Invoice) -> str:
        if not invoice.is_open:
            return "order-already-reversed"
        if invoice.paid:
            return "order-not-reversible"
        if invoice.amount > self.balances[self.payable(invoice.currency)]:
            return "payable-exceeded"
        cost = self.named("expense:channel", invoice.currency)
        self.move({cost: invoice.amount, self.payable(invoice.currency): -invoice.amount})
        invoice.is_open = False
        return POSTED

    # --- Suspense explained ---

    def explain(
        self, m: Merchant | None, number: str, amount: int, currency: str, against: str, *, more: bool
    ) -> str | Slip:
        """Clear an overage (`more`) or a shortage. `against`: the account that the order names."""
        if self._exceeds_suspense("over" if more else "short", amount, currency, is_credit=not more):
            return "suspense-exceeded"
        if against == "short" and self._exceeds_suspense("short", amount, currency, is_credit=True):
            return "suspense-exceeded"
        suspense = self.named("suspense:over" if more else "suspense:short", currency)
        signed = amount if more else -amount
        slip = Slip(number, "suspense_clearing", {suspense: -signed, **self._explained(m, signed, against, currency)})
        if m is not None:
            return self._slip(m, slip)
        self.move(slip.moves)
        return slip

    def _explained(self, m: Merchant | None, amount: int, against: str, currency: str) -> Moves:
        names = {
            "income": "income:other",
            "short": "suspense:short",
            "loss": "expense:loss",
            "channel": "expense:channel",
        }
        if m is not None:
            return self.credit(m, amount) if amount > 0 else {m.of("available"): amount}
        if against == "bank":
            return {self.bank(currency): amount}
        return {self.named(names[against], currency): amount}

    def clear(self, owner: Merchant, number: str, parked: Parked, to: Merchant | None, against: str) -> str | Slip:
        """Move the money of a parked order elsewhere: to another merchant, or to an account of the platform."""
        if isinstance(parked.of, Charge) and (parked.of.won or parked.of.pending):
            return "order-not-parked"
        amount = parked.amount if parked.is_in else -parked.amount
        moves = {
            self.named("suspense:parked", owner.currency): -amount,
            **self._explained(to, amount, against, owner.currency),
        }
        slip = Slip(number, "parked_clearing", moves, parked=parked, other=to)
        if to is None:
            self.move(moves)
        elif self.post(to, moves) == REFUSED:
            return REFUSED
        owner.parked.remove(parked)
        if isinstance(parked.of, Payment | Charge):
            parked.of.state = CLEARED
        return slip

    def park_again(self, owner: Merchant, slip: Slip) -> str:
        """Reverse the clearing of a parked order."""
        assert slip.parked is not None
        outcome = self.reverse(None, slip, owner.currency)
        if outcome == POSTED:
            owner.parked.append(slip.parked)
            if isinstance(slip.parked.of, Payment | Charge):
                slip.parked.of.state = PARKED
        return outcome

    # --- Money of merchants that no payment moves ---

    def top_up(self, m: Merchant, number: str, amount: int) -> str:
        slip = Slip(number, "top_up", {self.bank(m.currency): -amount, **self.credit(m, amount)})
        if self._slip(m, slip) == POSTED:
            return POSTED
        slip.was_parked = True
        m.slips.append(slip)
        return self._park(m, Parked(number, "top_up", amount, self.bank(m.currency), slip))

    def transfer(self, m: Merchant, to: Merchant, amount: int) -> str:
        if m.may_owe_more:
            return "debt-in-progress"
        debt = self.debt(m)
        moves = {m.of("available"): -amount - debt, m.of("receivable"): debt, **self.credit(to, amount)}
        return self.post(m, moves, to)

    def reserve(self, m: Merchant, amount: int) -> str:
        return self.post(m, {m.of("available"): -amount, m.of("reserve"): amount})

    def unreserve(self, m: Merchant, amount: int) -> str:
        if amount > self.balances[m.of("reserve")]:
            return "reserve-exceeded"
        return self.post(m, {m.of("reserve"): -amount, **self.credit(m, amount)})

    # --- Disputes ---

    def dispute(self, m: Merchant, number: str, payment: Payment, amount: int) -> str:
        if (no := self._unreturnable(payment)) is not None:
            return no
        if amount > payment.amount - payment.returned:
            return "chargeback-exceeds-payment"
        if self._take_back(m, amount, min(amount, payment.pending), m.of("disputed")) == REFUSED:
            return REFUSED
        m.charges.append(self._charge(number, "dispute", payment, amount))
        return POSTED

    def win(self, m: Merchant, charge: Charge) -> str:
        """End an open dispute: the merchant gets the amount again, and the payment is as before."""
        settled = charge.settled
        moves = {m.of("disputed"): -charge.amount, m.of("pending"): charge.pending, **self.credit(m, settled)}
        assert self.post(m, moves) == POSTED
        charge.state = "won"
        charge.payment.pending += charge.pending
        charge.payment.fee_due += charge.share
        charge.payment.returned -= charge.amount
        charge.payment.charged -= settled
        return "won"

    def lose(self, m: Merchant, charge: Charge) -> str:
        self.move({m.of("disputed"): -charge.amount, self.bank(m.currency): charge.amount})
        charge.state = "lost"
        return "lost"

    def win_back(self, m: Merchant, number: str, charge: Charge, amount: int) -> str:
        """Post an amount of a chargeback that the payer's bank returned. The settled part comes back first. The pending part is now
        available, so it counts as settled.
        """
        ended = ("lost",) if charge.kind == "dispute" else (POSTED, PARKED)
        if charge.state not in ended:
            return "chargeback-not-posted"
        if charge.won + amount > charge.amount:
            return "win-exceeds-chargeback"
        settled = min(amount, max(0, charge.settled - charge.won))
        charge.won += amount
        charge.payment.returned -= amount
        charge.payment.charged -= settled
        charge.payment.kept += amount - settled
        charge.payment.settled += amount - settled
        if self.post(m, {self.bank(m.currency): -amount, **self.credit(m, amount)}) == POSTED:
            return POSTED
        return self._park(m, Parked(number, "dispute_won", amount, self.bank(m.currency)))

    def charge_fee(self, m: Merchant, number: str, amount: int, *, later: bool) -> str:
        """Charge the fee of a dispute. `later`: the channel has not collected it yet."""
        target = self.payable(m.currency) if later else self.bank(m.currency)
        available = min(amount, self.balances[m.of("available")])
        moves = {m.of("available"): -available, m.of("receivable"): available - amount, target: amount}
        slip = Slip(number, "dispute_fee", moves, became_debt=available < amount)
        if self._slip(m, slip) == POSTED:
            return POSTED
        slip.was_parked = True
        m.slips.append(slip)
        return self._park(m, Parked(number, "dispute_fee", amount, target, slip))
