"""A model of the fund service as docs/reference/fund.md describes it: balances, payments, and daily limits.

It shares no code with the service except for the enumerations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from fundledger.fund.model.order import Kind

LAST_ATTEMPT = 3
"""The number of the last attempt of a chargeback. In this attempt the whole amount becomes a debt."""
OWN = ("available", "pending", "receivable")


@dataclass
class Progress:
    """The columns of fund.payments."""

    amount: int
    fee: int
    settled: int = 0
    fee_settled: int = 0
    refunded: int = 0
    refunded_unsettled: int = 0
    fee_waived: int = 0
    fee_returned: int = 0
    charged_back: int = 0
    reversed: bool = False

    @property
    def pending(self) -> int:
        return self.amount - self.settled - self.refunded_unsettled

    @property
    def left(self) -> int:
        return self.amount - self.refunded - self.charged_back


@dataclass(eq=False)
class Shop:
    """A merchant. `rules`: `(product, effective at, basis points, fixed)`, in the order in which they were created."""

    id: str
    limit: int | None
    rules: list[tuple[str, datetime, int, int]]
    has: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OWN, 0))
    days: dict[date, int] = field(default_factory=dict)

    def fee(self, product: str, amount: int, at: datetime) -> int:
        of = [(when, n, bp, fixed) for n, (p, when, bp, fixed) in enumerate(self.rules) if p == product and when <= at]
        if not of:
            return 0
        _, _, points, fixed = max(of)
        return min(amount, (amount * points + 5_000) // 10_000 + fixed)


@dataclass(eq=False)
class Asked:
    """An order. `outcome`: the result of the current attempt's voucher in the ledger, also if the answer was lost."""

    kind: Kind
    shop: Shop | None
    members: dict[str, Any]
    at: datetime
    amount: int = 0
    fee: int = 0
    state: str = "posting"
    settle: str | None = None
    direction: str | None = None
    of: "Asked | None" = None
    from_pending: int = 0
    to_receivable: int = 0
    fee_waived: int = 0
    attempt: int = 0
    ending: str | None = None
    end_outcome: str | None = None
    reversed_by: "Asked | None" = None
    outcome: str | None = None
    posted_at: datetime | None = None
    progress: Progress | None = None
    parts: "list[tuple[Asked, int, int]]" = field(default_factory=list)

    @property
    def order_no(self) -> str:
        return str(self.members["order_no"])

    def moves(self) -> dict[str, int]:
        """Return the changes of the merchant's accounts by the voucher. `bank` is 0 if it has a line on a bank account."""
        n, fee = self.amount, self.fee
        if self.kind is Kind.PAYMENT:
            found = {"pending": n} if self.settle == "later" else {"available": n - fee}
            found["bank"] = 0
        elif self.kind is Kind.REFUND:
            found = {"pending": -self.from_pending, "available": fee - (n - self.from_pending), "bank": 0}
        elif self.kind is Kind.SETTLEMENT:
            found = {"pending": -n, "available": n - fee}
        elif self.kind is Kind.WITHDRAWAL:
            found = {"available": -n - fee}
        elif self.kind is Kind.CHARGEBACK:
            found = {"available": self.to_receivable - n, "receivable": self.to_receivable, "bank": 0}
        elif self.kind is Kind.RECOVERY:
            found = {"available": -n, "receivable": -n}
        elif self.kind is Kind.WRITE_OFF:
            found = {"receivable": -n}
        elif self.kind is Kind.ADJUSTMENT:
            found = {"available": n if self.direction == "credit" else -n}
        elif self.kind is Kind.REVERSAL:
            assert self.of is not None
            found = {name: -amount for name, amount in self.of.moves().items()}
        else:
            found = {"bank": 0}
        return {name: amount for name, amount in found.items() if amount or name == "bank"}


class Model:
    def __init__(self) -> None:
        self.orders: dict[tuple[Kind, str, str], Asked] = {}
        self.now: Callable[[], datetime] | None = None
        self.frozen: set[str] = set()
        """Accounts that accept no debits and no credits: names of the merchant's accounts, or `bank`."""

    def payments(self, shop: Shop) -> list[Asked]:
        return [o for o in self.orders.values() if o.kind is Kind.PAYMENT and o.shop is shop]

    # --- Before an order is written ---

    def reserve(self, order: Asked) -> str | None:
        """Reserve the amounts of the order. Return the code of the refusal, or None."""
        code = {
            Kind.REFUND: self._refund,
            Kind.CHARGEBACK: self._charge_back,
            Kind.SETTLEMENT: self._settle,
            Kind.WITHDRAWAL: self._withdraw,
            Kind.REVERSAL: self._reverse,
        }.get(order.kind, lambda _: None)(order)
        if code is None:
            self.orders[order.kind, order.shop.id if order.shop else "platform", order.order_no] = order
        return code

    def _paid(self, order: Asked) -> str | Progress:
        payment = order.of
        if payment is None:
            return "payment-not-found"
        self._begin(payment)
        if payment.progress is None:
            return "payment-not-posted"
        return "order-already-reversed" if payment.progress.reversed else payment.progress

    def _begin(self, payment: Asked) -> None:
        if payment.progress is None and payment.state == "posted" and payment.settle == "now":
            payment.progress = Progress(payment.amount, payment.fee, payment.amount, payment.fee)

    def _refund(self, order: Asked) -> str | None:
        of = self._paid(order)
        if isinstance(of, str):
            return of
        settling = [o for o in self.orders.values() if o.kind is Kind.SETTLEMENT and o.state in ("posting", "stuck")]
        if any(payment is order.of for o in settling for payment, _, _ in o.parts):
            return "payment-being-settled"
        if order.amount > of.left:
            return "refund-exceeds-payment"
        order.from_pending = min(order.amount, of.pending)
        settled = order.amount - order.from_pending
        if order.from_pending:
            order.fee_waived = (of.fee - of.fee_settled - of.fee_waived) * order.from_pending // of.pending
        if settled:
            still = of.settled - of.refunded + of.refunded_unsettled
            order.fee = (of.fee_settled - of.fee_returned) * settled // still
        self._take_back(order, of, 1)
        return None

    def _take_back(self, order: Asked, of: Progress, sign: int) -> None:
        of.refunded += sign * order.amount
        of.refunded_unsettled += sign * order.from_pending
        of.fee_waived += sign * order.fee_waived
        of.fee_returned += sign * order.fee

    def _charge_back(self, order: Asked) -> str | None:
        of = self._paid(order)
        if isinstance(of, str):
            return of
        if order.amount > of.left:
            return "chargeback-exceeds-payment"
        of.charged_back += order.amount
        return None

    def _settle(self, order: Asked) -> str | None:
        assert order.shop is not None
        waiting = [
            o for o in self.payments(order.shop) if o.progress and o.progress.pending and not o.progress.reversed
        ]
        total = sum(o.progress.pending for o in waiting if o.progress)
        if not total:
            return "nothing-to-settle"
        wanted = order.members.get("amount") or total
        if wanted > total:
            return "settlement-exceeds-pending"
        for payment in waiting:
            of = payment.progress
            assert of is not None
            part = min(wanted - order.amount, of.pending)
            if part:
                fee = (of.fee - of.fee_settled - of.fee_waived) * part // of.pending
                of.settled, of.fee_settled = of.settled + part, of.fee_settled + fee
                order.amount, order.fee = order.amount + part, order.fee + fee
                order.parts.append((payment, part, fee))
        return None

    def _withdraw(self, order: Asked) -> str | None:
        shop, day = order.shop, order.at.date()
        assert shop is not None
        if shop.limit is not None and shop.days.get(day, 0) + order.amount > shop.limit:
            return "withdrawal-limit-exceeded"
        shop.days[day] = shop.days.get(day, 0) + order.amount
        return None

    def _reverse(self, order: Asked) -> str | None:
        of = order.of
        if of is None:
            return "order-not-found"
        self._begin(of)
        if of.reversed_by is not None:
            return "order-already-reversed"
        if of.state != "posted":
            return "order-not-reversible"
        came_back = of.progress and (of.progress.refunded or of.progress.charged_back)
        if came_back or (of.progress and of.settle == "later" and of.progress.settled):
            return "order-not-reversible"
        of.reversed_by, order.amount, order.fee = order, of.amount, of.fee
        if of.progress:
            of.progress.reversed = True
        return None

    # --- The account service ---

    def post(self, order: Asked, available: int | None = None) -> str:
        """Post the voucher of an order, once.

        `available`: the available balance of the merchant at that time, if it differs from the current one.
        """
        if order.outcome is None:
            moves = order.moves()
            has = {} if order.shop is None else order.shop.has
            short = [
                name
                for name, amount in moves.items()
                if name in has
                and (available if name == "available" and available is not None else has[name]) + amount < 0
            ]
            order.outcome = "refused" if short or self.frozen & set(moves) else "posted"
            if order.outcome == "posted":
                order.posted_at = None if self.now is None else self.now()
                for name in set(moves) & set(has):
                    has[name] += moves[name]
        return order.outcome

    def end(self, order: Asked) -> str:
        """Post the end of a withdrawal."""
        assert order.shop is not None
        if order.end_outcome is None:
            stopped = order.ending == "bounced" and "available" in self.frozen
            order.end_outcome = "refused" if stopped else "posted"
            if order.ending == "bounced" and not stopped:
                order.shop.has["available"] += order.amount + order.fee
        return order.end_outcome

    # --- Known outcomes ---

    def mark(self, order: Asked) -> None:
        assert order.outcome is not None
        order.state = order.outcome
        if order.state == "posted":
            if order.settle == "later" and order.kind is Kind.PAYMENT:
                order.progress = Progress(order.amount, order.fee)
            return
        of = order.of.progress if order.of else None
        if order.kind is Kind.REFUND:
            assert of is not None
            self._take_back(order, of, -1)
        elif order.kind is Kind.CHARGEBACK:
            assert of is not None
            of.charged_back -= order.amount
        elif order.kind is Kind.SETTLEMENT:
            for payment, part, fee in order.parts:
                assert payment.progress is not None
                payment.progress.settled -= part
                payment.progress.fee_settled -= fee
        elif order.kind is Kind.WITHDRAWAL:
            assert order.shop is not None
            order.shop.days[order.at.date()] -= order.amount
        elif order.kind is Kind.REVERSAL:
            assert order.of is not None
            order.of.reversed_by = None
            if of:
                of.reversed = False

    def mark_end(self, order: Asked) -> None:
        assert order.shop is not None and order.ending is not None
        if order.end_outcome == "posted":
            order.state = order.ending
            if order.ending == "bounced":
                order.shop.days[order.at.date()] -= order.amount
        else:
            order.attempt, order.end_outcome = order.attempt + 1, None
