"""Model of the fund service: changes under dual control of rows that are no orders. Pure."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class ChangeKind(StrEnum):
    """The subject of a change."""

    CHANNEL = "channel"
    MERCHANT = "merchant"
    FEE_RULE = "fee_rule"
    HOLIDAYS = "holidays"
    PAYEE = "payee"


class ChangeState(StrEnum):
    """The state of a change. All states but `waiting` are final."""

    WAITING = "waiting"
    APPLIED = "applied"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Change(msgspec.Struct):
    """A row of fund.changes. `body` is JSON. `maker` and `checker` are identities. `reason`: why the change was
    rejected. `seq` gives the sequence of lists, and is 0 before the insert.
    """

    id: UUID
    kind: ChangeKind
    subject: str
    body: bytes
    state: ChangeState
    maker: str
    made_at: datetime
    checker: str | None = None
    decided_at: datetime | None = None
    reason: str | None = None
    seq: int = 0
