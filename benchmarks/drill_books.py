"""Books of a chaos test: they record responses to clients and compare them with the final state of the service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

SHOWN_MAX: Final = 30
PAGE: Final = 1000
CREDIT_NORMAL: Final = frozenset({"merchant_available", "fee_income", "payout_transit"})

SETTLE_ROUNDS: Final = 12
SETTLE_S: Final = 5.0
DRAIN_ROUNDS: Final = 150
DRAIN_S: Final = 0.2
REBALANCE: Final = "rebalance"

Lines = tuple[tuple[str, int], ...]
Ask = Callable[[str, str, bytes | None], Awaitable[tuple[int, dict[str, str], bytes]]]
"""Sends `(method, path, body)` until the service responds. Returns `(status, headers, body)`."""


@dataclass(slots=True)
class Sent:
    """A request with a definite response.

    Every replay must repeat a part of the first definite response; `answer` is the digest of that part. `repeated` is
    True if the request was sent more than once before the first definite response.
    """

    kind: str
    path: str
    body: bytes
    status: int
    answer: bytes
    repeated: bool


@dataclass(slots=True)
class HoldShown:
    """A hold as it was acknowledged."""

    account: str
    amount: int
    open: bool = True


class Differences:
    """Differences from the required state: their counts by kind, and the texts of the first differences."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.shown: list[str] = []

    def add(self, kind: str, words: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.shown) < SHOWN_MAX:
            self.shown.append(f"{kind}: {words}")

    def count(self, *kinds: str) -> int:
        return sum(self.counts.get(kind, 0) for kind in kinds)


@dataclass(slots=True)
class Books:
    """The accounts, vouchers and holds for which there was a definite response. The amount of a credit is positive, the
    amount of a debit is negative.
    """

    accounts: dict[str, str] = field(default_factory=dict)
    posted: dict[str, Lines] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    holds: dict[str, HoldShown] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    """Ids of the vouchers with which the service rebalanced split accounts."""
    journal_entries: int = 0
    """Number of vouchers in all statements; 0 until the statements are read."""

    def balances(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the posted (signed) and held balance of each account, from the acknowledged requests."""
        posted = dict.fromkeys(self.accounts, 0)
        held = dict.fromkeys(self.accounts, 0)
        for lines in self.posted.values():
            for account, amount in lines:
                posted[account] += amount
        for hold in self.holds.values():
            if hold.open:
                held[hold.account] += hold.amount
        return posted, held


def stable_part(kind: str, body: bytes) -> bytes:
    """Return a digest of the part of a response that a replay must repeat.

    For a batch, this part is the id, status and problem of each item. For a problem, it is every member except
    `request_id`, which differs between responses. For any other response, it is the whole body.
    """
    if kind == "batch":
        results = msgspec.json.decode(body)["results"]
        body = msgspec.json.encode([[item["id"], item["status"], item.get("problem")] for item in results])
    elif b'"request_id":"' in body:
        members = msgspec.json.decode(body)
        body = msgspec.json.encode({name: value for name, value in members.items() if name != "request_id"})
    return hashlib.sha256(body).digest()


def signed(entries: Iterable[dict[str, Any]]) -> Lines:
    return tuple((e["account"], e["amount"] if e["side"] == "credit" else -e["amount"]) for e in entries)


async def settled(books: Books, ask: Ask) -> None:
    """Wait until the service has ended its automatic splits, merges and rebalancing, but at most a minute."""
    before: dict[str, int] = {}
    for _ in range(SETTLE_ROUNDS):
        now = {}
        for account in books.accounts:
            _, _, body = await ask("GET", f"/v1/accounts/{account}", None)
            now[account] = msgspec.json.decode(body)["version"]
        if now == before:
            return
        before = now
        await asyncio.sleep(SETTLE_S)


async def compare(books: Books, ask: Ask, found: Differences, readers: int = 8) -> int:
    """Compare the statement and balance of every account with the acknowledged requests. Return the number of entries
    that were read.

    The statements of all accounts together must contain each acknowledged voucher exactly once, and no other voucher.
    """
    waiting = list(books.accounts)
    posted, held = books.balances()
    books.journal_entries = 0
    journal: dict[str, list[tuple[str, int]]] = {}

    async def read() -> None:
        while waiting:
            account = waiting.pop()
            await _compare_account(books, ask, found, account, posted[account], held[account], journal)

    await asyncio.gather(*(read() for _ in range(readers)))
    _compare_journal(books, found, journal)
    return sum(len(lines) for lines in journal.values())


async def _compare_account(
    books: Books,
    ask: Ask,
    found: Differences,
    account: str,
    posted: int,
    held: int,
    journal: dict[str, list[tuple[str, int]]],
) -> None:
    normal = 1 if books.accounts[account] in CREDIT_NORMAL else -1
    balance = await _drained_balance(ask, account)
    wanted = {"posted": normal * posted, "held": held, "pending": 0, "available": normal * posted - held}
    if balance != wanted:
        found.add("balance", f"{account} shows {balance}, acknowledged: {wanted}")
    running = 0
    async for entry in _statement(ask, account):
        amount = _signed(entry)
        running += amount
        id_ = entry["voucher_id"]
        if entry["balance_after"] != normal * running:
            found.add("statement", f"{account} at {id_}: balance_after does not follow")
            running = normal * entry["balance_after"]
        journal.setdefault(id_, []).append((account, amount))
        if books.types.get(id_, entry["type"]) != entry["type"]:
            found.add("altered", f"{id_} is of type {entry['type']}, was {books.types[id_]}")
    # Read the entries, too: the lines of a statement show no moves between slots of the account, and do not show from
    # which slots the amount of a line was taken.
    async for entry in _statement(ask, account, "&level=entries"):
        books.journal_entries += entry["summary"] or 1
        if entry["type"] == REBALANCE:
            journal.setdefault(entry["voucher_id"], []).append((account, _signed(entry)))
            books.moved.add(entry["voucher_id"])


async def _statement(ask: Ask, account: str, more: str = "") -> AsyncIterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        query = f"?limit={PAGE}{more}" + (f"&cursor={cursor}" if cursor else "")
        _, _, body = await ask("GET", f"/v1/accounts/{account}/entries{query}", None)
        page = msgspec.json.decode(body)
        for entry in page["entries"]:
            yield entry
        cursor = page["next_cursor"]


def _signed(entry: dict[str, Any]) -> int:
    amount: int = entry["amount"]
    return amount if entry["side"] == "credit" else -amount


async def _drained_balance(ask: Ask, account: str) -> dict[str, int]:
    """Return the balance of an account once its buffered credits are drained. Give up after DRAIN_ROUNDS reads."""
    for _ in range(DRAIN_ROUNDS):
        _, _, body = await ask("GET", f"/v1/accounts/{account}", None)
        balance: dict[str, int] = msgspec.json.decode(body)["balance"]
        if balance["pending"] == 0:
            break
        await asyncio.sleep(DRAIN_S)
    return balance


def _totals(lines: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for account, amount in lines:
        totals[account] = totals.get(account, 0) + amount
    return totals


def _compare_journal(books: Books, found: Differences, journal: dict[str, list[tuple[str, int]]]) -> None:
    for id_, lines in books.posted.items():
        entries = journal.get(id_)
        if entries is None:
            found.add("lost", f"voucher {id_} was acknowledged and is not in the journal")
        elif _totals(entries) != _totals(lines):
            # On a split account, one line may be stored as several entries, whose sum is the line's amount.
            doubled = _totals(entries) == _totals([*lines, *lines])
            found.add("doubled" if doubled else "altered", f"{id_} has {sorted(entries)}, was {sorted(lines)}")
    for id_ in journal.keys() - books.posted.keys() - books.moved:
        if id_ in books.refused:
            found.add("refused-but-posted", f"voucher {id_} was refused ({books.refused[id_]}) and is in the journal")
        else:
            found.add("unknown", f"voucher {id_} is in the journal and was not acknowledged")


def compare_counts(books: Books, verified: dict[str, Any], found: Differences) -> None:
    """Compare the row counts of `verify` with the acknowledged requests."""
    if not verified.get("ok") or verified.get("exit") != 0:
        failing = [check for check in verified.get("checks", []) if not check.get("ok")]
        found.add("verify", str(failing or verified)[:2000])
        return
    for name, count in count_differences(books, verified).items():
        found.add("count", f"verify counts {verified.get(name)} {name}, the responses account for {count}")


def count_differences(books: Books, verified: dict[str, Any]) -> dict[str, int]:
    """Return, by name, the expected counts that differ from the counts of `verify`."""
    told = {
        "vouchers": len(books.posted) + len(books.refused) + len(books.moved),
        "entries": books.journal_entries,
        "accounts": len(books.accounts),
    }
    return {name: count for name, count in told.items() if verified.get(name) != count}


async def repeat(sent: Iterable[Sent], ask: Ask, found: Differences, senders: int = 16) -> int:
    """Send requests again, and record a difference if the `stable_part` of a response has changed. Return the number of
    requests.
    """
    waiting = list(sent)
    count = len(waiting)

    async def send() -> None:
        while waiting:
            first = waiting.pop()
            status, headers, body = await ask("POST", first.path, first.body)
            wanted = 200 if first.status in (200, 201) else first.status
            if status != wanted:
                found.add("repeat", f"{first.kind} {first.body[:120]!r}: {status} {body[:300]!r}, wanted {wanted}")
            elif stable_part(first.kind, body) != first.answer:
                found.add(
                    "repeat", f"{first.kind} {first.body[:120]!r}: differs from the first response: {body[:300]!r}"
                )
            elif first.kind != "batch" and headers.get("Idempotent-Replay") != "true":
                found.add("repeat", f"{first.kind} {first.body[:120]!r}: not marked as a replay")

    await asyncio.gather(*(send() for _ in range(senders)))
    return count
