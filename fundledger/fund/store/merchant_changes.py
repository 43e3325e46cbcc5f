"""Store of the fund service: changes of existing merchants. One identity changes the name and the settlement calendar,
suspends, resumes and closes. Two identities change the withdrawal limit, the fees and the rolling reserve, as a
change in fund.changes.

Each change locks the row of the merchant, and writes an event with who and why. Withdrawals and settlements lock the
same row, so none of them is reserved after a merchant was suspended.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from fundledger.client.types import Account
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.model import accounts
from fundledger.fund.model.change import Change
from fundledger.fund.model.change_requests import (
    ALONE,
    DUAL,
    CloseRequest,
    FeeRuleBody,
    FinalWithdrawal,
    MerchantPatch,
)
from fundledger.fund.model.merchant import CLOSING, MerchantState
from fundledger.fund.model.order import Kind
from fundledger.fund.model.payee import refusal_for
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store import debts
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.merchant_rows import MerchantEvent, change_row, changed, lock_merchant, write_event
from fundledger.fund.store.merchants import Merchants, encode, utc_now
from fundledger.fund.store.orders import Connection, Pool
from fundledger.fund.store.payees import read_payees, with_payees
from fundledger.fund.store.queries import SQL

LOCKED_S: Final = 2.0
"""The maximum time (s) for which a merchant is locked while the account service is asked."""
_decode_patch: Final = msgspec.json.Decoder(MerchantPatch).decode
_decode_rule: Final = msgspec.json.Decoder(FeeRuleBody).decode


class MerchantChanges:
    """The changes of merchants. Methods raise Tampered, and what asyncpg raises. A method that returns None found no
    merchant. `now`: the clock of events.
    """

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        merchants: Merchants,
        gateway: AccountGateway,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._merchants = merchants
        self._gateway = gateway
        self._now = now

    async def patch(self, id_: str, patch: MerchantPatch, by: str) -> bool:
        """Change members that one identity may change. Return False if the merchant does not exist. A closed merchant
        keeps a history, too.
        """
        assert not patch.given(DUAL)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await lock_merchant(connection, self._macs, id_)
            if row is not None:
                await self._write(connection, row, patch.given(ALONE), "changed", by, patch.why)
        return row is not None

    async def suspend(self, id_: str, reason: str, by: str) -> Refusal | bool:
        """Suspend a merchant. Return a refusal, or whether the merchant exists. May be repeated."""
        async with self._pool.acquire() as connection, connection.transaction():
            row = await lock_merchant(connection, self._macs, id_)
            if row is None:
                return False
            if row["state"] in (MerchantState.CLOSING, MerchantState.CLOSED):
                return _closed(row)
            await self._write(connection, row, {"state": MerchantState.SUSPENDED}, "suspended", by, reason)
        return True

    async def resume(self, id_: str, reason: str, by: str) -> Refusal | bool:
        """Resume a merchant that is suspended, or that is being closed and has all its accounts. Return a refusal, or
        whether the merchant exists. May be repeated. Raises GatewayFault.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            row = await lock_merchant(connection, self._macs, id_)
            if row is None:
                return False
            if row["state"] == MerchantState.CLOSED:
                return _closed(row)
            if row["state"] == MerchantState.CLOSING:
                # The accounts are closed under the same lock, so the result stays true until this transaction ends.
                async with _at_most(LOCKED_S):
                    there = await self._accounts(id_)
                if any(account.status == "closed" for account in there):
                    return _closed(row)
            new = {"state": MerchantState.OPEN, "final_channel": None, "final_payee": None}
            await self._write(connection, row, new, "resumed", by, reason)
        return True

    async def close(self, id_: str, request: CloseRequest, by: str) -> Refusal | bool:
        """Begin to close a merchant. The background job `closing` completes this. Return a refusal, or whether the
        merchant exists. May be repeated, also with another channel. A merchant that is suspended has to be resumed
        first, because its waiting payouts are sent while it is being closed. Raises GatewayFault.
        """
        final = request.final
        # The accounts are read without a lock: the background job reads them again before it closes them.
        there = await self._accounts(id_)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await lock_merchant(connection, self._macs, id_)
            if row is None:
                return False
            if row["state"] == MerchantState.CLOSED:
                return True
            if row["state"] == MerchantState.SUSPENDED:
                return Refusal(Code.MERCHANT_SUSPENDED, f"merchant {id_} is suspended: resume it first", "id")
            if final is None and row["state"] != MerchantState.CLOSING:
                left = await self._left(connection, id_, there)
                if left is not None:
                    return Refusal(Code.MERCHANT_NOT_EMPTY, f"merchant {id_} is not empty: {left}")
            new: dict[str, object] = {"state": MerchantState.CLOSING}
            # A repeated request with a channel is an event of its own: after a bounce, it permits another withdrawal.
            again = {}
            if final is not None:
                no = await self._payee_refusal(connection, row, final)
                if no is not None:
                    return no
                new |= {"final_channel": final.channel, "final_payee": final.payee}
                again = {"final_channel": {"from": row["final_channel"], "to": final.channel}}
            await self._write(connection, row, new, "closing", by, request.reason, more=again)
        return True

    async def _payee_refusal(
        self, connection: Connection, row: dict[str, Any], final: FinalWithdrawal
    ) -> Refusal | None:
        """Return why a merchant cannot withdraw to the payee of its final withdrawal, or None. A payee may still be in
        its cooling time: the withdrawal waits.
        """
        payee = None
        if final.payee is not None:
            found, bad = await read_payees(connection, self._macs, [final.payee])
            if bad:
                raise Tampered("payee", final.payee)
            payee = found.get(final.payee)
        is_registered = bool(await with_payees(connection, {row["id"]}))
        return refusal_for(row["id"], row["currency"], final.payee, payee, is_registered=is_registered)

    async def _left(self, connection: Connection, id_: str, there: Sequence[Account]) -> str | None:
        """Return what a merchant still has: money on its accounts `there`, a debt, or open orders. None: nothing. The
        caller holds the lock of the merchant.
        """
        held = [f"{account.balance.posted} on {account.id}" for account in there if _has(account)]
        if held:
            return ", ".join(held)
        owed, bad = await debts.lock(connection, self._macs, [id_])
        if bad or owed[id_]:
            return bad.get(id_) or f"a debt of {owed[id_]}"
        orders = await connection.fetchrow(SQL["open_orders"], id_, list(Kind))
        assert orders is not None
        # A closed account never takes a parked order, so the order must not delay the end of the merchant.
        parked = 0 if any(account.status == "closed" for account in there) else orders["parked"]
        return f"open orders: {orders['open'] + parked}" if orders["open"] + parked else None

    async def _accounts(self, id_: str) -> list[Account]:
        """Return the accounts of a merchant, in the sequence in which they are closed. Raises GatewayFault."""
        names = [
            *(accounts.pending(id_), accounts.reserve(id_), accounts.disputed(id_)),
            *(accounts.available(id_), accounts.receivable(id_)),
        ]
        found = await self._gateway.balances(names)
        return [found[name] for name in names if name in found]

    async def end(self, id_: str) -> str | None:
        """Close the accounts of a merchant that is being closed, and record that it is closed. Return what the merchant
        still has, or None if it is closed or is not being closed any more. Raises GatewayFault.

        The row is locked while the accounts are closed, for at most LOCKED_S, so that the merchant is not resumed and
        gets no orders meanwhile. The account service closes no account with money: a payment that was posted meanwhile
        is not lost.
        """
        before = [f"{account.balance.posted} on {account.id}" for account in await self._accounts(id_) if _has(account)]
        if before:
            return ", ".join(before)
        async with self._pool.acquire() as connection, connection.transaction():
            row = await lock_merchant(connection, self._macs, id_)
            if row is None or row["state"] != MerchantState.CLOSING:
                return None
            async with _at_most(LOCKED_S):
                there = await self._accounts(id_)
                left = await self._left(connection, id_, there)
                if left is not None:
                    return left
                for account in there:
                    if account.status != "closed":
                        await self._gateway.close_account(account.id, f"merchant {id_} is closed")
            await self._write(connection, row, {"state": MerchantState.CLOSED}, "closed", CLOSING, None)
        return None

    async def apply_patch(self, connection: Any, change: Change) -> Refusal | None:
        """Apply an approved change of a merchant, in the transaction that records the approval. Raises Tampered."""
        patch = _decode_patch(change.body)
        row = await lock_merchant(connection, self._macs, change.subject)
        if row is None:
            return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {change.subject}")
        if row["state"] == MerchantState.CLOSED:
            return _closed(row)
        soonest = self._merchants.effect_of(None)
        assert isinstance(soonest, datetime)
        more = {}
        for name, product, fee in (
            ("fee", "payment", patch.fee),
            ("withdrawal_fee", "withdrawal", patch.withdrawal_fee),
        ):
            if isinstance(fee, Fee):
                written = row["id"], row["currency"], product, None, fee, soonest, change.maker
                more[name] = {"to": fee, "version": await self._merchants.write_rule(connection, *written)}
        new = patch.given((*ALONE, "withdrawal_limit", "rolling_basis_points", "rolling_days"))
        if "rolling_days" in new:
            # Days that are not complete yet are completed by the new rule.
            first = row["rolling_from"] or self._macs.days.day_of(self._now())
            new["rolling_from"] = None if patch.rolling_days is None else first
        await self._write(connection, row, new, "changed", change.maker, patch.why, change, more)
        return None

    async def apply_fee_rule(self, connection: Any, change: Change) -> Refusal | None:
        """Apply an approved fee rule, in the transaction that records the approval. Raises Tampered."""
        rule, id_ = _decode_rule(change.body), change.subject.partition(" ")[0]
        row = await lock_merchant(connection, self._macs, id_)
        if row is None:
            return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {id_}")
        if row["state"] == MerchantState.CLOSED:
            return _closed(row)
        effect = self._merchants.effect_of(rule.effective_at)
        if isinstance(effect, Refusal):
            return effect
        written = id_, row["currency"], rule.product, rule.channel, rule.fee, effect, change.maker
        version = await self._merchants.write_rule(connection, *written)
        more = {"fee_rule": {"to": rule, "version": version}}
        await self._write(connection, row, {}, "fee_rule", change.maker, None, change, more)
        return None

    async def _write(
        self,
        connection: Connection,
        row: dict[str, Any],
        new: dict[str, Any],
        what: str,
        by: str,
        why: str | None,
        change: Change | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        """Write a merchant with new values, and the event. If nothing changes, nothing is written."""
        values = {name: str(value) if isinstance(value, MerchantState) else value for name, value in new.items()}
        after = {**row, **values, "version": row["version"] + 1}
        body = {**changed(row, after), **(more or {})}
        if not body:
            return
        checker, id_ = (None, None) if change is None else (change.checker, change.id)
        told = MerchantEvent(row["id"], after["version"], what, encode(body), by, checker, why, id_, self._now())
        await change_row(connection, self._macs, after)
        await write_event(connection, self._macs, told)


@contextlib.asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    """Raise GatewayFault if the body takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise GatewayFault("the account service takes too long") from None


def _has(account: Account) -> bool:
    balance = account.balance
    return (balance.posted, balance.held, balance.pending) != (0, 0, 0)


def _closed(row: dict[str, Any]) -> Refusal:
    state = "closed" if row["state"] == MerchantState.CLOSED else "being closed"
    return Refusal(Code.MERCHANT_CLOSED, f"merchant {row['id']} is {state}")
