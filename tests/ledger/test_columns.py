"""The batch encoder: a batch is stored as decided, for any mix of vouchers, also if a column has only nulls."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fundledger.ledger.model.batch import Drain
from tests.support.ledger import Ledger, code, new_id, reversal, voucher
from tests.support.length import unless_long

MODULES = ("dev", "fund", "other")
SAID = {"posted", "insufficient-funds", "voucher-already-reversed", "account-not-found"}
SAME = ("type", "digest", "reference", "metadata", "reverses", "module")


@st.composite
def parts(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the parts of one voucher of a batch."""
    return {
        "extra": draw(st.sampled_from([0, 0, 0, 1, 3, 4])),
        "payer": draw(st.sampled_from(["bank", "bank", "m:0", "m:1"])),
        "payee": draw(st.sampled_from(["m:0", "m:1", "m:2", "m:3", "b:0", "b:1"])),
        "amount": draw(st.integers(1, 50)),
        "unknown": draw(st.sampled_from([None] * 6 + ["nobody"])),
        "type_": draw(st.sampled_from(["pay", "pay", "refund", "x"])),
        "module": draw(st.sampled_from(MODULES)),
        "reference": draw(st.sampled_from([None, None, "r", "订单"])),
        "metadata": draw(st.sampled_from([None, None, '{"a": 1}', "{}"])),
        "same_id": draw(st.integers(0, 9)) == 0,
        "reversed": draw(st.integers(0, 7)) == 0,
    }


batches = st.tuples(
    st.lists(parts(), min_size=1, max_size=9),
    st.lists(st.sampled_from(["b:0", "b:1"]), max_size=2, unique=True),
    st.booleans(),
)


@pytest.mark.layout(shards=2)
async def test_what_is_stored_of_a_mixed_batch_is_what_was_asked_for(ledger: Ledger) -> None:
    accounts = {"bank": await ledger.account("bank", "bank")}
    for name in ("m:0", "m:1", "m:2", "m:3"):
        accounts[name] = await ledger.account(name, balance=20)
    for name in ("b:0", "b:1"):
        accounts[name] = await ledger.account(name, buffered=True)
    loop = asyncio.get_running_loop()
    before: list[Any] = []
    seen: set[str] = set()

    async def one(batch: Any) -> None:
        drawn, drains, folds_first = batch
        asked, last = [], None
        for part in map(dict, drawn):
            extra, payer, payee, amount = (part.pop(n) for n in ("extra", "payer", "payee", "amount"))
            same, reverses = part.pop("same_id"), part.pop("reversed")
            if reverses and before:
                asked.append(reversal(random.Random(amount).choice(before)))
                continue
            if payer == payee:
                payer = "bank"
            lines = [(accounts[payer], -amount - extra), (accounts[payee], amount)]
            lines += [(accounts["m:2"], 1)] * extra
            id_ = last.id if same and last is not None and last.module != part["module"] else new_id()
            last = voucher(*lines, id_=id_, **part)
            asked.append(last)
        drains = [Drain(accounts[name]) for name in drains]
        outcomes = await ledger.post(*(drains + asked if folds_first else asked + drains))
        outcomes = outcomes[len(drains) :] if folds_first else outcomes[: len(asked)]
        for each, outcome in zip(asked, outcomes, strict=True):
            # If a row was wrong, a guard of the database would reject it, and the outcome would be a fault.
            word = code(outcome)
            assert word in SAID, word
            seen.add(word)
            record = await ledger.record(each.id, each.module)
            if word == "account-not-found":
                assert record is None
                continue
            assert record is not None, word
            assert all(getattr(record, name) == getattr(each, name) for name in SAME), (record, word)
            assert [(a.id, n) for a, n in record.lines] == [(a.id, n) for a, n in each.lines]
            assert (record.refusal is None) == (word == "posted")
            if word == "posted" and each.reverses is None:
                before.append(each)

    @settings(max_examples=unless_long(60, 600), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(batches)
    def run(batch: Any) -> None:
        asyncio.run_coroutine_threadsafe(one(batch), loop).result()

    await asyncio.to_thread(run)
    for name in ("b:0", "b:1"):
        await ledger.post(Drain(accounts[name]))
    assert seen == SAID
    assert (await ledger.prove()).ok
