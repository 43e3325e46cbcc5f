"""Store of the fund service: changes under dual control. A change waits until a second identity approves it. The
transaction that records the approval applies the change.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import msgspec

from fundledger.fund.model.change import Change, ChangeKind, ChangeState
from fundledger.fund.model.person import may_approve
from fundledger.fund.model.refusal import Code, Refusal, Refused
from fundledger.fund.model.transitions import APPROVE_WITHIN
from fundledger.fund.store.mac_layouts import CHANGE, change_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Connection, Pool
from fundledger.fund.store.queries import SQL

Applier = Callable[[Connection, Change], Awaitable[Refusal | None]]
EXPIRED_AT_ONCE: Final = 200


class Changes:
    """The changes of the fund database. `appliers`: by kind, the function that applies a change in the transaction of
    its approval. Methods raise Tampered, and what asyncpg raises.
    """

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        appliers: Mapping[ChangeKind, Applier],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._appliers = appliers
        self._now = now

    async def request(self, kind: ChangeKind, subject: str, body: msgspec.Struct, maker: str) -> Change | Refusal:
        """Insert a change that waits. If the same identity requested the same change before, return that change. If
        another change of the subject waits, return the refusal CHANGE_WAITING.
        """
        text = msgspec.json.encode(body)
        change = Change(uuid4(), kind, subject, text, ChangeState.WAITING, maker, self._now())
        columns = change.id, kind, subject, text.decode(), maker, change.made_at
        seq = await self._pool.fetchval(SQL["write_change"], *columns, *self._seal(change))
        if seq is not None:
            change.seq = seq
            return change
        row = await self._pool.fetchrow(SQL["waiting_change"], kind, subject)
        if row is None:
            return Refusal(Code.CHANGE_WAITING, f"a change of {kind} {subject} ended just now; send this request again")
        there = self._verified(row)
        if (there.body, there.maker) == (text, maker):
            return there
        return Refusal(Code.CHANGE_WAITING, f"change {there.id} of {kind} {subject} waits for a decision")

    async def read(self, id_: UUID) -> Change | None:
        row = await self._pool.fetchrow(SQL["read_change"], id_)
        return None if row is None else self._verified(row)

    async def page(self, state: ChangeState | None, after: int, limit: int) -> tuple[list[Change], list[UUID], int]:
        """Return `(changes after a seq, ids of changes that do not match their MACs, seq of the last row or 0)`."""
        rows = await self._pool.fetch(SQL["list_changes"], state, after, limit)
        good, bad = [], []
        for row in rows:
            try:
                good.append(self._verified(row))
            except Tampered:
                bad.append(row["id"])
        return good, bad, rows[-1]["seq"] if rows else 0

    async def approve(self, id_: UUID, checker: str) -> Change | Refusal | None:
        """Approve and apply a change. Return the change, None if it does not exist, or a refusal:
        APPROVAL_NEEDS_ANOTHER, CHANGE_ENDED, or a refusal of its applier. A repeated approval returns the change.
        """
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                change = await self._locked(connection, id_)
                if change is None or change.state is ChangeState.APPLIED:
                    return change
                if (no := self._undecidable(change)) is not None:
                    return no
                if not may_approve(change.maker, checker):
                    detail = f"{change.maker} requested this change; a different module or person has to approve it"
                    return Refusal(Code.APPROVAL_NEEDS_ANOTHER, detail)
                # The appliers record who approved.
                no = await self._appliers[change.kind](connection, msgspec.structs.replace(change, checker=checker))
                _require_none(no)
                return await self._decide(connection, change, ChangeState.APPLIED, checker)
        except Refused as refused:
            return refused.refusal

    async def reject(self, id_: UUID, checker: str, reason: str) -> Change | Refusal | None:
        """Reject a change. Return the change, None if it does not exist, or the refusal CHANGE_ENDED."""
        async with self._pool.acquire() as connection, connection.transaction():
            change = await self._locked(connection, id_)
            if change is None or change.state is ChangeState.REJECTED:
                return change
            no = self._undecidable(change)
            return no or await self._decide(connection, change, ChangeState.REJECTED, checker, reason)

    async def expire_some(self) -> int:
        """Expire changes that were not decided in time, at most EXPIRED_AT_ONCE. Return their number."""
        rows = await self._pool.fetch(SQL["late_changes"], self._now() - APPROVE_WITHIN, EXPIRED_AT_ONCE)
        done = 0
        for row in rows:
            async with self._pool.acquire() as connection, connection.transaction():
                try:
                    change = await self._locked(connection, row["id"])
                except Tampered:
                    continue
                if change is not None and change.state is ChangeState.WAITING:
                    await self._decide(connection, change, ChangeState.EXPIRED, None)
                    done += 1
        return done

    def _undecidable(self, change: Change) -> Refusal | None:
        if change.state is not ChangeState.WAITING:
            return Refusal(Code.CHANGE_ENDED, f"the change is {change.state}")
        if change.made_at + APPROVE_WITHIN <= self._now():
            return Refusal(Code.CHANGE_ENDED, f"the change was not decided within {APPROVE_WITHIN.days} days")
        return None

    async def _locked(self, connection: AnyConnection, id_: UUID) -> Change | None:
        row = await connection.fetchrow(SQL["lock_change"], id_)
        return None if row is None else self._verified(row)

    async def _decide(
        self,
        connection: AnyConnection,
        change: Change,
        state: ChangeState,
        checker: str | None,
        reason: str | None = None,
    ) -> Change:
        new = msgspec.structs.replace(change, state=state, checker=checker, decided_at=self._now(), reason=reason)
        decided = state, checker, new.decided_at, reason
        await connection.execute(SQL["decide_change"], change.id, *decided, *self._seal(new))
        return new

    def _verified(self, row: asyncpg.Record) -> Change:
        if not self._macs.agrees(CHANGE, "change", row["id"], change_fields, row):
            raise Tampered("change", row["id"])
        fields: dict[str, Any] = {name: row[name] for name in Change.__struct_fields__}
        fields |= {"kind": ChangeKind(row["kind"]), "state": ChangeState(row["state"]), "body": row["body"].encode()}
        return Change(**fields)

    def _seal(self, change: Change) -> tuple[int, bytes]:
        return self._macs.rows.tag(
            CHANGE, change_fields({**msgspec.structs.asdict(change), "body": change.body.decode()})
        )


def _require_none(refusal: Refusal | None) -> None:
    """Raise Refused, which rolls the transaction back, if there is a refusal."""
    if refusal is not None:
        raise Refused(refusal)
