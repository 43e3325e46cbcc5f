"""Load generator of chaos tests: it sends orders of all kinds as front ends do, records the responses, and compares
them with the final state.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec

from benchmarks.drill_books import Differences
from benchmarks.fund_service import SIMULATOR, FundService
from benchmarks.progress import Step
from benchmarks.runs import BenchFault
from benchmarks.wire import HOST

TIMEOUT_S: Final = 15.0
CONNECTIONS: Final = 256
ASKERS: Final = 32
PAGE: Final = 500
FEE: Final = {"basis_points": 60, "fixed": 0, "minimum": 1}
WITHDRAWAL_FEE: Final = {"fixed": 100}
MIX: Final = {"payments": 70, "refunds": 14, "withdrawals": 12, "settlements": 4}
ENDING: Final = ("withdrawals", "refunds")
"""Paths of the orders that are paid out through the simulator."""
POSTED: Final = frozenset({"posted", "sent", "paid", "bounced", "unknown"})
"""States in which the voucher of an order is in the ledger."""
_encode = msgspec.json.encode
_decode = msgspec.json.decode


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


class FundLoad:
    """Orders of `MIX` to one fund service. Not thread-safe.

    If `again` is True, a request is sent again until there is a definite response, as front ends do. Otherwise each
    request is sent once, and the services must complete the order without a retry.
    """

    def __init__(self, service: FundService, seed: int, merchants: int, *, again: bool) -> None:
        self.found = Differences()
        self.orders: list[Asked] = []
        self.answers: Counter[str] = Counter()
        self._service = service
        self._chance = random.Random(seed)
        self._merchants = [f"d{seed}-{number}" for number in range(merchants)]
        self._again = again
        self._paid: list[Asked] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    async def open(self) -> None:
        """Create the merchants. Raises BenchFault."""
        headers = {"Authorization": f"Bearer {self._service.token}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout)
        for id_ in self._merchants:
            members = {"id": id_, "name": id_, "currency": "CNY", "fee": FEE, "withdrawal_fee": WITHDRAWAL_FEE}
            status, answer = await self._call("POST", "/v1/merchants", members)
            if status not in (200, 201):
                raise BenchFault(f"merchant {id_} could not be created: {status} {answer}")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # --- Sending ---

    async def run(self, rate: float, seconds: float, step: Step) -> None:
        """Send orders as a Poisson process, on average `rate` per second."""
        started = time.monotonic()
        due = started
        while (due := due + self._chance.expovariate(rate)) < started + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._send(self._next()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            step.advance()
        step.result = self.told()

    async def finish(self, within_s: float) -> None:
        """Wait until every sent request has a response. After `within_s` seconds no request is retried."""
        if self._tasks:
            _, pending = await asyncio.wait(set(self._tasks), timeout=within_s)
            self._ending.set()
            if pending:
                await asyncio.wait(pending, timeout=TIMEOUT_S + 5)

    def told(self) -> str:
        states = Counter(order.state for order in self.orders)
        return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))

    def count(self, *states: str) -> int:
        return sum(order.state in states for order in self.orders)

    def _next(self) -> Asked:
        chance = self._chance
        path = chance.choices(list(MIX), list(MIX.values()))[0]
        number = f"{path[0]}{len(self.orders)}"
        if path == "refunds" and self._paid:
            payment = chance.choice(self._paid)
            # Some refunds exceed the refundable amount: the service must refuse them.
            body = {"payment_order_no": payment.order_no, "amount": chance.randint(1, payment.body["amount"])}
            return self._asked(path, payment.merchant, number, body)
        merchant = chance.choice(self._merchants)
        if path == "settlements":
            return self._asked(path, merchant, number, {})
        if path == "withdrawals":
            return self._asked(path, merchant, number, {"amount": chance.randint(100, 20_000), "channel": SIMULATOR})
        settle = "later" if chance.random() < 0.2 else "now"
        amount = chance.randint(100, 50_000)
        body = {"amount": amount, "currency": "CNY", "channel": SIMULATOR, "settle": settle}
        return self._asked("payments", merchant, f"p{len(self.orders)}", body)

    def _asked(self, path: str, merchant: str, order_no: str, body: dict[str, Any]) -> Asked:
        order = Asked(path, merchant, order_no, {"merchant": merchant, "order_no": order_no, **body})
        self.orders.append(order)
        return order

    async def _send(self, order: Asked) -> None:
        pause_s = 0.05
        while True:
            await self._post(order)
            if order.calls == 1:
                order.first = order.state
            if not self._again or not order.outstanding or self._ending.is_set():
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)
        if order.path == "payments" and order.state == "posted":
            self._paid.append(order)

    async def _post(self, order: Asked) -> None:
        order.calls += 1
        status, answer = await self._call("POST", f"/v1/{order.path}", order.body)
        self.answers[str(status or answer)] += 1
        if status in (200, 201, 202):
            self._show(order, answer)
        elif status == 422:
            order.state = "refused"
            order.shown = answer.get("order", order.shown)
        elif status not in (0, 429, 503):
            self.found.add("answer", f"{order.path} {order.body}: {status} {answer}")

    def _show(self, order: Asked, members: dict[str, Any]) -> None:
        known = order.shown
        if (members["merchant"], members["order_no"]) != (order.merchant, order.order_no):
            self.found.add("answer", f"the response for {order.order_no} is {members}")
        fixed = ("id", "voucher_id", "amount", "fee", "currency")
        if known and not order.outstanding and any(known[name] != members[name] for name in fixed):
            self.found.add("altered", f"{order.order_no} was {known}, is {members}")
        if order.state == "refused" and members["state"] != "refused":
            self.found.add("altered", f"{order.order_no} was refused, is {members['state']}")
        order.shown = members
        order.state = members["state"]

    async def _call(self, method: str, path: str, members: dict[str, Any] | None) -> tuple[int, Any]:
        """Send a request and return `(status, body)`. If there is no response, return `(0, name of the error)`."""
        assert self._session is not None
        url = f"http://{HOST}:{self._service.fund_port}{path}"
        body = None if members is None else _encode(members)
        try:
            async with self._session.request(method, url, data=body) as response:
                return response.status, _decode(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            return 0, type(error).__name__

    # --- Reading ---

    async def look(self, orders: Iterable[Asked]) -> bool:
        """Read the current state of each order. If the service does not have an order, its `state` stays as it is.

        Return whether every read had a response. An order whose read had no response may exist and be `posting`.
        """
        waiting = list(orders)
        answered = True

        async def ask() -> None:
            nonlocal answered
            while waiting:
                order = waiting.pop()
                path = f"/v1/{order.path}?merchant={order.merchant}&order_no={order.order_no}"
                status, answer = await self._call("GET", path, None)
                if status == 200:
                    self._show(order, answer)
                elif status in (0, 429, 503):
                    answered = False
                elif status != 404:
                    self.found.add("answer", f"GET {path}: {status} {answer}")

        await asyncio.gather(*(ask() for _ in range(ASKERS)))
        return answered

    async def known_after(self, within_s: float) -> float | None:
        """Return the seconds until every accepted order has an outcome, None if that takes longer than `within_s`.

        The method sends only GET requests. Orders that were never accepted keep the state `none`; `send_again` sends
        them again.
        """
        started = time.monotonic()
        while True:
            doubtful = [order for order in self.orders if order.outstanding]
            looked = await self.look(doubtful)
            if looked and not any(order.state in ("posting", "created") for order in doubtful):
                return time.monotonic() - started
            if time.monotonic() - started > within_s:
                return None
            await asyncio.sleep(0.1)

    async def send_again(self, within_s: float) -> None:
        """Send orders without an outcome again, until each is posted or refused. Each order that has no outcome after
        `within_s` seconds is recorded as a difference.
        """
        give_up_at = time.monotonic() + within_s
        while waiting := [order for order in self.orders if order.outstanding]:
            if time.monotonic() > give_up_at:
                for order in waiting:
                    self.found.add("stuck", f"{order.path} {order.order_no} of {order.merchant} is {order.state}")
                return
            for start in range(0, len(waiting), ASKERS):
                await asyncio.gather(*(self._post(order) for order in waiting[start : start + ASKERS]))
            await asyncio.sleep(0.1)

    async def at_rest(self, within_s: float) -> None:
        """Wait until every order in the database has an outcome. If an order has none after `within_s` seconds, record
        a difference.

        While the database is unavailable, the method retries.
        """
        give_up_at = time.monotonic() + within_s
        while True:
            left: object
            try:
                left = await self._service.moving_orders()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                left = error
            if left == 0:
                return
            if time.monotonic() > give_up_at:
                self.found.add("stuck", f"orders of the database without an outcome: {left}")
                return
            await asyncio.sleep(0.1)

    async def ended(self, within_s: float, step: Step) -> list[Asked]:
        """Wait until the payout of every withdrawal and refund has an outcome. Return the orders without one after
        `within_s`.
        """
        give_up_at = time.monotonic() + within_s
        while True:
            waiting = [order for order in self.orders if order.under_way]
            step.result = f"{len(waiting)} are still under way"
            if not waiting or time.monotonic() > give_up_at:
                return waiting
            await self.look(waiting)
            await asyncio.sleep(0.5)

    # --- Proving ---

    async def compare(self) -> None:
        """Compare the lists and balances of the service with the orders. Each order must be listed once, in the
        reported state, and no other order may be listed.
        """
        for path in MIX:
            if not any(order.state in POSTED for order in self.orders if order.path == path):
                self.found.add("idle", f"none of the {path} was posted: they were not tested")
        for path in MIX:
            mine = {(order.merchant, order.order_no): order for order in self.orders if order.path == path}
            seen: Counter[tuple[str, str]] = Counter()
            for merchant in self._merchants:
                for members in await self._list(path, merchant):
                    key = (members["merchant"], members["order_no"])
                    seen[key] += 1
                    if key not in mine:
                        self.found.add("unknown", f"{path} {key} was never requested")
                    else:
                        self._show(mine[key], members)
            self._once(mine, seen)
        for merchant in self._merchants:
            await self._compare_balance(merchant)

    async def _compare_balance(self, merchant: str) -> None:
        """Compare a merchant's balance with its orders. If a withdrawal may have ended between the two reads, read and
        compare again.
        """
        give_up_at = time.monotonic() + TIMEOUT_S
        while True:
            moving = [order for order in self.orders if order.merchant == merchant and order.under_way]
            status, answer = await self._call("GET", f"/v1/merchants/{merchant}", None)
            late = time.monotonic() > give_up_at
            if status == 200:
                of = {name.rpartition(":")[2]: balance["posted"] for name, balance in answer["balances"].items()}
                has, should = of["available"] + of["pending"], self._balance(merchant)
                if has == should:
                    return
                if late or not moving:
                    self.found.add("balance", f"merchant {merchant} has {has}, by its orders {should}")
                    return
                await self.look(moving)
            elif late or status not in (0, 429, 503):
                self.found.add("answer", f"merchant {merchant}: {status} {answer}")
                return
            await asyncio.sleep(0.1)

    def _once(self, mine: dict[tuple[str, str], Asked], seen: Counter[tuple[str, str]]) -> None:
        for key, order in mine.items():
            # A request that was refused before an order was stored is not listed.
            if seen[key] > 1 or (not seen[key] and order.state != "refused"):
                self.found.add("lost" if not seen[key] else "doubled", f"{order.path} {key}: {seen[key]} times")

    async def _list(self, path: str, merchant: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = f"/v1/{path}?merchant={merchant}&limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")
            status, answer = await self._call("GET", page, None)
            if status in (0, 429, 503):
                await asyncio.sleep(0.2)
                continue
            if status != 200:
                self.found.add("answer", f"GET {page}: {status} {answer}")
                return found
            found += answer["orders"]
            cursor = answer["next_cursor"]
        return found

    def _balance(self, merchant: str) -> int:
        """Return the sum of available and pending balance that the merchant should have according to its orders."""
        total = 0
        for order in self.orders:
            if order.merchant == merchant and order.state in POSTED:
                total += _change(order)
        return total

    def paid_out(self, path: str) -> int:
        return sum(order.shown["amount"] for order in self.orders if order.path == path and order.state == "paid")


def _change(order: Asked) -> int:
    """Return the amount by which a posted order changes the merchant's balance."""
    shown = order.shown
    return 0 if order.state == "bounced" else int(shown["net"])
