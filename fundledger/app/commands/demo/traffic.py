"""Demo: the payments of a day, one per request. Half of them go to one merchant."""

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from fundledger.client import FundService
from fundledger.client.fund_types import Order, Payment

AT_ONCE: Final = 400
BAR: Final = 30


class Traffic:
    """Payments to `merchants`: half of them to the first one. The payments to `late` are settled later. `paid`: the
    orders, in the sequence of their answers.
    """

    def __init__(self, fund: FundService, merchants: Sequence[str], late: str, channel: str) -> None:
        self._fund = fund
        self._merchants = merchants
        self._late = late
        self._channel = channel
        self._numbers = count(1)
        self._random = random.Random(7)
        self._took_s: list[float] = []
        self.paid: list[Order] = []

    async def run(self, each: int, seconds: int, rate: int) -> str:
        """Pay `each` payments to each merchant, then `rate` payments per second until `seconds` have passed. Return a
        line that reports them. Raises the client's faults and refusals.
        """
        began = time.monotonic()
        await asyncio.gather(*(self._pay(self.payment(merchant)) for merchant in self._merchants for _ in range(each)))
        running: set[asyncio.Task[None]] = set()
        sent = 0
        while (elapsed := time.monotonic() - began) < seconds:
            while sent < elapsed * rate and len(running) < AT_ONCE:
                task = asyncio.create_task(self._pay(self.payment()))
                running.add(task)
                task.add_done_callback(running.discard)
                sent += 1
            _progress(elapsed / seconds, f"{sent:,} payments")
            await asyncio.sleep(0.02)
        await asyncio.gather(*running)
        _progress(None, "")
        self._took_s.sort()
        median_ms, late_ms = (1000 * self._took_s[len(self._took_s) * share // 100] for share in (50, 99))
        hot = sum(order.merchant == self._merchants[0] for order in self.paid)
        return (
            f"{len(self.paid):,} payments in {time.monotonic() - began:.0f} s, {hot:,} of them to "
            f"{self._merchants[0]}: median {median_ms:.1f} ms, p99 {late_ms:.0f} ms"
        )

    def payment(self, merchant: str | None = None, amount: int | None = None) -> Payment:
        """Return a new payment. Without `merchant` half of the payments go to the first one."""
        if merchant is None:
            hot = self._random.random() < 0.5
            merchant = self._merchants[0] if hot else self._random.choice(self._merchants[1:])
        settle: Any = "later" if merchant == self._late else "now"
        number = f"sale-{next(self._numbers)}"
        amount = amount or self._random.randint(4_000, 20_000)
        return Payment(merchant, number, amount, "CNY", self._channel, f"bank-{number}", settle)

    def some(self, merchants: Sequence[str], number: int) -> list[Order]:
        """Return `number` posted payments to these merchants, chosen at random."""
        return self._random.sample([order for order in self.paid if order.merchant in merchants], number)

    async def _pay(self, payment: Payment) -> None:
        started = time.monotonic()
        self.paid.append(await self.send(payment))
        self._took_s.append(time.monotonic() - started)

    async def send(self, payment: Payment) -> Order:
        """Send a payment. Raises the client's faults and refusals."""
        members = payment.merchant, payment.order_no, payment.amount, payment.currency
        return await self._fund.pay(*members, payment.channel, payment.channel_ref, payment.settle)


def _progress(share: float | None, what: str) -> None:
    if not sys.stderr.isatty():
        return
    if share is None:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return
    filled = int(BAR * min(1.0, share))
    print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {what}", end="", file=sys.stderr, flush=True)
