"""Broken connections to the database, at every possible place: each voucher is posted once and reported as posted."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from asyncpg.pgproto.pgproto import UUID

from fundledger.faults import Fault, OutcomeUnknown, Unavailable
from fundledger.hotspot.lane import Lane, Statistics
from fundledger.ledger import posting
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import AtomicGroup, Command, Outcome
from fundledger.ledger.model.hold import EndHold, PlaceHold
from fundledger.ledger.model.voucher import Voucher
from fundledger.ledger.store.write_cache import WriteCache
from tests.adversity.conftest import Tell, Torn
from tests.adversity.proxy import (
    Cut,
    Message,
    Way,
    cut_after_commit,
    cut_at_byte,
    cut_at_message,
    cut_before_commit,
    cut_with_commit,
    late_commit,
    late_write,
    one_after_the_other,
)
from tests.adversity.proxy import Fault as WireFault
from tests.support.ledger import capture, code, codes, new_id, release, reversal, transfer
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

CUTS = {"before": cut_before_commit, "with": cut_with_commit, "after": cut_after_commit}
PLENTY = 1_000_000
BYTES_TRIED = 100
LINES_OF = """SELECT count(*) FILTER (WHERE voucher_id = $1)
                     + coalesce(sum(cardinality(array_positions(vouchers, $1))), 0)::bigint FROM ledger.entries"""
"""Query for the number of a voucher's lines in the journal, as entries of their own and in summaries."""


class Scene:
    """Accounts for the commands, and their expected balances."""

    def __init__(self, torn: Torn, bank: Account, merchants: Sequence[Account]) -> None:
        self.torn = torn
        self.bank = bank
        self.merchants = merchants
        self.expected = dict.fromkeys([bank.number, *[m.number for m in merchants]], 0)
        self.accounts = {bank.number: bank, **{m.number: m for m in merchants}}

    @classmethod
    async def set(cls, torn: Torn, merchants: int = 3) -> "Scene":
        bank = await torn.ledger.account("bank", "bank")
        scene = cls(torn, bank, [await torn.ledger.account(f"merchant:{i}") for i in range(merchants)])
        funding = [transfer(bank, merchant, PLENTY) for merchant in scene.merchants]
        assert codes(await torn.ledger.post(*funding)) == ["posted"] * merchants
        for voucher in funding:
            scene.count(voucher)
        await torn.session.open()
        return scene

    def count(self, voucher: Voucher) -> None:
        for account, amount in voucher.lines:
            self.expected[account.number] += amount

    def payments(self, count: int = 3) -> list[Voucher]:
        merchants = self.merchants
        return [transfer(self.bank, merchants[i % len(merchants)], 10 + i) for i in range(count)]

    async def remembered(self) -> None:
        """Post until the session decides batches from the write cache, and writes them without a COMMIT."""
        for _ in range(5):
            payments = self.payments()
            self.torn.proxy.record()
            assert codes(await self.torn.post(*payments)) == ["posted"] * len(payments)
            for voucher in payments:
                self.count(voucher)
            if [message.kind for message in self.torn.proxy.recorded if message.commits] == ["S"]:
                return
        raise AssertionError("nothing is decided from memory")

    async def check(self, commands: Sequence[Command], answers: Sequence[Outcome | Fault]) -> None:
        """Check each outcome: it is no replay, the voucher is in the books once, and a replay has the same outcome."""
        again = await self.torn.post(*commands)
        for command, answer, repeat in zip(commands, answers, again, strict=True):
            assert isinstance(answer, Outcome), (command, answer)
            assert isinstance(repeat, Outcome), (command, repeat)
            if isinstance(command, AtomicGroup):
                parts = zip(command.vouchers, answer.parts or (), repeat.parts or (), strict=True)
                for part in parts:
                    await self._check_voucher(*part)
            elif isinstance(command, Voucher):
                await self._check_voucher(command, answer, repeat)
            else:
                assert not answer.replay or type(command) is EndHold, (
                    "a release is the same as often as it is asked for"
                )
                assert (repeat.replay, code(repeat)) == (True, code(answer))
                assert repeat.hold == answer.hold

    async def _check_voucher(self, voucher: Voucher, answer: Outcome, repeat: Outcome) -> None:
        assert not answer.replay, "asked once, answered as if it had been asked before"
        assert repeat.replay
        assert (repeat.record, repeat.refusal) == (answer.record, answer.refusal)
        posted = answer.refusal is None
        if posted:
            self.count(voucher)
        assert await self.rows(voucher.id) == (1, len(voucher.lines) if posted else 0)

    async def rows(self, id_: UUID) -> tuple[int, int]:
        """Return the number of vouchers with an id, and the number of their lines in the journal."""
        connection = self.torn.ledger.connection
        vouchers = await connection.fetchval("SELECT count(*) FROM ledger.vouchers WHERE id = $1", id_)
        entries = await connection.fetchval(LINES_OF, id_)
        return vouchers, entries

    async def prove(self) -> None:
        """Prove the books, and compare every balance with the sum of the posted vouchers."""
        for number, account in self.accounts.items():
            assert await self.torn.ledger.posted(account) * account.type.normal == self.expected[number], account.id
        await self.torn.ledger.prove()


async def rich(scene: Scene) -> list[Command]:
    """Return commands of each kind that moves money: payments, a payment that is refused, a reversal, a hold, a
    capture, a release, and an atomic group.
    """
    first, second, third = scene.merchants
    ledger = scene.torn.ledger
    original = transfer(scene.bank, first, 500)
    assert codes(await ledger.post(original)) == ["posted"]
    scene.count(original)
    captured = await ledger.hold(str(new_id()), second, 300)
    released = await ledger.hold(str(new_id()), second, 200)
    return [
        *scene.payments(),
        transfer(first, scene.bank, 1 << 40),
        reversal(original),
        PlaceHold(str(new_id()), third, 40, 0, "dev"),
        capture(captured, scene.bank, 250),
        release(released),
        AtomicGroup([transfer(scene.bank, second, 7), transfer(second, third, 3)]),
    ]


async def plain(scene: Scene) -> list[Command]:
    """Return payments whose sub-accounts are locked and read, because the write cache is off."""
    scene.torn.session.memory = WriteCache(0)
    return list(scene.payments())


async def just_read(scene: Scene) -> list[Command]:
    """Return payments whose sub-accounts are read without a lock, because the write cache is empty."""
    await scene.torn.reconnect()
    return list(scene.payments())


async def remembered(scene: Scene) -> list[Command]:
    """Return payments that are decided from the write cache and written by one query."""
    await scene.remembered()
    return list(scene.payments())


async def disappointing(scene: Scene) -> list[Command]:
    """Return payments of which one is refused, so that the batch is not decided from the write cache."""
    await scene.remembered()
    return [*scene.payments(), transfer(scene.merchants[0], scene.bank, 1 << 40)]


BATCHES = {"plain": plain, "remembered": remembered, "disappointing": disappointing, "rich": rich}
ALL_BATCHES = {**BATCHES, "just read": just_read}


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("batch", BATCHES)
async def test_a_connection_cut_around_the_commit_is_answered_with_what_is_true(
    torn: Torn, where: str, batch: str
) -> None:
    scene = await Scene.set(torn)
    commands = await BATCHES[batch](scene)
    torn.proxy.fault = CUTS[where]()
    answers = await torn.post(*commands)
    assert torn.proxy.cuts == 1
    await scene.check(commands, answers)
    await scene.prove()


def _kinds(torn: Torn) -> set[str]:
    return {message.kind for message in torn.proxy.recorded if message.way is Way.TO_CLIENT}


async def _waits_for_a_lock(torn: Torn) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(await torn.ledger.connection.fetchval(waiting))


@pytest.mark.parametrize("batch", BATCHES)
async def test_a_commit_that_reaches_the_server_after_its_client_came_back_counts_once(torn: Torn, batch: str) -> None:
    scene = await Scene.set(torn)
    commands = await BATCHES[batch](scene)
    delivered = asyncio.Event()
    torn.proxy.fault = late_commit(delivered)
    posting_ = asyncio.create_task(torn.post(*commands))
    await eventually(lambda: _waits_for_a_lock(torn), "the second attempt waits for the rows of the first")
    delivered.set()
    await scene.check(commands, await posting_)
    await scene.prove()


async def test_a_write_from_memory_that_reaches_the_server_after_its_client_went_another_way_fails(torn: Torn) -> None:
    scene = await Scene.set(torn)
    commands = await remembered(scene)
    delivered = asyncio.Event()
    torn.proxy.fault = late_write(delivered)
    answers = await torn.post(*commands)
    assert torn.proxy.cuts == 1
    before = await torn.ledger.state()
    torn.proxy.record()
    delivered.set()
    await eventually(lambda: _kinds(torn) & {"E", "C"}, "the server has answered the late write")
    assert "E" in _kinds(torn), "it was refused"
    assert await torn.ledger.state() == before
    await scene.check(commands, answers)
    await scene.prove()


async def test_a_connection_that_the_server_has_ended_is_not_used_again(torn: Torn) -> None:
    """The server has ended the database session, but the connection is still open on the side of the client."""
    scene = await Scene.set(torn)
    torn.proxy.lingering = True
    torn.proxy.record()
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'torn lane'"
    assert await torn.ledger.connection.fetchval(end) == 1
    await eventually(lambda: [message.kind for message in torn.proxy.recorded] == ["E"], "the goodbye has arrived")
    torn.proxy.lingering = False
    commands = await plain(scene)
    await scene.check(commands, await torn.post(*commands))
    await scene.prove()


@pytest.mark.layout(shards=3)
@pytest.mark.parametrize("where", CUTS)
async def test_a_voucher_between_two_shards_is_posted_in_both_or_in_none(torn: Torn, where: str) -> None:
    scene = await Scene.set(torn, merchants=8)
    assert len({merchant.shard for merchant in scene.merchants}) > 1
    commands: list[Command] = [
        transfer(debit, credit, 5) for debit in scene.merchants[:4] for credit in scene.merchants[4:]
    ]
    torn.proxy.fault = CUTS[where]()
    await scene.check(commands, await torn.post(*commands))
    await scene.prove()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["between", "within"])
@pytest.mark.parametrize("batch", ALL_BATCHES)
async def test_a_cut_at_any_message_of_a_batch_loses_and_doubles_nothing(
    torn: Torn, batch: str, share: float, tell: Tell
) -> None:
    scene = await Scene.set(torn)

    async def post(fault: WireFault | None) -> int:
        await torn.reconnect()
        commands = await ALL_BATCHES[batch](scene)
        torn.proxy.record()
        torn.proxy.fault = fault
        answers = await torn.post(*commands)
        messages = len(torn.proxy.recorded)
        torn.proxy.fault = None
        await scene.check(commands, answers)
        return messages

    messages = await post(None)
    assert messages >= 7, "a statement, its end, and the answer"
    for number in range(messages):
        await post(cut_at_message(number, share))
    assert torn.proxy.cuts == messages
    await scene.prove()
    tell(f"cut {'within' if share else 'before'} each message of a {batch} batch", messages)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("batch", ["remembered", "rich"])
async def test_a_cut_at_any_byte_loses_and_doubles_nothing(torn: Torn, batch: str, seed: int, tell: Tell) -> None:
    scene = await Scene.set(torn)
    chance = random.Random(seed)
    await torn.reconnect()
    commands = await BATCHES[batch](scene)
    torn.proxy.record()
    answers = await torn.post(*commands)
    sizes = {way: sum(len(m.raw) for m in torn.proxy.recorded if m.way is way) for way in Way}
    await scene.check(commands, answers)
    for _ in range(BYTES_TRIED):
        way = chance.choice(list(Way))
        await torn.reconnect()
        commands = await BATCHES[batch](scene)
        torn.proxy.fault = cut_at_byte(way, chance.randrange(sizes[way]))
        answers = await torn.post(*commands)
        torn.proxy.fault = None
        await scene.check(commands, answers)
    assert torn.proxy.cuts >= BYTES_TRIED * 0.9, f"seed {seed}: the cuts missed"
    await scene.prove()
    tell(f"cut at a random byte of a {batch} batch", torn.proxy.cuts, seed)


@pytest.mark.usefixtures("hasty")
async def test_repeated_cuts_lose_and_double_nothing(torn: Torn, seed: int, tell: Tell) -> None:
    """Each attempt is cut at another place, until one succeeds."""
    scene = await Scene.set(torn)
    chance = random.Random(seed)
    rounds = 10
    for _ in range(rounds):
        await torn.reconnect()
        commands = await BATCHES[chance.choice(list(BATCHES))](scene)
        ends = [cut_before_commit, cut_with_commit, cut_after_commit]
        torn.proxy.fault = one_after_the_other(
            cut_at_message(chance.randrange(6)),
            chance.choice(ends)(),
            cut_at_message(chance.randrange(30)),
            chance.choice(ends)(),
            cut_after_commit(),
        )
        answers = await torn.post(*commands)
        torn.proxy.fault = None
        await scene.check(commands, answers)
    assert torn.proxy.cuts >= rounds
    await scene.prove()
    tell(f"{rounds} batches cut several times each", torn.proxy.cuts, seed)


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("batch", ["plain", "remembered"])
async def test_a_database_gone_for_too_long_after_a_commit_is_an_unknown_outcome_that_a_retry_resolves(
    torn: Torn, where: str, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await Scene.set(torn)
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.5)
    commands = await BATCHES[batch](scene)
    cut = CUTS[where]()

    def then_gone(message: Message) -> Cut | None:
        found = cut(message)
        if found is not None:
            asyncio.get_running_loop().call_soon(torn.proxy.go_away)
        return found

    torn.proxy.fault = then_gone
    answers = await torn.post(*commands)
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * len(commands)
    assert all(isinstance(answer, Fault) and answer.retry_is_safe for answer in answers)
    assert torn.proxy.refused > 0
    torn.proxy.come_back()
    told = await torn.post(*commands)
    assert codes(told) == ["posted"] * len(commands)
    stood = {isinstance(answer, Outcome) and answer.replay for answer in told}
    assert stood == {where == "after"} or (where == "with" and len(stood) == 1)
    for command in commands:
        assert isinstance(command, Voucher)
        scene.count(command)
        assert await scene.rows(command.id) == (1, 2)
    await scene.prove()


async def test_a_database_gone_for_too_long_before_the_commit_is_unavailable_and_nothing_is_written(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await Scene.set(torn)
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.5)
    before = await torn.ledger.state()
    commands = await plain(scene)
    torn.proxy.go_away()
    answers = await torn.post(*commands)
    assert [type(answer) for answer in answers] == [Unavailable] * len(commands)
    assert await torn.ledger.state() == before
    torn.proxy.come_back()
    await scene.check(commands, await torn.post(*commands))
    await scene.prove()


class _Meter:
    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, size: int, seconds: float) -> None:
        self.batches.append(size)


@pytest.mark.parametrize("where", CUTS)
async def test_a_lane_answers_each_caller_once_when_its_connection_is_cut_around_the_commit(
    torn: Torn, where: str
) -> None:
    scene = await Scene.set(torn)
    meter = _Meter()
    lane = Lane(torn.session, torn.ledger.books, meter, depth_max=1000, batch_size_max=100)
    answers: dict[int, list[Outcome | Fault]] = {}

    def answer(index: int, outcome: Outcome | Fault) -> None:
        answers.setdefault(index, []).append(outcome)

    commands: list[Command] = []
    for cut in range(3):
        torn.proxy.fault = CUTS[where]()
        for command in scene.payments(20):
            lane.post(command, answer, len(commands))
            commands.append(command)
        await lane.drain()
        assert torn.proxy.cuts == cut + 1
    assert {index: len(given) for index, given in answers.items()} == dict.fromkeys(range(len(commands)), 1)
    assert lane.statistics() == Statistics(0, 0)
    assert sum(meter.batches) == len(commands)
    await scene.check(commands, [answers[index][0] for index in range(len(commands))])
    await scene.prove()
    await lane.close()
