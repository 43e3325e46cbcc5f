"""Splits, merges, rebalancing and debits from several slots, cut at every message of the exchange with the database."""

import pytest

from fundledger.ledger.model.account import Account, Status
from fundledger.ledger.model.batch import Command, Drain, Outcome, Rebalance, Resplit, SetPolicy, SetStatus
from fundledger.ledger.model.hold import PlaceHold
from tests.adversity.conftest import Tell, Torn
from tests.adversity.proxy import Fault, cut_at_message
from tests.support.ledger import Ledger, new_id, posted, transfer

pytestmark = pytest.mark.drill

AMOUNTS = (5, 7, 9)


class Merchants:
    """Several accounts, each with the same amounts on its slots."""

    def __init__(self, ledger: Ledger, bank: Account, workers: list[Ledger]) -> None:
        self._ledger = ledger
        self.bank = bank
        self._workers = workers
        self._opened = 0

    @classmethod
    async def set(cls, ledger: Ledger) -> "Merchants":
        workers = [await ledger.worker(ordinal) for ordinal in range(len(AMOUNTS))]
        return cls(ledger, await ledger.account("bank", "bank"), workers)

    async def next(self, *, buffered: bool) -> Account:
        self._opened += 1
        account = await self._ledger.account(f"m:{self._opened}", buffered=buffered)
        assert (await self._ledger.post_one(Resplit(account, len(AMOUNTS), "a test", "tests"))).refusal is None
        account = (await self._ledger.directory.by_number(self._ledger.connection, [account.number]))[account.number]
        for worker, amount in zip(self._workers, AMOUNTS, strict=True):
            worker.books.buffering = False
            assert posted(await worker.post_one(transfer(self.bank, account, amount)))
            worker.books.buffering = buffered
            if buffered:
                assert posted(await worker.post_one(transfer(self.bank, account, 1)))
        return account


KINDS = {
    "split": (lambda m, _: Resplit(m, 5, "a test", "tests"), 21, 0, 5),
    "merge": (lambda m, _: Resplit(m, 1, "a test", "tests"), 21, 0, 1),
    "rebalance": (lambda m, _: Rebalance(m), 21, 0, 3),
    "debit": (lambda m, bank: transfer(m, bank, 18), 3, 0, 3),
    "buffered debit": (lambda m, bank: transfer(m, bank, 23), 1, 0, 3),
    "drain": (lambda m, _: Drain(m), 24, 0, 3),
    "buffered credit": (lambda m, bank: transfer(bank, m, 2), 21, 0, 3),
    "change of policy": (lambda m, _: SetPolicy(m, False, "a test", "tests"), 24, 0, 3),
    "freeze": (lambda m, _: SetStatus(m, Status.FROZEN_ALL, "a test", "tests"), 24, 0, 3),
    "hold": (lambda m, _: PlaceHold(str(new_id()), m, 18, 0, "dev"), 21, 18, 3),
}


BUFFERED = {"buffered debit": 0, "drain": 0, "buffered credit": 5, "change of policy": 0, "freeze": 0}
"""The amount that is still pending at the end, on an account whose credits are buffered."""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["between", "within"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_at_any_message_leaves_all_or_nothing_and_is_gone_on_from(
    torn: Torn, kind: str, share: float, tell: Tell
) -> None:
    make, total, held, slots = KINDS[kind]
    merchants = await Merchants.set(torn.ledger)

    async def post(fault: Fault | None) -> int:
        account = await merchants.next(buffered=kind in BUFFERED)
        await torn.reconnect()
        command: Command = make(account, merchants.bank)
        torn.proxy.record()
        torn.proxy.fault = fault
        answers = await torn.post(command)
        messages = len(torn.proxy.recorded)
        torn.proxy.fault = None
        assert isinstance(answers[0], Outcome), answers
        assert answers[0].refusal is None, answers
        view = await torn.ledger.view(account)
        assert (view.posted, view.held, view.sub_accounts) == (total, held, slots)
        assert view.pending == BUFFERED.get(kind, 0)
        return messages

    messages = await post(None)
    assert messages >= 10, "several statements, and a commit"
    for number in range(messages):
        await post(cut_at_message(number, share))
    assert torn.proxy.cuts == messages
    await torn.ledger.prove()
    tell(f"cut {'within' if share else 'before'} each message of a {kind}", messages)
