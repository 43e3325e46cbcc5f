"""Random commands, compared with a model of the ledger: every outcome and every balance, after every step.

`FUNDLEDGER_TEST_LONG=1` also takes the time to shrink a failing example.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from asyncpg.pgproto.pgproto import UUID
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import AtomicGroup, Command, Drain, Outcome, Rebalance, Resplit, SetPolicy, SetStatus
from fundledger.ledger.model.hold import EndHold, PlaceHold
from fundledger.ledger.model.voucher import Voucher, digest_of
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.slot_map import follow, read_routes
from fundledger.security.keys import FileKeys
from tests.support.database import Databases
from tests.support.ledger import Ledger, code
from tests.support.length import LONG, unless_long
from tests.support.model import Asked, Model, ModelAccount, Said

EXAMPLES = unless_long(8, 500)
ACCOUNTS = {
    # id: (type, owner, currency)
    "bank": ("bank", "platform", "CNY"),
    "fees": ("fee_income", "platform", "CNY"),
    "costs": ("channel_expense", "platform", "CNY"),
    "transit": ("payout_transit", "platform", "CNY"),
    "suspense": ("suspense", "platform", "CNY"),
    "m1:available": ("merchant_available", "m1", "CNY"),
    "m1:pending": ("merchant_pending", "m1", "CNY"),
    "m1:owes": ("receivable", "m1", "CNY"),
    "m2:available": ("merchant_available", "m2", "CNY"),
    "m3:available": ("merchant_available", "m3", "CNY"),
    "m4:closing": ("merchant_available", "m4", "CNY"),
    "bank:usd": ("bank", "platform", "USD"),
    "m1:usd": ("merchant_available", "m1", "USD"),
}
MERCHANTS = [name for name, (type_, _, _) in ACCOUNTS.items() if type_.startswith("merchant") or type_ == "receivable"]
START_US = 1_767_225_600_000_000
STEP_US = 1_000

names = st.sampled_from(list(ACCOUNTS))
cny = st.sampled_from([name for name, (_, _, currency) in ACCOUNTS.items() if currency == "CNY"])
merchants = st.sampled_from(MERCHANTS)
split = merchants
amounts = st.integers(1, 60)
signed = st.integers(-60, 60).filter(bool)
workers = st.integers(0, 1)
statuses = st.sampled_from([*[Status.OPEN] * 4, Status.FROZEN_DEBITS, Status.FROZEN_ALL, Status.CLOSED])


@st.composite
def lines(draw: st.DrawFn) -> tuple[tuple[str, int], ...]:
    """Draw 2 to 6 lines. Nearly all are balanced, most have one currency, and the bank pays often."""
    account = cny if draw(st.integers(0, 9)) else names
    drawn = draw(st.lists(st.tuples(account, signed), min_size=1, max_size=5))
    rest = -sum(amount for _, amount in drawn)
    if rest == 0:
        drawn += [(draw(account), 7)]
        rest = -7
    off = 0 if draw(st.integers(0, 19)) else 1
    payer = "bank" if draw(st.booleans()) else draw(account)
    return (*drawn, (payer, rest + off or 1))


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    return Asked(
        UUID(draw(st.binary(min_size=16, max_size=16))),
        draw(lines()),
        draw(st.sampled_from(["pay", "refund"])),
        draw(st.sampled_from([None, None, "r1", "订单"])),
        unknown="nobody" if draw(st.integers(0, 24)) == 0 else None,
    )


class LedgerMachine(RuleBasedStateMachine):
    vouchers = Bundle("vouchers")
    holds = Bundle("holds")

    def __init__(self, databases: Databases, keys: FileKeys, layout: Layout, runner: asyncio.Runner) -> None:
        super().__init__()
        self.databases, self.keys, self.layout, self.runner = databases, keys, layout, runner
        self.model = Model()
        self.now_us = START_US
        self.holds_made = 0
        clock.now_us = lambda: self.now_us  # type: ignore[assignment]

    @initialize()
    def open_everything(self) -> None:
        self.dsn = self.run(self.databases.new(self.layout))
        self.workers = [self.run(Ledger(self.dsn, self.keys, self.layout, i).start()) for i in range(2)]
        self.accounts: dict[str, Any] = {}
        for name, (type_, owner, currency) in ACCOUNTS.items():
            opened = self.run(self.workers[0].open(name, type_, owner, currency))
            self.accounts[name] = opened.view.account
            self.model.accounts[name] = ModelAccount(type_, currency)
        self.known = [dict(self.accounts) for _ in self.workers]

    def teardown(self) -> None:
        if not hasattr(self, "dsn"):
            return
        try:
            self.run(self.workers[0].prove())
        finally:
            for worker in self.workers:
                self.run(worker.close())
            self.run(self.databases.drop(self.dsn))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    # --- Between the model's words and the ledger's ---

    def to_voucher(self, asked: Asked, worker: int) -> Voucher:
        """Return the voucher that the service would create from the body of a request."""
        of = [(name, amount) for name, amount in asked.lines] + ([(asked.unknown, 1)] if asked.unknown else [])
        digest = digest_of(asked.type, of, asked.reference, None, asked.hold, asked.reverses)
        holder = self.accounts[self.model.holds[asked.hold].account] if asked.hold is not None else None
        accounts = self.known[worker]
        return Voucher(
            asked.id,
            "dev",
            asked.type,
            [] if asked.unknown else [(accounts[name], amount) for name, amount in asked.lines],
            sum(amount for _, amount in asked.lines),
            digest,
            asked.reference,
            hold=asked.hold,
            hold_shard=0 if holder is None else holder.shard,
            hold_place=0 if holder is None else (holder.number << 16) + self.slot_of(asked.hold),
            reverses=asked.reverses,
            unknown=asked.unknown,
        )

    def slot_of(self, hold_id: str | None) -> int:
        """Return the slot of a hold. The service also reads it before it posts a command."""
        hold = self.run(self.workers[0].read_hold(hold_id or ""))
        return 0 if hold is None else int(hold.slot)

    def ask(self, worker: int, *commands: Command) -> list[Outcome]:
        """Post commands, and return the outcomes. The caller compares them with the model."""
        outcomes = self.run(self.workers[worker].post(*commands))
        assert all(isinstance(outcome, Outcome) for outcome in outcomes), outcomes
        return outcomes

    def agrees(self, outcomes: Sequence[Outcome], expected: Sequence[Said], yes: str = "posted") -> None:
        said = [(yes if outcome.refusal is None else code(outcome), outcome.replay) for outcome in outcomes]
        assert said == [(word, replay) for word, replay in expected]
        rows = self.run(
            self.workers[0].connection.fetch(
                """
                SELECT a.id, (sum(s.posted * s.normal) + coalesce((
                           SELECT sum(b.amount) FROM ledger.buffered_entries b WHERE b.account_number = a.number
                       ), 0))::bigint, sum(s.held)::bigint, max(s.status) FILTER (WHERE s.status <> 5),
                       min(s.status) FILTER (WHERE s.status <> 5)
                FROM ledger.sub_accounts s JOIN ledger.accounts a ON a.number = s.account_number GROUP BY a.id, a.number
                """
            )
        )
        assert {row[0]: tuple(row)[1:4] for row in rows} == self.model.balances()
        assert all(row[3] == row[4] for row in rows), "the sub-accounts of an account carry one status"
        assert sum(account.posted for account in self.model.accounts.values()) == 0
        self.now_us += STEP_US

    # --- Rules ---

    @rule(target=vouchers, asked=asked(), worker=workers)
    def post(self, asked: Asked, worker: int) -> Asked:
        expected = self.model.post(asked, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(asked, worker)), [expected])
        return asked

    @rule(target=vouchers, name=merchants, amount=st.integers(50, 500), worker=workers)
    def fund(self, name: str, amount: int, worker: int) -> Asked:
        """Credit an account, so that later debits can succeed or exceed the balance."""
        bank = "bank:usd" if name == "m1:usd" else "bank"
        change = -amount if ACCOUNTS[name][0] == "receivable" else amount
        asked = Asked(self.fresh_id(), ((bank, -change), (name, change)))
        expected = self.model.post(asked, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(asked, worker)), [expected])
        return asked

    def fresh_id(self) -> UUID:
        return UUID((len(self.model.vouchers) * 7919 + self.now_us).to_bytes(16, "big"))

    @rule(asked=vouchers, worker=workers)
    def repeat(self, asked: Asked, worker: int) -> None:
        expected = self.model.post(asked, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(asked, worker)), [expected])

    @rule(asked=vouchers, other=asked(), worker=workers)
    def reuse_the_id(self, asked: Asked, other: Asked, worker: int) -> None:
        other = Asked(asked.id, other.lines, other.type, other.reference)
        expected = self.model.post(other, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(other, worker)), [expected])

    @rule(
        new=st.lists(asked(), min_size=1, max_size=5),
        old=st.lists(vouchers, max_size=3),
        worker=workers,
        data=st.data(),
    )
    def post_a_batch(self, new: list[Asked], old: list[Asked], worker: int, data: st.DataObject) -> None:
        """Post new vouchers and replays, shuffled, some twice in the batch."""
        batch = data.draw(st.permutations(new + old + new[:1]))
        expected = [self.model.post(asked, self.now_us) for asked in batch]
        self.agrees(self.ask(worker, *[self.to_voucher(asked, worker) for asked in batch]), expected)

    @rule(new=st.lists(asked(), min_size=1, max_size=4), old=st.lists(vouchers, max_size=1), worker=workers)
    def post_all_or_none(self, new: list[Asked], old: list[Asked], worker: int) -> None:
        group = [*new, *(a for a in old if a.hold is None and a.reverses is None), *new[:1]]
        expected = self.model.post_all_or_none(group, self.now_us)
        outcome = self.ask(worker, AtomicGroup([self.to_voucher(asked, worker) for asked in group]))[0]
        self.agrees(outcome.parts or [], expected)

    @rule(target=vouchers, original=vouchers, worker=workers)
    def reverse(self, original: Asked, worker: int) -> Asked:
        stands = self.model.vouchers.get(original.id)
        if stands is None or stands[1] != "posted":
            return original
        lines_ = tuple((name, -amount) for name, amount in stands[0].lines)
        asked = Asked(self.fresh_id(), lines_, "reversal", reverses=original.id)
        expected = self.model.post(asked, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(asked, worker)), [expected])
        return asked

    @rule(target=holds, name=names, amount=amounts, seconds=st.sampled_from([None, None, -1, 5, 30]), worker=workers)
    def place_hold(self, name: str, amount: int, seconds: int | None, worker: int) -> str:
        self.holds_made += 1
        id_ = f"h:{self.holds_made}"
        self.place(id_, name, amount, 0 if seconds is None else self.now_us + seconds * 1_000_000, worker)
        return id_

    @rule(target=holds, name=merchants, amount=amounts, seconds=st.sampled_from([None, 20]), worker=workers)
    def fund_and_hold(self, name: str, amount: int, seconds: int | None, worker: int) -> str:
        self.fund(name=name, amount=amount + 20, worker=worker)
        return self.place_hold(name=name, amount=amount, seconds=seconds, worker=worker)

    def place(self, id_: str, name: str, amount: int, expires_at_us: int, worker: int) -> None:
        expected = self.model.place_hold(id_, name, amount, expires_at_us, self.now_us)
        self.agrees(
            self.ask(worker, PlaceHold(id_, self.known[worker][name], amount, expires_at_us, "dev")),
            [expected],
            "placed",
        )

    @rule(id_=holds, name=merchants, amount=amounts, same=st.booleans(), worker=workers)
    def place_again(self, id_: str, name: str, amount: int, same: bool, worker: int) -> None:
        hold = self.model.holds.get(id_)
        if hold is None or not same:
            self.place(id_, name, amount, 0, worker)
        else:
            self.place(id_, hold.account, hold.amount, hold.expires_at_us, worker)

    @rule(target=vouchers, id_=holds, share=st.sampled_from([1, 50, 100, 100, 130]), credit=cny, worker=workers)
    def capture(self, id_: str, share: int, credit: str, worker: int) -> Asked:
        hold = self.model.holds.get(id_)
        if hold is None:
            return Asked(self.fresh_id(), (("bank", -1), ("fees", 1)))
        amount = max(1, hold.amount * share // 100)
        amount = -amount if ACCOUNTS[hold.account][0] == "receivable" else amount
        asked = Asked(self.fresh_id(), ((hold.account, -amount), (credit, amount)), hold=id_)
        expected = self.model.post(asked, self.now_us)
        self.agrees(self.ask(worker, self.to_voucher(asked, worker)), [expected])
        return asked

    @rule(id_=holds, worker=workers)
    def release(self, id_: str, worker: int) -> None:
        if id_ in self.model.holds:
            expected = self.model.release(id_, self.now_us)
            hold = self.model.holds[id_]
            self.agrees(
                self.ask(worker, EndHold(id_, self.accounts[hold.account], self.slot_of(id_), "dev")),
                [expected],
                "ended",
            )

    @rule(seconds=st.sampled_from([1, 10, 40]), worker=workers)
    def let_time_pass(self, seconds: int, worker: int) -> None:
        """Advance the clock, and end expired holds as the background job does."""
        self.now_us += seconds * 1_000_000
        commands = []
        for id_, hold in self.model.holds.items():
            self.model.expire(id_, self.now_us)
            commands.append(EndHold(id_, self.accounts[hold.account], self.slot_of(id_), "dev", expire=True))
        self.ask(worker, *commands)
        self.agrees([], [])

    @rule(name=names, status=statuses, worker=workers)
    def set_status(self, name: str, status: Status, worker: int) -> None:
        if status == Status.CLOSED and name not in MERCHANTS:
            return  # the model does not know whether each slot of a split account is empty
        expected = self.model.set_status(name, status)
        command = SetStatus(self.known[worker][name], status, "the machine", "tests")
        self.agrees(self.ask(worker, command), [expected], "changed")

    @rule(name=split, slots=st.integers(1, 4), worker=workers)
    def resplit(self, name: str, slots: int, worker: int) -> None:
        """Split or merge an account. Only this worker applies the new slot map immediately."""
        outcome = self.ask(worker, Resplit(self.known[worker][name], slots, "the machine", "tests"))[0]
        assert outcome.refusal is None or self.model.accounts[name].status != Status.OPEN
        self.follow(worker)
        self.agrees([], [])

    @rule(worker=workers)
    def follow(self, worker: int) -> None:
        """Let a worker apply the current slot map."""
        ledger = self.workers[worker]
        self.run(follow(ledger.connection, ledger.directory, {}, self.run(read_routes(ledger.connection))))
        self.known[worker] = {name: ledger.directory.get(name) or account for name, account in self.accounts.items()}

    @rule(name=split, worker=workers)
    def rebalance(self, name: str, worker: int) -> None:
        self.ask(worker, Rebalance(self.known[worker][name]))
        self.agrees([], [])

    @rule(name=merchants, buffered=st.sampled_from([True, True, False]), worker=workers)
    def set_policy(self, name: str, buffered: bool, worker: int) -> None:
        """Set the buffering policy of an account. Only this worker applies it immediately."""
        if ACCOUNTS[name][0] == "receivable":
            return
        outcome = self.ask(worker, SetPolicy(self.known[worker][name], buffered, "the machine", "tests"))[0]
        assert outcome.refusal is None or self.model.accounts[name].status == Status.CLOSED
        self.follow(worker)
        self.agrees([], [])

    @rule(name=merchants, worker=workers)
    def drain(self, name: str, worker: int) -> None:
        """Drain an account by any worker, also by one that has not applied the buffering policy."""
        self.ask(worker, Drain(self.known[worker][name]))
        self.agrees([], [])

    @rule(asked=consumes(vouchers))
    def forget(self, asked: Asked) -> None:
        """Remove a voucher from those that are replayed."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("layout", [Layout(1, 2), Layout(3, 1)], ids=["one shard", "three shards"])
def test_the_ledger_agrees_with_its_model(
    postgres: Databases, keys: FileKeys, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now_us", clock.now_us)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        run_state_machine_as_test(
            lambda: LedgerMachine(postgres, keys, layout, runner),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                phases=list(Phase) if LONG else [Phase.explicit, Phase.reuse, Phase.generate],
            ),
        )
