"""Store of the fund service: the registry of payees. Two identities register a payee, through a change. One identity
disables it. A payee whose row does not match its MAC is not used.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from fundledger.fund.model.bank_account import masked
from fundledger.fund.model.change import Change
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.payee import PAYEES_MAX, Payee, PayeeRequest
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.mac_layouts import PAYEE, payee_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import AnyConnection, Connection, Pool
from fundledger.fund.store.queries import SQL

_decode = msgspec.json.Decoder(PayeeRequest).decode


class Payees:
    """The payees of the fund database. `cooling`: the time from the approval of a payee until it is usable. Methods
    raise Tampered, and what asyncpg raises.
    """

    def __init__(
        self,
        pool: Pool,
        macs: OrderMacs,
        ids: Ids,
        cooling: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._macs = macs
        self._ids = ids
        self._cooling = cooling
        self._now = now

    def subject(self, merchant: str, request: PayeeRequest) -> str:
        """Return the subject of the change that registers a payee. It shows the merchant, and not the account number.
        Two requests have the same subject if they name the same account of the same merchant.
        """
        named = request.currency, request.number, request.bank_code or ""
        return f"{merchant} {self._ids.payee(merchant, *named)}"

    async def refusal_of(self, connection: AnyConnection, merchant: str, request: PayeeRequest) -> Refusal | None:
        """Return why a payee cannot be registered, or None: PAYEE_EXISTS, PAYEE_NOT_FOUND for the payee to be replaced,
        TOO_MANY_PAYEES.
        """
        replaced = None
        if request.replaces is not None:
            replaced = await self.read(merchant, request.replaces, connection)
            if replaced is None or replaced.state != "active":
                detail = f"merchant {merchant} has no active payee {request.replaces}"
                return Refusal(Code.PAYEE_NOT_FOUND, detail, "replaces")
        row = await connection.fetchrow(
            SQL["payees_like"], merchant, request.currency, request.number, request.bank_code or "", request.replaces
        )
        assert row is not None
        if row["id"] is not None:
            detail = f"merchant {merchant} has the account {masked(request.number)} as payee {row['id']}"
            return Refusal(Code.PAYEE_EXISTS, detail, "iban" if request.iban else "account")
        if row["active"] >= PAYEES_MAX:
            return Refusal(Code.TOO_MANY_PAYEES, f"merchant {merchant} has {row['active']} active payees")
        return None

    async def apply(self, connection: Connection, change: Change) -> Refusal | None:
        """Register the payee of an approved change, in the transaction that records the approval. The payee gets the id
        of the change. A payee that it replaces is disabled.
        """
        merchant, request = change.subject.partition(" ")[0], _decode(change.body)
        # The lock of the merchant serializes the registrations of its payees.
        await connection.fetch(SQL["lock_merchants"], [merchant])
        no = await self.refusal_of(connection, merchant, request)
        if no is not None:
            return no
        at = self._now()
        if request.replaces is not None:
            await self._disable(connection, merchant, request.replaces, change.maker, f"replaced by {change.id}")
        number = request.iban, request.account, request.bank_code
        terms = request.currency, "active", change.maker, at, at + self._cooling
        payee = Payee(change.id, merchant, request.holder, *number, *terms, request.replaces)  # type: ignore[arg-type]
        columns = msgspec.structs.astuple(payee)[:12]
        await connection.execute(SQL["write_payee"], *columns, *_seal(self._macs, payee))
        return None

    async def read(self, merchant: str, id_: UUID, connection: "AnyConnection | None" = None) -> Payee | None:
        """Return a payee of a merchant, or None if the merchant has no payee with this id."""
        found, bad = await read_payees(connection or self._pool, self._macs, [id_])
        if id_ in bad:
            raise Tampered("payee", id_)
        payee = found.get(id_)
        return payee if payee is not None and payee.merchant == merchant else None

    async def page(self, merchant: str, after: int, limit: int) -> tuple[list[Payee], list[UUID], int]:
        """Return `(payees of a merchant after a seq, ids of payees that do not match their MACs, seq of the last row or
        0)`.
        """
        rows = await self._pool.fetch(SQL["list_payees"], merchant, after, limit)
        found, bad = _verified(self._macs, rows)
        good = [found[row["id"]] for row in rows if row["id"] in found]
        return good, [row["id"] for row in rows if row["id"] in bad], rows[-1]["seq"] if rows else 0

    async def disable(self, merchant: str, id_: UUID, by: str, why: str | None) -> Payee | None:
        """Disable a payee permanently, and return it. Return None if the merchant has no such payee. A repeated request
        returns the payee. Locks the payee.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            return await self._disable(connection, merchant, id_, by, why)

    async def _disable(
        self, connection: AnyConnection, merchant: str, id_: UUID, by: str, why: str | None
    ) -> Payee | None:
        row = await connection.fetchrow(SQL["lock_payee"], id_)
        if row is None:
            return None
        found, _ = _verified(self._macs, [row])
        if id_ not in found:
            raise Tampered("payee", id_)
        payee = found[id_]
        if payee.merchant != merchant:
            return None
        if payee.state == "disabled":
            return payee
        ended = {"disabled_at": self._now(), "disabled_by": by, "disabled_why": why}
        new = msgspec.structs.replace(payee, state="disabled", **ended)
        await connection.execute(SQL["disable_payee"], id_, *ended.values(), *_seal(self._macs, new))
        return new


async def read_payees(
    connection: AnyConnection, macs: OrderMacs, ids: Collection[UUID], *, share: bool = False
) -> tuple[dict[UUID, Payee], set[UUID]]:
    """Return `(payees that match their MACs, by id; ids of the others)`. Reports the others. `share`: lock the payees,
    so that none is disabled before the transaction ends. Raises what asyncpg raises.
    """
    if not ids:
        return {}, set()
    return _verified(macs, await connection.fetch(SQL["share_payees" if share else "read_payees"], sorted(ids)))


async def with_payees(connection: AnyConnection, merchants: Collection[str]) -> set[str]:
    """Return the merchants that have a payee, also a disabled one. Raises what asyncpg raises."""
    if not merchants:
        return set()
    return {row["merchant"] for row in await connection.fetch(SQL["merchants_with_payees"], sorted(merchants))}


def _verified(macs: OrderMacs, rows: Collection[Any]) -> tuple[dict[UUID, Payee], set[UUID]]:
    found: dict[UUID, Payee] = {}
    bad = set()
    for row in rows:
        if macs.agrees(PAYEE, "payee", row["id"], payee_fields, row):
            found[row["id"]] = Payee(*(row[name] for name in Payee.__struct_fields__))
        else:
            bad.add(row["id"])
    return found, bad


def _seal(macs: OrderMacs, payee: Payee) -> tuple[int, bytes]:
    row: Mapping[str, Any] = msgspec.structs.asdict(payee)
    return macs.rows.tag(PAYEE, payee_fields(row))
