"""The model of split payments: the balances after each order, as in money_model.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.money_model import Platform
from tests.support.money_records import PARKED, POSTED, REFUSED, Merchant, Moves, share_of


@dataclass(eq=False)
class SplitPart:
    """The part of one merchant. `fee` and `tax`: what was charged and has not come back."""

    merchant: Merchant
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
    def merchants(self) -> list[Merchant]:
        return [part.merchant for part in self.parts]

    @property
    def currency(self) -> str:
        return self.parts[0].merchant.currency

    @property
    def left(self) -> int:
        return sum(part.left for part in self.parts)


@dataclass(eq=False)
class SplitRefund:
    """A refund that has no end. `parts`: the amount, the fee and the tax of each part that it returned."""

    number: str
    payment: SplitPayment
    parts: list[tuple[SplitPart, int, int, int]]

    @property
    def amount(self) -> int:
        return sum(amount for _, amount, _, _ in self.parts)


@dataclass(eq=False)
class SplitCharge:
    """A chargeback. `amounts`: by merchant. `became_debt`: a part of it was not covered."""

    number: str
    payment: SplitPayment
    amounts: dict[str, int]
    state: str = POSTED
    was_parked: bool = False
    became_debt: bool = False
    moves: Moves = field(default_factory=dict)


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


class Splits:
    """The split payments of a platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.payments: list[SplitPayment] = []
        self.charges: list[SplitCharge] = []
        self.refunds: list[SplitRefund] = []
        self.parked: list[SplitPayment | SplitCharge] = []

    def pay(self, number: str, parts: Sequence[tuple[Merchant, int, int | None]]) -> str:
        """Take a payment in, for merchants of one currency: (merchant, amount, commission or None) each."""
        split = SplitPayment(number, [SplitPart(m, a, *m.rule.of(a, fee), m.rule.keeps) for m, a, fee in parts])
        self.payments.append(split)
        bank = self.platform.bank(split.currency)
        if self._take_in(split, bank) == POSTED:
            return POSTED
        split.state, split.was_parked = PARKED, True
        self.parked.append(split)
        amount = sum(part.amount for part in split.parts)
        self.platform.move({bank: -amount, self.platform.named("suspense:parked", split.currency): amount})
        return PARKED

    def _take_in(self, split: SplitPayment, source: str) -> str:
        fee, tax = sum(part.fee for part in split.parts), sum(part.tax for part in split.parts)
        moves = {source: -sum(part.amount for part in split.parts), **self.platform.charge(split.currency, fee, tax)}
        for part in split.parts:
            moves |= self.platform.credit(part.merchant, part.amount - part.fee)
        if self._post(split, moves) == REFUSED:
            return REFUSED
        split.state, split.moves = POSTED, moves
        return POSTED

    def _post(self, split: SplitPayment, moves: Moves) -> str:
        first, *others = split.merchants
        return self.platform.post(first, moves, *others)

    def refund(self, number: str, split: SplitPayment, amounts: dict[str, int] | int) -> str:
        """Refund amounts by merchant, or an amount in proportion to what is left of the parts."""
        if (no := self._unreturnable(split)) is not None:
            return no
        if (division := self._division(split, amounts)) is None:
            return "refund-exceeds-payment"
        refund = SplitRefund(number, split, [])
        moves: Moves = {self.platform.transit("refund", split.currency): sum(division.values())}
        for part in split.parts:
            amount = division.get(part.merchant.id, 0)
            fee = 0 if part.keeps or not amount else share_of(part.fee, part.amount - part.refunded, amount)
            tax = share_of(part.tax, part.fee, fee) if fee else 0
            refund.parts.append((part, amount, fee, tax))
            moves[part.merchant.of("available")] = fee - amount
        if self._post(split, {**moves, **self._returned(refund, -1)}) == REFUSED:
            return REFUSED
        self._count(refund, 1)
        self.refunds.append(refund)
        return POSTED

    def _returned(self, refund: SplitRefund, sign: int) -> Moves:
        fee, tax = sum(fee for *_, fee, _ in refund.parts), sum(tax for *_, tax in refund.parts)
        return self.platform.charge(refund.payment.currency, sign * fee, sign * tax)

    @staticmethod
    def _count(refund: SplitRefund, sign: int) -> None:
        for part, amount, fee, tax in refund.parts:
            part.refunded += sign * amount
            part.fee -= sign * fee
            part.tax -= sign * tax

    def end(self, refund: SplitRefund, *, paid: bool) -> str:
        currency = refund.payment.currency
        transit = self.platform.transit("refund", currency)
        self.refunds.remove(refund)
        if paid:
            self.platform.move({transit: -refund.amount, self.platform.bank(currency): refund.amount})
            return "paid"
        moves = {transit: -refund.amount, **self._returned(refund, 1)}
        for part, amount, fee, _ in refund.parts:
            moves |= self.platform.credit(part.merchant, amount - fee)
        assert self._post(refund.payment, moves) == POSTED
        self._count(refund, -1)
        return "bounced"

    def charge_back(self, number: str, split: SplitPayment, amounts: dict[str, int] | int) -> str:
        if (no := self._unreturnable(split)) is not None:
            return no
        if (division := self._division(split, amounts)) is None:
            return "chargeback-exceeds-payment"
        charge = SplitCharge(number, split, division)
        self.charges.append(charge)
        self._take_part(charge, 1)
        if self._take_back(charge, self.platform.bank(split.currency)) == POSTED:
            return POSTED
        charge.state, charge.was_parked = PARKED, True
        self.parked.append(charge)
        for part in split.parts:
            part.merchant.in_parked_splits += part.merchant.id in division
        amount = sum(division.values())
        parked = self.platform.named("suspense:parked", split.currency)
        self.platform.move({parked: -amount, self.platform.bank(split.currency): amount})
        return PARKED

    @staticmethod
    def _take_part(charge: SplitCharge, sign: int) -> None:
        for part in charge.payment.parts:
            part.charged_back += sign * charge.amounts.get(part.merchant.id, 0)

    def _take_back(self, charge: SplitCharge, target: str) -> str:
        moves: Moves = {target: sum(charge.amounts.values())}
        for merchant in charge.payment.merchants:
            amount = charge.amounts.get(merchant.id, 0)
            available = min(amount, self.platform.balances[merchant.of("available")])
            moves |= {merchant.of("available"): -available, merchant.of("receivable"): available - amount}
            charge.became_debt = charge.became_debt or available < amount
        charge.moves = moves
        return self._post(charge.payment, moves)

    @staticmethod
    def _unreturnable(split: SplitPayment) -> str | None:
        if split.state == PARKED:
            return "payment-not-posted"
        return "order-already-reversed" if split.state == "reversed" else None

    @staticmethod
    def _division(split: SplitPayment, amounts: dict[str, int] | int) -> dict[str, int] | None:
        """Return the amount of each merchant, None if one exceeds what is left of its part."""
        left = {part.merchant.id: part.left for part in split.parts}
        if isinstance(amounts, dict):
            return None if any(amount > left.get(id_, 0) for id_, amount in amounts.items()) else amounts
        if amounts > split.left:
            return None
        shares = dict(zip(left, divided(amounts, list(left.values())), strict=True))
        return {id_: share for id_, share in shares.items() if share}

    def reverse(self, order: SplitPayment | SplitCharge) -> str:
        if order.state == "reversed":
            return "order-already-reversed"
        if order.state != POSTED or order.was_parked:
            return "order-not-reversible"
        split = order if isinstance(order, SplitPayment) else order.payment
        if isinstance(order, SplitCharge) and order.became_debt:
            return "order-not-reversible"
        if isinstance(order, SplitPayment) and split.left < sum(part.amount for part in split.parts):
            return "order-not-reversible"
        outcome = self._post(split, {account: -amount for account, amount in order.moves.items()})
        if outcome == POSTED:
            order.state = "reversed"
            if isinstance(order, SplitCharge):
                self._take_part(order, -1)
        return outcome

    def release(self) -> list[str]:
        """Release the parked orders of whose merchants none is held. Return their numbers, in order."""
        ready = [order for order in self.parked if not any(m.held for m in _merchants(order))]
        self.parked = [order for order in self.parked if order not in ready]
        for order in ready:
            source = self.platform.named("suspense:parked", _merchants(order)[0].currency)
            if isinstance(order, SplitPayment):
                assert self._take_in(order, source) == POSTED
                continue
            assert self._take_back(order, source) == POSTED
            order.state = POSTED
            for merchant in order.payment.merchants:
                merchant.in_parked_splits -= merchant.id in order.amounts
        return [order.number for order in ready]


def _merchants(order: SplitPayment | SplitCharge) -> list[Merchant]:
    return order.merchants if isinstance(order, SplitPayment) else order.payment.merchants
