"""Orders of the chaos tests: the kinds and their frequencies, and the change of a merchant's balance by each order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.fund_service import SIMULATOR

FEE: Final = {"basis_points": 60, "fixed": 0, "minimum": 1}
WITHDRAWAL_FEE: Final = {"fixed": 100}
USUAL: Final = {"payments": 64, "refunds": 13, "withdrawals": 11, "settlements": 4}
FURTHER: Final = {
    "chargebacks": 2,
    "disputes": 1,
    "split-payments": 2,
    "top-ups": 1,
    "transfers": 1,
    "reserve-holds": 1,
    "reserve-releases": 1,
}
MIX: Final = {**USUAL, **FURTHER}
ROLLING: Final = {"rolling_basis_points": 500, "rolling_days": 30}
"""The rolling reserve of each fourth merchant. Its holds are orders of the service, named `auto-...`."""
AUTO: Final = "auto-"
PLATFORM: Final = "platform"
ENDING: Final = ("withdrawals", "refunds")
"""Paths of the orders that are paid out through the simulator."""
POSTED: Final = frozenset({"posted", "sent", "paid", "bounced", "unknown"})
"""States in which the voucher of an order is in the ledger."""


@dataclass(slots=True)
class Asked:
    """An order that was requested; `order_no` identifies it.

    `state` is the last state that the service reported. It is `none` before the first report. It is `refused` also if
    the request was refused and no order was stored. `first` is the state after the first call.
    """

    path: str
    merchant: str
    order_no: str
    body: dict[str, Any]
    state: str = "none"
    first: str = "none"
    shown: dict[str, Any] = field(default_factory=dict)
    calls: int = 0

    @property
    def outstanding(self) -> bool:
        """Whether the outcome of the order's voucher is unknown."""
        return self.state in ("none", "posting", "created")

    @property
    def under_way(self) -> bool:
        """Whether the order is a withdrawal or a refund whose payout has no outcome yet."""
        return self.path in ENDING and self.state in ("posted", "sent", "unknown")


class Mix:
    """Random orders of `MIX` for these merchants."""

    def __init__(self, chance: random.Random, merchants: Sequence[str]) -> None:
        self._chance = chance
        self._merchants = merchants

    def next(self, count: int, paid: Sequence[Asked]) -> Asked:
        """Return the next order. `count`: the number of earlier orders. `paid`: posted payments."""
        chance = self._chance
        path = chance.choices(list(MIX), list(MIX.values()))[0]
        number = f"{path[0]}{count}"
        if path in ("refunds", "chargebacks", "disputes") and paid:
            payment = chance.choice(paid)
            # Some refunds exceed the refundable amount: the service must refuse them.
            body = {"payment_order_no": payment.order_no, "amount": chance.randint(1, payment.body["amount"])}
            return _asked(path, payment.merchant, number, body)
        merchant = chance.choice(self._merchants)
        if path in FURTHER and path not in ("chargebacks", "disputes"):
            return self._further(path, merchant, number)
        if path == "settlements":
            return _asked(path, merchant, number, {})
        if path == "withdrawals":
            return _asked(path, merchant, number, {"amount": chance.randint(100, 20_000), "channel": SIMULATOR})
        settle = "later" if chance.random() < 0.2 else "now"
        amount = chance.randint(100, 50_000)
        body = {"amount": amount, "currency": "CNY", "channel": SIMULATOR, "settle": settle}
        return _asked("payments", merchant, f"p{count}", body)

    def _further(self, path: str, merchant: str, number: str) -> Asked:
        """Return an order that is neither usual nor about a payment."""
        chance, money = self._chance, {"currency": "CNY", "channel": SIMULATOR}
        if path == "split-payments":
            amounts = {id_: chance.randint(1, 5_000) for id_ in chance.sample(self._merchants, 3)}
            parts = [{"merchant": id_, "amount": amount} for id_, amount in amounts.items()]
            return _asked(path, PLATFORM, number, {"amount": sum(amounts.values()), "parts": parts, **money})
        body: dict[str, Any] = {"amount": chance.randint(1, 2_000)}
        if path == "top-ups":
            body |= money
        if path == "transfers":
            body["to_merchant"] = chance.choice([id_ for id_ in self._merchants if id_ != merchant])
        return _asked(path, merchant, number, body)


def members_of(number: int, id_: str) -> dict[str, Any]:
    """Return the request that creates the merchant with this number. Each fourth merchant has a rolling reserve."""
    rolling = ROLLING if number % 4 == 0 else {}
    fees = {"fee": FEE, "withdrawal_fee": WITHDRAWAL_FEE}
    return {"id": id_, "name": id_, "currency": "CNY", **fees, **rolling}


def _asked(path: str, merchant: str, order_no: str, body: dict[str, Any]) -> Asked:
    owner = {} if merchant == PLATFORM else {"merchant": merchant}
    return Asked(path, merchant, order_no, {**owner, "order_no": order_no, **body})


def change_of(order: Asked, merchant: str) -> int:
    """Return the amount by which a posted order changes the balance of a merchant."""
    if order.path == "split-payments":
        return sum(part["net"] for part in order.shown["parts"] if part["merchant"] == merchant)
    if order.body.get("to_merchant") == merchant:
        return int(order.shown["amount"])
    if order.merchant != merchant or order.state == "bounced":
        return 0
    return int(order.shown["net"])
