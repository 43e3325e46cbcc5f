"""A model of the fund service as docs/reference/fund.md describes it: balances, payments, and daily limits.

It shares no code with the service except for the enumerations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from fundledger.fund.model.order import Kind
from tests.support.calendar_model import CalendarModel

LAST_ATTEMPT = 3
"""The number of the last attempt of a chargeback. In this attempt the whole amount becomes a debt."""
FACTS = (Kind.PAYMENT, Kind.CHARGEBACK, Kind.PAYOUT_RETURN)
"""Kinds of orders of the runs that are parked, and not refused."""
KINDS = frozenset(tuple(Kind)[: tuple(Kind).index(Kind.OWN_TRANSFER)])
"""The kinds of orders in the runs of the model. tests/fund/test_money.py has the runs with the other kinds."""
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
    charged_back_unsettled: int = 0
    reversed: bool = False

    @property
    def pending(self) -> int:
        return self.amount - self.settled - self.refunded_unsettled - self.charged_back_unsettled

    @property
    def left(self) -> int:
        return self.amount - self.refunded - self.charged_back


@dataclass(eq=False)
class Shop:
    """A merchant. `rules`: `(product, effective at, basis points, fixed)`, in the order in which they were created.

    `debt`: what posted orders made it owe, less what its other orders repay. An order that is not refused repays.
    """

    id: str
    limit: int | None
    rules: list[tuple[str, datetime, int, int]]
    has: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OWN, 0))
    days: dict[date, int] = field(default_factory=dict)
    debt: int = 0

    def set_off(self, credit: int) -> int:
        """Take the part of a credit that repays the debt."""
        part = min(credit, self.debt)
        self.debt -= part
        return part

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
    set_off: int = 0
    end_set_off: int = 0
    attempt: int = 0
    parking: str | None = None
    stuck_from: str | None = None
    ending: str | None = None
    end_outcome: str | None = None
    reversed_by: "Asked | None" = None
    outcome: str | None = None
    posted_at: datetime | None = None
    settle_on: date | None = None
    returned: int = 0
    progress: Progress | None = None
    parts: "list[tuple[Asked, int, int]]" = field(default_factory=list)

    @property
    def order_no(self) -> str:
        return str(self.members["order_no"])

    def moves(self) -> dict[str, int]:
        """Return the changes of the merchant's accounts by the voucher. `bank` is 0 if it has a line on a bank account."""
        n, fee = self.amount, self.fee
        if self.kind is Kind.PAYMENT:
            found = {"pending": n} if self.settle == "later" else self.credit(n - fee)
            found["bank"] = 0
        elif self.kind is Kind.REFUND:
            found = {"pending": -self.from_pending, "available": fee - (n - self.from_pending)}
        elif self.kind is Kind.SETTLEMENT:
            found = {"pending": -n, **self.credit(n - fee)}
        elif self.kind is Kind.WITHDRAWAL:
            found = self.credit(-n - fee)
        elif self.kind is Kind.PAYOUT_RETURN:
            found = {**self.credit(n + fee), "bank": 0}
        elif self.kind is Kind.CHARGEBACK:
            rest = n - self.from_pending
            found = {"pending": -self.from_pending, "available": self.to_receivable - rest}
            found |= {"receivable": self.to_receivable, "bank": 0}
        elif self.kind is Kind.RECOVERY:
            found = {"available": -n, "receivable": -n}
        elif self.kind is Kind.WRITE_OFF:
            found = {"receivable": -n}
        elif self.kind is Kind.ADJUSTMENT:
            found = self.credit(n) if self.direction == "credit" else {"available": -n}
        elif self.kind is Kind.REVERSAL:
            assert self.of is not None
            found = {name: -amount for name, amount in self.of.moves().items()}
        else:
            found = {"bank": 0}
        return {name: amount for name, amount in found.items() if amount or name == "bank"}

    def credit(self, amount: int) -> dict[str, int]:
        """Return a credit, or a debit, of the available balance, of which a part repays the debt."""
        return {"available": amount - self.set_off, "receivable": -self.set_off}


class Model:
    def __init__(self, calendar: tuple[str, time] | None = None) -> None:
        self.orders: dict[tuple[Kind, str, str], Asked] = {}
        self.now: Callable[[], datetime] | None = None
        self.days = CalendarModel(*(calendar or ()))
        self.frozen: set[str] = set()
        """Accounts that accept no debits and no credits: names of the merchant's accounts, or `bank`."""

    def is_over(self, order: Asked, now: datetime) -> bool:
        """Return whether the day of an order has ended."""
        return self.days.day(order.at) < self.days.day(now)

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
            Kind.PAYMENT: self._pay,
            Kind.PAYOUT_RETURN: self._return,
            Kind.RECOVERY: self._repay,
            Kind.WRITE_OFF: self._repay,
        }.get(order.kind, lambda _: None)(order)
        if code is None:
            self.orders[order.kind, order.shop.id if order.shop else "platform", order.order_no] = order
        return code

    def _pay(self, order: Asked) -> None:
        if order.settle == "now" and order.shop is not None:
            order.set_off = order.shop.set_off(order.amount - order.fee)

    def _return(self, order: Asked) -> str | None:
        of = order.of
        if of is None:
            return "withdrawal-not-found"
        if of.state != "paid":
            return "withdrawal-not-paid"
        if order.amount > of.amount - of.returned:
            return "return-exceeds-withdrawal"
        if order.members.get("fee") == "returned":
            order.fee = of.fee * order.amount // of.amount
        of.returned += order.amount
        self._credit_return(order)
        return None

    def _credit_return(self, order: Asked) -> None:
        assert order.shop is not None
        order.set_off = order.shop.set_off(order.amount + order.fee)

    def _repay(self, order: Asked) -> str | None:
        assert order.shop is not None
        if order.amount > order.shop.debt:
            return "debt-exceeded"
        order.shop.debt -= order.amount
        return None

    def approve(self, order: Asked) -> None:
        """Record the approval of an adjustment. A credit repays the debt of the merchant."""
        assert order.shop is not None
        order.state = "posting"
        if order.direction == "credit":
            order.set_off = order.shop.set_off(order.amount)

    def begin_end(self, order: Asked, ending: str) -> None:
        """Record the end of an order. The amount that comes back repays the debt of the merchant."""
        assert order.shop is not None
        order.ending = ending
        if ending == "bounced":
            order.end_set_off = order.shop.set_off(self._bounced(order)["available"])

    def _bounced(self, order: Asked) -> dict[str, int]:
        """Return the changes of the merchant's accounts if the order bounces, before the set-off."""
        if order.kind is Kind.WITHDRAWAL:
            return {"available": order.amount + order.fee}
        return {"available": order.amount - order.from_pending - order.fee, "pending": order.from_pending}

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
        settled = order.amount - self._take_pending(order, of)
        if settled:
            still = of.settled - of.refunded + of.refunded_unsettled
            order.fee = (of.fee_settled - of.fee_returned) * settled // still
        self._take_back(order, of, 1)
        return None

    def _take_pending(self, order: Asked, of: Progress) -> int:
        order.from_pending = min(order.amount, of.pending)
        if order.from_pending:
            order.fee_waived = (of.fee - of.fee_settled - of.fee_waived) * order.from_pending // of.pending
        return order.from_pending

    def _take_back(self, order: Asked, of: Progress, sign: int) -> None:
        of.fee_waived += sign * order.fee_waived
        if order.kind is Kind.CHARGEBACK:
            of.charged_back += sign * order.amount
            of.charged_back_unsettled += sign * order.from_pending
        else:
            of.refunded += sign * order.amount
            of.refunded_unsettled += sign * order.from_pending
            of.fee_returned += sign * order.fee

    def _charge_back(self, order: Asked) -> str | None:
        of = self._paid(order)
        if isinstance(of, str):
            return of
        if order.amount > of.left:
            return "chargeback-exceeds-payment"
        self._take_pending(order, of)
        self._take_back(order, of, 1)
        return None

    def _settle(self, order: Asked) -> str | None:
        assert order.shop is not None
        waiting = [
            o for o in self.payments(order.shop) if o.progress and o.progress.pending and not o.progress.reversed
        ]
        if (day := order.members.get("day")) is not None:
            waiting = [o for o in waiting if o.settle_on is not None and o.settle_on <= day]
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
        order.set_off = order.shop.set_off(order.amount - order.fee)
        return None

    def _withdraw(self, order: Asked) -> str | None:
        shop, day = order.shop, self.days.day(order.at)
        assert shop is not None
        if shop.limit is not None and shop.days.get(day, 0) + order.amount > shop.limit:
            return "withdrawal-limit-exceeded"
        if any(o.shop is shop and self._may_change_debt(o) for o in self.orders.values()):
            return "debt-in-progress"
        order.set_off, shop.debt = shop.debt, 0
        shop.days[day] = shop.days.get(day, 0) + order.amount
        return None

    def _may_change_debt(self, order: Asked) -> bool:
        """Return whether the order has no known outcome that may change the debt of its merchant."""
        if order.end_set_off and order.state in ("posted", "sent", "unknown", "stuck"):
            return True
        changes = order.set_off or order.to_receivable or order.kind in (Kind.CHARGEBACK, Kind.RECOVERY, Kind.WRITE_OFF)
        return bool(changes) and (order.state in ("posting", "parked") or order.stuck_from == "posting")

    def _reverse(self, order: Asked) -> str | None:
        of = order.of
        if of is None:
            return "order-not-found"
        self._begin(of)
        if of.reversed_by is not None:
            return "order-already-reversed"
        if of.state != "posted" or of.parking is not None:
            return "order-not-reversible"
        came_back = of.progress and (of.progress.refunded or of.progress.charged_back)
        if came_back or (of.progress and of.settle == "later" and of.progress.settled):
            return "order-not-reversible"
        of.reversed_by, order.amount, order.fee, order.to_receivable = order, of.amount, of.fee, of.set_off
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
            if order.parking == "release":
                del moves["bank"]
            order.outcome = "refused" if short or self.frozen & set(moves) else "posted"
            if order.outcome == "posted":
                order.posted_at = None if self.now is None else self.now()
                for name in set(moves) & set(has):
                    has[name] += moves[name]
        return order.outcome

    def end(self, order: Asked) -> str:
        """Post the end of a withdrawal or a refund."""
        assert order.shop is not None
        if order.end_outcome is None:
            back = self._bounced(order) if order.ending == "bounced" else {"bank": 0}
            if order.end_set_off:
                back |= {"available": back["available"] - order.end_set_off, "receivable": -order.end_set_off}
            stopped = any(amount or name == "bank" for name, amount in back.items() if name in self.frozen)
            order.end_outcome = "refused" if stopped else "posted"
            for name in () if stopped else set(back) & set(order.shop.has):
                order.shop.has[name] += back[name]
        return order.end_outcome

    # --- Known outcomes ---

    def mark(self, order: Asked) -> None:
        assert order.outcome is not None
        if order.outcome == "refused" and order.kind in FACTS:
            self._park(order)
            return
        order.state = order.outcome
        if order.state == "posted":
            if order.settle == "later" and order.kind is Kind.PAYMENT:
                order.progress = Progress(order.amount, order.fee)
            if order.shop is not None:
                order.shop.debt += order.to_receivable
            if order.kind is Kind.REVERSAL and order.of and order.of.kind is Kind.PAYOUT_RETURN:
                assert order.of.of is not None
                order.of.of.returned -= order.amount
            return
        if order.shop is not None:
            order.shop.debt += order.amount if order.kind in (Kind.RECOVERY, Kind.WRITE_OFF) else order.set_off
        of = order.of.progress if order.of else None
        if order.kind in (Kind.REFUND, Kind.CHARGEBACK):
            assert of is not None
            self._take_back(order, of, -1)
        elif order.kind is Kind.SETTLEMENT:
            for payment, part, fee in order.parts:
                assert payment.progress is not None
                payment.progress.settled -= part
                payment.progress.fee_settled -= fee
        elif order.kind is Kind.WITHDRAWAL:
            assert order.shop is not None
            order.shop.days[self.days.day(order.at)] -= order.amount
        elif order.kind is Kind.REVERSAL:
            assert order.of is not None
            order.of.reversed_by = None
            if of:
                of.reversed = False

    def _park(self, order: Asked) -> None:
        """Park a fact that the accounts of the merchant do not take, or whose release was refused."""
        assert order.shop is not None
        order.shop.debt += order.set_off
        order.set_off = order.to_receivable = 0
        if order.parking is None:
            order.attempt, order.parking = order.attempt + 1, "park"
        order.state = "parked"

    def begin_release(self, order: Asked) -> None:
        """Record the release of a parked order, with the current balance and debt of its merchant."""
        assert order.shop is not None
        order.attempt, order.parking, order.state, order.outcome = order.attempt + 1, "release", "posting", None
        if order.kind is Kind.CHARGEBACK:
            rest = order.amount - order.from_pending
            has = 0 if "available" in self.frozen else order.shop.has["available"]
            order.to_receivable = rest - min(has, rest)
        elif order.kind is Kind.PAYOUT_RETURN:
            self._credit_return(order)
        else:
            self._pay(order)

    def mark_end(self, order: Asked) -> None:
        assert order.shop is not None and order.ending is not None
        if order.end_outcome == "posted":
            order.state = order.ending
            if order.ending == "bounced" and order.kind is Kind.WITHDRAWAL:
                order.shop.days[self.days.day(order.at)] -= order.amount
            elif order.ending == "bounced":
                assert order.of is not None and order.of.progress is not None
                self._take_back(order, order.of.progress, -1)
        else:
            order.attempt, order.end_outcome = order.attempt + 1, None
