"""Clients of a chaos test. Every request has an id, and is sent again unchanged until there is a definite response."""

import asyncio
import itertools
import random
import time
import uuid
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from benchmarks.drill_books import Books, Differences, HoldShown, Lines, Sent, signed, stable_part

BANK, TRANSIT, FEES = "drill:bank", "drill:payout_transit", "drill:fee_income"
HOT = "drill:hot:available"
BATCH_OF: Final = 50
TIMEOUT_S: Final = 15.0
DECIDED: Final = frozenset({200, 201, 422})
COME_BACK: Final = frozenset({429, 503})
_encode = msgspec.json.encode


@dataclass(slots=True)
class Counters:
    """Counts of requests and responses. `impatient` counts first attempts that a client aborted, `twice` counts
    requests that a client sent twice concurrently.
    """

    requests: int = 0
    sends: int = 0
    retries: int = 0
    impatient: int = 0
    twice: int = 0
    reads: int = 0
    acknowledged: int = 0
    refused: int = 0
    statuses: dict[str, int] = field(default_factory=dict)

    def saw(self, status: str) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


class Load:
    """Clients that send requests to one service at a steady pace, and the record of the responses."""

    def __init__(self, url: str, seed: int, clients: int, pace: float, merchants: int) -> None:
        self.books = Books()
        self.found = Differences()
        self.counters = Counters()
        self.acknowledged_at = array("d")
        self.url = url
        self.token = ""
        self._seed = seed
        self._clients = clients
        self._pace = pace
        self._merchants = [f"drill:{i}:available" for i in range(merchants)]
        self._reversible: list[str] = []
        self._stopping = asyncio.Event()
        self._began_of_last = 0.0
        self._acknowledged = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open all accounts of the test."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(headers=headers, connector=connector)
        wanted = [(BANK, "platform", "bank"), (TRANSIT, "platform", "payout_transit"), (FEES, "platform", "fee_income")]
        wanted += [(id_, id_.removesuffix(":available"), "merchant_available") for id_ in (HOT, *self._merchants)]
        for start in range(0, len(wanted), 50):
            await asyncio.gather(*(self._open_account(*account) for account in wanted[start : start + 50]))

    async def _open_account(self, id_: str, owner: str, type_: str) -> None:
        body = _encode({"id": id_, "owner": owner, "type": type_, "currency": "CNY", "posting": _posting(id_)})
        status, _, answer = await self.ask("POST", "/v1/accounts", body)
        if status not in (200, 201):
            raise RuntimeError(f"cannot open {id_}: {status} {answer!r}")
        self.books.accounts[id_] = type_

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._client(i)) for i in range(self._clients)]

    async def stop(self, within_s: float) -> None:
        """Send no new requests, and wait until each sent request has a definite response."""
        self._stopping.set()
        _, undecided = await asyncio.wait(self._tasks, timeout=within_s)
        for task in undecided:
            self.found.add("undecided", f"a client has no response {within_s:.0f} s after the end of the load")
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.found.add("client", repr(result))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def next_acknowledgement(self, begun_after: float) -> None:
        """Wait until a request that was sent after the monotonic time `begun_after` has a definite response."""
        while self._began_of_last < begun_after:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        """Send a request until the service returns a response other than 429 or 5xx."""
        for attempt in itertools.count():
            answer = await self._attempt(method, path, body, TIMEOUT_S)
            if answer is not None and answer[0] not in COME_BACK and answer[0] < 500:
                return answer
            await asyncio.sleep(_pause(attempt))
        raise AssertionError

    async def _attempt(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[int, dict[str, str], bytes] | None:
        assert self._session is not None
        self.counters.sends += 1
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.request(method, self.url + path, data=body, timeout=timeout) as response:
                return response.status, dict(response.headers), await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.counters.saw(type(error).__name__)
            return None

    async def _client(self, number: int) -> None:
        chance = random.Random(f"{self._seed}:{number}")
        actions = (
            (self._pay, 60),
            (self._withdraw, 15),
            (self._pay_many, 3),
            (self._pay_all_or_none, 2),
            (self._hold, 7),
            (self._reverse, 6),
            (self._look, 7),
        )
        kinds, weights = zip(*actions, strict=True)
        next_at = time.monotonic() + chance.uniform(0, 1 / self._pace)
        while not self._stopping.is_set():
            wait_s = next_at - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            # After a delay, continue at the normal pace: a client does not send the missed requests in a burst.
            next_at = max(next_at, time.monotonic() - 1) + chance.expovariate(self._pace)
            await chance.choices(kinds, weights)[0](chance)

    def _merchant(self, chance: random.Random) -> str:
        return HOT if chance.random() < 0.5 else chance.choice(self._merchants)

    def _payment(self, chance: random.Random) -> dict[str, Any]:
        merchant, amount = self._merchant(chance), chance.randint(100, 50_000)
        fee = amount // 100 if chance.random() < 0.3 else 0
        entries = [_entry(BANK, "debit", amount), _entry(merchant, "credit", amount - fee)]
        if fee:
            entries.append(_entry(FEES, "credit", fee))
        return {
            "id": _id(chance),
            "type": "pay",
            "entries": entries,
            "reference": f"order {chance.randint(1, 999_999)}",
        }

    def _withdrawal(self, chance: random.Random) -> dict[str, Any]:
        # Some amounts exceed every balance, to cause refusals: the test checks that refusals are as durable as
        # postings.
        amount_max = 120_000 if chance.random() < 0.8 else 1_000_000_000
        merchant, amount = self._merchant(chance), chance.randint(100, amount_max)
        entries = [_entry(merchant, "debit", amount), _entry(TRANSIT, "credit", amount)]
        return {"id": _id(chance), "type": "withdraw", "entries": entries}

    async def _pay(self, chance: random.Random) -> None:
        voucher = self._payment(chance)
        if await self._voucher(chance, "voucher", "/v1/vouchers", voucher, voucher) and len(self._reversible) < 10_000:
            self._reversible.append(voucher["id"])

    async def _withdraw(self, chance: random.Random) -> None:
        voucher = self._withdrawal(chance)
        await self._voucher(chance, "voucher", "/v1/vouchers", voucher, voucher)

    async def _pay_many(self, chance: random.Random) -> None:
        make = self._payment, self._withdrawal
        vouchers = [chance.choices(make, (4, 1))[0](chance) for _ in range(chance.randint(2, 2 * BATCH_OF - 2))]
        await self._batch(chance, vouchers, atomic=False)

    async def _pay_all_or_none(self, chance: random.Random) -> None:
        await self._batch(chance, [self._payment(chance), self._payment(chance), self._withdrawal(chance)], atomic=True)

    async def _hold(self, chance: random.Random) -> None:
        merchant, amount = self._merchant(chance), chance.randint(100, 20_000)
        id_ = _id(chance)
        body = _encode({"id": id_, "account": merchant, "amount": amount})
        status, answer = await self._definite(chance, "hold", "/v1/holds", body)
        if status not in (200, 201):
            return
        self._check(msgspec.json.decode(answer), {"id": id_, "account": merchant, "amount": amount, "status": "open"})
        self.books.holds[id_] = HoldShown(merchant, amount)
        way = chance.random()
        if way < 0.6:
            taken = chance.randint(1, amount)
            entries = [_entry(merchant, "debit", taken), _entry(TRANSIT, "credit", taken)]
            voucher = {"id": _id(chance), "type": "capture", "entries": entries}
            if await self._voucher(chance, "capture", f"/v1/holds/{id_}/capture", {"voucher": voucher}, voucher):
                self.books.holds[id_].open = False
        elif way < 0.9:
            status, _ = await self._definite(chance, "release", f"/v1/holds/{id_}/release", b"")
            if status != 200:
                self.found.add("answer", f"hold {id_} is open and the response to its release is {status}")
            self.books.holds[id_].open = False

    async def _reverse(self, chance: random.Random) -> None:
        if not self._reversible:
            return
        original = self._reversible.pop(chance.randrange(len(self._reversible)))
        lines = [(account, -amount) for account, amount in self.books.posted[original]]
        entries = [_entry(account, "credit" if amount > 0 else "debit", abs(amount)) for account, amount in lines]
        id_ = _id(chance)
        voucher = {"id": id_, "type": "reversal", "entries": entries}
        await self._voucher(chance, "reversal", f"/v1/vouchers/{original}/reverse", {"id": id_}, voucher)

    async def _look(self, chance: random.Random) -> None:
        """Check that a voucher can be read immediately after it was acknowledged."""
        if not self._reversible:
            return
        id_ = chance.choice(self._reversible)
        self.counters.reads += 1
        status, _, body = await self.ask("GET", f"/v1/vouchers/{id_}", None)
        if status != 200 or msgspec.json.decode(body)["status"] != "posted":
            self.found.add("unread", f"voucher {id_} was acknowledged and reads as {status} {body[:300]!r}")

    async def _voucher(
        self, chance: random.Random, kind: str, path: str, body: dict[str, Any], voucher: dict[str, Any]
    ) -> bool:
        status, answer = await self._definite(chance, kind, path, _encode(body))
        shown = msgspec.json.decode(answer)
        if status == 422:
            self._refused(voucher["id"], shown["type"])
        if status not in (200, 201):
            return False
        self._check(shown, {"id": voucher["id"], "type": voucher["type"], "entries": voucher["entries"]})
        self._posted(voucher["id"], voucher["type"], signed(voucher["entries"]))
        return True

    async def _batch(self, chance: random.Random, vouchers: list[dict[str, Any]], *, atomic: bool) -> None:
        body = _encode({"vouchers": vouchers, "atomic": atomic})
        status, answer = await self._definite(chance, "batch", "/v1/vouchers/batch", body)
        results = msgspec.json.decode(answer).get("results", [])
        if status != 200 or [item["id"] for item in results] != [voucher["id"] for voucher in vouchers]:
            self.found.add("answer", f"a batch was answered {status} {answer[:300]!r}")
            return
        for item, voucher in zip(results, vouchers, strict=True):
            if item["status"] == "posted":
                self._posted(voucher["id"], voucher["type"], signed(voucher["entries"]))
            elif not item["problem"]["type"].endswith(":batch-aborted"):
                self._refused(voucher["id"], item["problem"]["type"])
        if atomic and len({item["status"] for item in results}) != 1:
            self.found.add("answer", f"an atomic batch was posted in part: {answer[:300]!r}")

    async def _definite(self, chance: random.Random, kind: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request until there is a definite response, or a response that must never occur. Return that response.

        Some requests are chosen at random: their first attempt is aborted early, or they are sent twice concurrently.
        """
        self.counters.requests += 1
        if chance.random() < 0.03:
            self.counters.impatient += 1
            await self._attempt("POST", path, body, chance.uniform(0.001, 0.03))
        sends = [self._until_definite(kind, path, body)]
        if chance.random() < 0.01:
            self.counters.twice += 1
            sends.append(self._until_definite(kind, path, body))
        answers = await asyncio.gather(*sends)
        status, answer, attempts = answers[0]
        for other, other_answer, _ in answers[1:]:
            if status in DECIDED and (
                stable_part(kind, other_answer) != stable_part(kind, answer) or status == other == 201
            ):
                self.found.add("twins", f"{path} {body[:200]!r}: {status} {answer!r} and {other} {other_answer!r}")
        if status in DECIDED and (kind != "batch" or b"batch-aborted" not in answer):
            digest = stable_part(kind, answer)
            self.books.sent.append(Sent(kind, path, body, status, digest, attempts > 1 or len(sends) > 1))
        return status, answer

    async def _until_definite(self, kind: str, path: str, body: bytes) -> tuple[int, bytes, int]:
        for attempt in itertools.count(1):
            began = time.monotonic()
            got = await self._attempt("POST", path, body, TIMEOUT_S)
            if got is not None:
                status, _, answer = got
                self.counters.saw(str(status))
                if status in DECIDED:
                    self._answered(began)
                    return status, answer, attempt
                if status not in COME_BACK:
                    self.found.add("answer", f"{kind} {path} {body[:200]!r}: {status} {answer[:500]!r}")
                    if status < 500:
                        return status, answer, attempt
            self.counters.retries += 1
            await asyncio.sleep(_pause(attempt))
        raise AssertionError

    def _answered(self, began: float) -> None:
        self.acknowledged_at.append(time.monotonic())
        self._began_of_last = max(self._began_of_last, began)
        self._acknowledged.set()

    def _posted(self, id_: str, type_: str, lines: Lines) -> None:
        self.counters.acknowledged += 1
        self.books.posted[id_] = lines
        self.books.types[id_] = type_

    def _refused(self, id_: str, problem: str) -> None:
        self.counters.refused += 1
        self.books.refused[id_] = problem

    def _check(self, shown: dict[str, Any], wanted: dict[str, Any]) -> None:
        if any(shown.get(name) != value for name, value in wanted.items()):
            self.found.add("answer", f"requested {wanted}, the response is {shown}")


def _posting(account: str) -> str:
    """Return the posting policy of an account: `buffered` for every third merchant, otherwise `direct`."""
    number = account.split(":")[1]
    return "buffered" if number.isdigit() and int(number) % 3 == 0 else "direct"


def _entry(account: str, side: str, amount: int) -> dict[str, Any]:
    return {"account": account, "side": side, "amount": amount}


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def _pause(attempt: int) -> float:
    return random.uniform(0.3, 1) * min(1.0, 0.05 * 2.0**attempt)
