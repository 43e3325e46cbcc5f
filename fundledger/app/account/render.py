"""JSON of the account service's vouchers, holds and accounts. Equal records give equal bytes, also in a replay."""

from datetime import date
from typing import Any

import msgspec

from fundledger.app.account.problems import refusal_members
from fundledger.app.http.bodies.json_values import exactly, time_text
from fundledger.app.http.wire.reply import encode
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Status
from fundledger.ledger.model.hold import Hold, HoldStatus
from fundledger.ledger.model.voucher import Record
from fundledger.ledger.store.accounts import AccountView

STATUS_NAMES = {
    Status.OPEN: "open",
    Status.FROZEN_DEBITS: "frozen",
    Status.FROZEN_ALL: "frozen",
    Status.CLOSED: "closed",
    Status.FROZEN_INTEGRITY: "frozen",
}
_last_instant = (-1, "")
_last_status: tuple[int, date, str, str] = (-1, date.min, "", "")


def instant(us: int) -> str:
    """Return RFC 3339 text with microseconds, UTC. The last text is cached, since a batch has one time."""
    global _last_instant  # noqa: PLW0603 - see above
    if _last_instant[0] != us:
        _last_instant = (us, time_text(clock.moment(us)))
    return _last_instant[1]


def voucher(record: Record) -> bytes:
    """Return a posted voucher as JSON, for the first answer and for every replay. Ids and types need no escaping."""
    entries = ",".join(
        [
            f'{{"account":"{account.id}","side":"credit","amount":{amount}}}'
            if amount > 0
            else f'{{"account":"{account.id}","side":"debit","amount":{-amount}}}'
            for account, amount in record.lines
        ]
    )
    reference = "null" if record.reference is None else encode(record.reference).decode()
    more = ""
    if record.hold is not None:
        more += f',"hold":"{record.hold}"'
    if record.reverses is not None:
        more += f',"reverses":"{record.reverses}"'
    if record.metadata is not None:
        more += f',"metadata":{record.metadata}'
    return (
        f'{{"id":"{record.id}","type":"{record.type}",{_status(record)},"entries":[{entries}],"reference":{reference}{more}}}'
    ).encode()


def _status(record: Record) -> str:
    """Return the members for posting time and module. The last members are cached, as in `instant`."""
    global _last_status  # noqa: PLW0603 - see above
    us, date_, module, members = _last_status
    if us != record.posted_at_us or module != record.module or date_ != record.accounting_date:
        us, date_, module = record.posted_at_us, record.accounting_date, record.module
        members = f'"status":"posted","posted_at":"{instant(us)}","accounting_date":"{date_}","module":"{module}"'
        _last_status = (us, date_, module, members)
    return members


def voucher_members(record: Record, reversed_by: object | None) -> dict[str, Any]:
    """Return the members of a voucher for GET: includes its reversal, and the problem of a refused voucher."""
    members: dict[str, Any] = msgspec.json.decode(voucher(record))
    if record.refusal is not None:
        members["status"] = "refused"
        members["problem"] = refusal_members(record.refusal)
    if reversed_by is not None:
        members["reversed_by"] = str(reversed_by)
    return members


def hold(hold_: Hold, now_us: int) -> bytes:
    status = HoldStatus.EXPIRED if hold_.expired_at(now_us) else hold_.status
    members: dict[str, Any] = {
        "id": hold_.id,
        "module": hold_.module,
        "account": hold_.account.id,
        "amount": hold_.amount,
        "captured": hold_.captured,
        "status": status.name.lower(),
        "created_at": time_text(clock.moment(hold_.created_at_us)),
        "expires_at": time_text(clock.moment(hold_.expires_at_us)) if hold_.expires_at_us else None,
        "ended_at": time_text(clock.moment(hold_.ended_at_us)) if hold_.ended_at_us else None,
        "voucher_id": None if hold_.voucher_id is None else str(hold_.voucher_id),
    }
    if hold_.refusal is not None:
        members["problem"] = refusal_members(hold_.refusal)
    return encode(members)


def placed_hold(hold_: Hold) -> bytes:
    """Return a hold as JSON in its first state, ignoring later changes."""
    first = msgspec.structs.replace(hold_, captured=0, status=HoldStatus.OPEN, voucher_id=None, ended_at_us=0)
    return hold(first, 0)


def account(view: AccountView) -> bytes:
    members: dict[str, Any] = {
        "id": view.account.id,
        "module": view.module,
        "owner": view.owner,
        "type": view.account.type.name,
        "currency": view.account.currency,
        "status": STATUS_NAMES[view.status],
        "balance": exactly(
            {"posted": view.posted, "held": view.held, "pending": view.pending, "available": view.available}
        ),
        "version": view.version,
        "sub_accounts": view.sub_accounts,
        "heat": view.heat,
        "posting": "buffered" if view.account.buffered else "direct",
        "created_at": time_text(view.created_at),
    }
    if view.metadata is not None:
        members["metadata"] = msgspec.Raw(view.metadata.encode())
    if view.status in (Status.FROZEN_ALL, Status.FROZEN_INTEGRITY):
        members["frozen_scope"] = "all"
    return encode(members)
