"""Account statements, compared with a model: the list of the lines of all vouchers on each account.

Meanwhile two workers split, merge and rebalance accounts, buffer and drain credits, hold, capture and reverse.
"""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Command, Drain, Rebalance, Resplit, SetPolicy
from fundledger.ledger.model.hold import PlaceHold
from fundledger.ledger.model.voucher import Voucher
from fundledger.ledger.statement.pages import StatementEntry, read_statement
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.slot_map import follow, read_routes
from fundledger.security.keys import FileKeys
from tests.support.database import Databases
from tests.support.ledger import Ledger, capture, code, posted, release, reversal, transfer, voucher
from tests.support.length import LONG, unless_long

START_US = 1_767_225_600_000_000
TYPES = {"bank": "bank", "m1": "merchant_available", "m2": "merchant_available", "owed": "receivable"}
OPS = (
    ["in"] * 4 + ["out"] * 4 + ["twice", "across", "lend", "batch", "batch", "split", "split", "merge", "level", "hold"]
)
OPS += ["hold", "capture", "capture", "release", "reverse", "buffer", "direct", "drain", "read", "read"]

Line = tuple[object, int]


class Run:
    """A ledger and its model. `groups[account]` are the lines of each batch on the account, in order."""

    def __init__(self, workers: list[Ledger], accounts: dict[str, Account], seed: int) -> None:
        self.workers = workers
        self.accounts = accounts
        self.random = random.Random(seed)
        self.now_us = START_US
        self.latest_us = START_US
        self.groups: dict[str, list[list[Line]]] = {name: [] for name in accounts}
        self.pending: dict[str, list[Line]] = {name: [] for name in accounts}
        self.vouchers: dict[object, Voucher] = {}
        self.reversible: list[Voucher] = []
        self.holds: list[Any] = []
        self.open: dict[str, tuple[list[StatementEntry], str | None]] = {}

    def known(self, worker: Ledger, name: str) -> Account:
        return worker.directory.get(name) or self.accounts[name]

    async def step(self, op: str) -> None:
        r = self.random
        worker = r.choice(self.workers)
        m, other = self.known(worker, r.choice(["m1", "m2"])), self.known(worker, r.choice(["m1", "m2"]))
        bank, owed = self.known(worker, "bank"), self.known(worker, "owed")
        amount = r.randint(1, 60)
        # The clock may stand still or be set back. Batches may then have the same time, and their order is not defined
        # until a statement has shown one of them. The test therefore reads all statements in this case.
        self.now_us += r.choice([1000, 1000, 0, -5000]) if op == "read" else 1000
        if self.now_us <= self.latest_us:
            for name in self.accounts:
                await self.pages(name, 1000)
        self.latest_us = max(self.latest_us, self.now_us)
        if op == "in":
            await self.post(worker, transfer(bank, m, amount))
        elif op == "out":
            await self.post(worker, transfer(m, bank, amount * 2))
        elif op == "twice":
            await self.post(worker, voucher((m, -amount), (bank, amount + 7), (m, -7)))
        elif op == "across":
            await self.post(
                worker, voucher((m, -amount), (other, amount - 1), (bank, 1)) if amount > 1 else transfer(bank, m, 1)
            )
        elif op == "lend":
            await self.post(worker, transfer(*r.choice([(owed, bank), (bank, owed)]), amount))
        elif op == "batch":
            pairs = [r.choice([(bank, m), (m, bank), (m, other), (bank, other)]) for _ in range(r.randint(2, 6))]
            await self.post(worker, *[transfer(a, b, r.randint(1, 80)) for a, b in pairs if a is not b])
        elif op == "split":
            await self.post(worker, Resplit(r.choice([m, owed]), r.randint(2, 4), "a test", "tests"))
        elif op == "merge":
            await self.post(worker, Resplit(m, 1, "a test", "tests"))
        elif op == "level":
            await self.post(worker, Rebalance(r.choice([m, owed])))
        elif op in ("buffer", "direct"):
            await self.post(worker, SetPolicy(m, op == "buffer", "a test", "tests"))
        elif op == "drain":
            await self.post(worker, Drain(m))
        elif op == "hold":
            outcomes = await self.post(worker, PlaceHold(f"h:{self.now_us}", m, amount, 0, "dev"))
            if outcomes and outcomes[0].hold is not None and outcomes[0].refusal is None:
                self.holds.append(outcomes[0].hold)
        elif op in ("capture", "release") and self.holds:
            hold = self.holds.pop(r.randrange(len(self.holds)))
            await self.post(
                worker, release(hold) if op == "release" else capture(hold, bank, r.randint(1, hold.amount))
            )
        elif op == "reverse" and self.reversible:
            await self.post(worker, reversal(self.reversible.pop(r.randrange(len(self.reversible)))))
        elif op == "read":
            await self.read_on(r.choice(list(self.accounts)))
        for each in self.workers if r.random() < 0.7 else ():
            await follow(each.connection, each.directory, {}, await read_routes(each.connection))

    async def post(self, worker: Ledger, *commands: Command) -> list[Any]:
        if not commands:
            return []
        outcomes: list[Any] = await worker.post(*commands)
        assert not {code(outcome) for outcome in outcomes} & {"GuardHit", "Unavailable", "OutcomeUnknown"}, outcomes
        new: dict[str, list[Line]] = {name: [] for name in self.accounts}
        for command, outcome in zip(commands, outcomes, strict=True):
            if type(command) is Voucher and posted(outcome):
                self.vouchers[command.id] = command
                if command.reverses is None and command.hold is None:
                    self.reversible.append(command)
                for account, amount in command.lines:
                    new[account.id].append((command.id, amount))
        for name, lines in new.items():
            await self.journaled(name, lines)
        return outcomes

    async def journaled(self, name: str, lines: list[Line]) -> None:
        """Record new lines that are buffered, and buffered lines that have been drained."""
        statement = "SELECT count(*) FROM ledger.buffered_entries WHERE account_number = $1"
        waiting = await self.workers[0].connection.fetchval(statement, self.accounts[name].number)
        before = self.pending[name]
        if lines and waiting == len(before) + len(lines):
            self.pending[name] = before + lines
            return
        group = list(lines)
        if waiting == 0:
            group = before + group
            self.pending[name] = []
        else:
            assert waiting == len(before)
        if group:
            self.groups[name].append(group)

    # --- The statement ---

    async def page(
        self, name: str, limit: int, cursor: str | None, **more: Any
    ) -> tuple[list[StatementEntry], str | None]:
        worker = self.workers[0]
        bounds = (more.pop("from_", None), more.pop("to", None))
        return await read_statement(
            worker.connection, worker.directory, self.accounts[name], worker.layout, limit, cursor, *bounds, **more
        )

    async def read_on(self, name: str) -> None:
        """Read the next page of a statement that was begun before."""
        shown, cursor = self.open.get(name, ([], None))
        page, next_ = await self.page(name, self.random.randint(1, 7), cursor)
        if next_ is not None:
            self.open[name] = ([*shown, *page], next_)

    async def pages(self, name: str, limit: int, cursor: str | None = None, **more: Any) -> list[StatementEntry]:
        found: list[StatementEntry] = []
        while True:
            page, cursor = await self.page(name, limit, cursor, **more)
            assert len(page) <= limit
            found += page
            if cursor is None:
                return found

    async def check(self) -> None:
        for name, account in self.accounts.items():
            whole = await self.pages(name, 1000)
            self.agrees(account, self.groups[name], whole)
            for limit in range(1, 8):
                assert await self.pages(name, limit) == whole
            for line in self.random.sample(whole, min(3, len(whole))):
                limit, at = self.random.randint(1, 7), line.posted_at
                assert await self.pages(name, limit, from_=at) == [e for e in whole if e.posted_at >= at]
                assert await self.pages(name, limit, to=at) == [e for e in whole if e.posted_at <= at]
                assert await self.pages(name, limit, from_=at, to=at) == [e for e in whole if e.posted_at == at]
            if name in self.open:
                # The pages that were read during the run are equal to the statement at the end.
                shown, cursor = self.open[name]
                assert shown + await self.pages(name, 3, cursor) == whole
            stored = await self.pages(name, self.random.randint(1, 7), level="entries")
            assert sum(e.amount if e.side == "credit" else -e.amount for e in stored) == sum(
                amount for group in self.groups[name] for _, amount in group
            )

    def agrees(self, account: Account, groups: list[list[Line]], whole: list[StatementEntry]) -> None:
        normal = account.type.normal
        assert [e.seq for e in whole] == list(range(1, len(whole) + 1))
        balance, place = 0, 0
        for group in groups:
            shown = whole[place : place + len(group)]
            lines = [(e.voucher_id, e.amount if e.side == "credit" else -e.amount) for e in shown]
            assert Counter(lines) == Counter(group)
            if len({id_ for id_, _ in group}) == 1:
                assert lines == group
            place += len(group)
        assert place == len(whole)
        for i, e in enumerate(whole):
            balance += e.amount if e.side == "credit" else -e.amount
            assert e.balance_after == balance * normal
            is_last_of_voucher = i + 1 == len(whole) or whole[i + 1].voucher_id != e.voucher_id
            assert e.balance_after >= 0 or not account.type.bounded or not is_last_of_voucher
            asked = self.vouchers[e.voucher_id]
            others = {a.id for a, amount in asked.lines if (amount > 0) == (e.side == "debit") and a.id != account.id}
            assert e.type == asked.type and e.source is not None
            assert set(e.source.counter_accounts(e.side)) == others


async def run(databases: Databases, keys: FileKeys, layout: Layout, seed: int, ops: list[str]) -> None:
    async with databases.a_database(layout) as dsn:
        workers = [await Ledger(dsn, keys, layout, ordinal).start() for ordinal in range(3)]
        try:
            accounts = {name: (await workers[0].open(name, type_)).view.account for name, type_ in TYPES.items()}
            for worker in workers[1:]:
                await worker.directory.resolve(worker.connection, list(TYPES))
            going = Run(workers, accounts, seed)
            clock.now_us = lambda: going.now_us  # type: ignore[assignment]
            for op in ["in", "in", *ops]:
                await going.step(op)
            await going.check()
            await workers[0].prove()
        finally:
            for worker in workers:
                await worker.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(2, 3)], ids=["one shard", "two shards"])
def test_statements_agree_with_the_vouchers(
    postgres: Databases, keys: FileKeys, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now_us", clock.now_us)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:

        @settings(
            max_examples=unless_long(5, 300),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=list(Phase) if LONG else [Phase.explicit, Phase.reuse, Phase.generate],
        )
        @given(seed=st.integers(0, 1 << 30), ops=st.lists(st.sampled_from(OPS), min_size=10, max_size=60))
        def agree(seed: int, ops: list[str]) -> None:
            runner.run(run(postgres, keys, layout, seed, ops))

        agree()
