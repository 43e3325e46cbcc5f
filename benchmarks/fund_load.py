"""Load generator of chaos tests: it sends orders of all kinds as front ends do, records the responses, and compares
them with the final state.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import aiohttp
import asyncpg
import msgspec

from benchmarks.drill_books import Differences
from benchmarks.fund_mix import AUTO, FURTHER, MIX, PLATFORM, POSTED, USUAL, Asked, Mix, change_of, members_of
from benchmarks.fund_service import FundService
from benchmarks.progress import Step
from benchmarks.runs import BenchFault
from benchmarks.wire import HOST

TIMEOUT_S: Final = 15.0
CONNECTIONS: Final = 256
ASKERS: Final = 32
PAGE: Final = 500
_encode = msgspec.json.encode
_decode = msgspec.json.decode


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
        self._mix = Mix(random.Random(seed), self._merchants)
        self._again = again
        self._paid: list[Asked] = []
        self._rolled: Counter[str] = Counter()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    async def open(self) -> None:
        """Create the merchants. Raises BenchFault."""
        headers = {"Authorization": f"Bearer {self._service.token}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout)
        for number, id_ in enumerate(self._merchants):
            status, answer = await self._call("POST", "/v1/merchants", members_of(number, id_))
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
            task = asyncio.create_task(self._send(self._asked()))
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

    def _asked(self) -> Asked:
        order = self._mix.next(len(self.orders), self._paid)
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
        for paths in [*([path] for path in USUAL), list(FURTHER)]:
            if not any(order.state in POSTED for order in self.orders if order.path in paths):
                self.found.add("idle", f"none of {', '.join(paths)} was posted: they were not tested")
        for path in MIX:
            mine = {(order.merchant, order.order_no): order for order in self.orders if order.path == path}
            seen: Counter[tuple[str, str]] = Counter()
            for merchant in [PLATFORM] if path == "split-payments" else self._merchants:
                for members in await self._list(path, merchant):
                    key = (members["merchant"], members["order_no"])
                    if path.startswith("reserve-") and members["order_no"].startswith(AUTO):
                        self._rolled[merchant] += members["net"] if members["state"] in POSTED else 0
                        continue
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
                has, should = of["available"] + of["pending"] - of["receivable"], self._balance(merchant)
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
        """Return the sum of available and pending balance, less the debt, that the merchant should have according to
        its orders, to those in which it has a part or receives money, and to the holds of its rolling reserve.
        """
        total = self._rolled[merchant]
        for order in self.orders:
            if order.state in POSTED:
                total += change_of(order, merchant)
        return total

    def paid_out(self, path: str) -> int:
        return sum(order.shown["amount"] for order in self.orders if order.path == path and order.state == "paid")
