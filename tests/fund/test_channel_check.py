"""The balance that a withdrawal through a bounded channel needs: concurrent withdrawals share a read of it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channel_check import ChannelCheck
from fundledger.fund.model.order import Kind
from fundledger.fund.model.refusal import Code, Refusal
from tests.support.fund_payees import FileChannels
from tests.support.fund_worker import request_of
from tests.support.fund_world import an_order


class Balances:
    """An account gateway with one balance for each read. A read ends when `go` is set. None: the read fails."""

    def __init__(self, *left: int | None) -> None:
        self.left = list(left)
        self.reads = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    def is_open(self, name: str, currency: str) -> bool:
        return True

    async def left_for_payouts(self, channel: str, currency: str) -> int:
        left = self.left[self.reads]
        self.reads += 1
        self.begun.set()
        await self.go.wait()
        if left is None:
            raise GatewayFault("away")
        return left


def asked(check: ChannelCheck, amount: int, channel: str = "c") -> "asyncio.Task[Refusal | None]":
    members = {"merchant": "m", "order_no": "1", "amount": amount, "channel": channel}
    draft: Any = SimpleNamespace(
        order=an_order(Kind.WITHDRAWAL, "1", amount, channel=channel), request=request_of("withdrawal", **members)
    )
    return asyncio.create_task(check.refusal_of(draft))


def check_of(balances: Any) -> ChannelCheck:
    return ChannelCheck(FileChannels(overdraft=0), balances)


async def test_the_withdrawals_of_a_batch_share_one_read() -> None:
    balances = Balances(100)
    balances.go.set()
    check = check_of(balances)
    found = await asyncio.gather(*(asked(check, amount) for amount in (100, 101, 1)))
    assert [None if no is None else no.code for no in found] == [None, Code.CHANNEL_UNDERFUNDED, None]
    assert balances.reads == 1


async def test_a_read_that_has_begun_decides_nothing_for_a_later_withdrawal() -> None:
    balances = Balances(100, 0)
    check = check_of(balances)
    first = asked(check, 100)
    await balances.begun.wait()
    later = [asked(check, 100) for _ in range(3)]
    await asyncio.sleep(0)
    balances.go.set()
    assert await first is None
    for no in await asyncio.gather(*later):
        assert isinstance(no, Refusal)
        assert no.code is Code.CHANNEL_UNDERFUNDED
    assert balances.reads == 2


async def test_a_failed_read_is_a_fault_for_those_that_share_it_only() -> None:
    balances = Balances(None, 100)
    balances.go.set()
    check = check_of(balances)
    shared = [asked(check, 100), asked(check, 100)]
    for task in shared:
        with pytest.raises(GatewayFault):
            await task
    assert await asked(check, 100) is None


async def test_a_cancelled_withdrawal_does_not_cancel_the_read_of_others() -> None:
    balances = Balances(100)
    check = check_of(balances)
    first, second = asked(check, 100), asked(check, 100)
    await balances.begun.wait()
    first.cancel()
    balances.go.set()
    assert await second is None
    assert first.cancelled()
    assert balances.reads == 1


async def test_each_channel_has_its_own_read() -> None:
    balances = Balances(100, 100)
    balances.go.set()
    check = check_of(balances)
    assert await asyncio.gather(asked(check, 100, "a"), asked(check, 100, "b")) == [None, None]
    assert balances.reads == 2
