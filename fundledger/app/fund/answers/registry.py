"""Answers of the fund service about channels and changes: their types, and the conversion of rows to these types."""

from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers.structs import LeftOut, NextCursor
from fundledger.fund.model.bank_account import masked
from fundledger.fund.model.change import Change as StoredChange
from fundledger.fund.model.change import ChangeKind, ChangeState
from fundledger.fund.model.change_requests import Holiday
from fundledger.fund.model.channel import Channel as StoredChannel
from fundledger.fund.model.channel import ChannelState, Overdraft, PayoutMethod, RefundMethod
from fundledger.fund.model.requests import ChannelName, MerchantId, Region
from fundledger.fund.store.merchant_rows import MerchantEvent as StoredEvent
from fundledger.json_values import CurrencyCode, Id, Instant, Uuid, about, time_text


class Channel(msgspec.Struct):
    name: ChannelName
    currency: CurrencyCode
    bank_account: Annotated[Id, about("id of the channel's bank account in the account service")]
    payout: Annotated[
        str,
        about(
            "`http`: the service sends payouts; `file`: payouts are exported as files; `manual`: a person sends them",
            enum=list(get_args(PayoutMethod)),
        ),
    ]
    references_unique: Annotated[bool, about("each payment needs a `channel_ref`")]
    overdraft: Overdraft
    state: Annotated[str, about("a closed channel takes no withdrawals", enum=list(get_args(ChannelState)))]
    registered_by: Annotated[str, about("`the settings`, `the upgrade`, or the requester of the last change")]
    created_at: Instant
    refund: Annotated[str, about("the same for refunds; `payout`: as payouts", enum=list(get_args(RefundMethod)))]


class Channels(msgspec.Struct):
    channels: Annotated[list[Channel], about("by name and currency")]
    unverified: LeftOut | UnsetType = UNSET


class Change(msgspec.Struct):
    id: Uuid
    kind: Annotated[ChangeKind, about(enum=[str(kind) for kind in ChangeKind])]
    subject: Annotated[
        str,
        about(
            "what is changed: name and currency of a channel; a merchant; merchant, product and channel of a fee rule; "
            "a region; merchant of a payee and an id of the account"
        ),
    ]
    body: Annotated[msgspec.Raw, about("the requested change", type="object")]
    state: Annotated[ChangeState, about(enum=[str(state) for state in ChangeState])]
    maker: Annotated[str, about("the identity that requested the change")]
    made_at: Instant
    checker: Annotated[str, about("the identity that decided")] | UnsetType = UNSET
    decided_at: Instant | UnsetType = UNSET
    reason: Annotated[str, about("why the change was rejected")] | UnsetType = UNSET


class Changes(msgspec.Struct):
    changes: Annotated[list[Change], about("oldest first")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


class MerchantEvent(msgspec.Struct):
    version: Annotated[int, about("number of the event of this merchant", minimum=1)]
    what: Annotated[str, about(enum=["created", "changed", "fee_rule", "suspended", "resumed", "closing", "closed"])]
    changes: Annotated[msgspec.Raw, about("the changed members, each with its value before and after", type="object")]
    by: Annotated[str, about("the identity that requested it")]
    at: Instant
    approved_by: Annotated[str, about("the identity that approved it")] | UnsetType = UNSET
    why: str | UnsetType = UNSET
    change: Annotated[Uuid, about("id of the change that was approved")] | UnsetType = UNSET


class MerchantHistory(msgspec.Struct):
    id: MerchantId
    history: Annotated[list[MerchantEvent], about("oldest first")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


class Holidays(msgspec.Struct):
    region: Region
    days: Annotated[list[Holiday], about("days that differ from the rule of weekends, in order")]
    weekend: Annotated[list[str], about("days of the week that are no working days")]
    unverified: LeftOut | UnsetType = UNSET


def merchant_event(row: StoredEvent) -> MerchantEvent:
    return MerchantEvent(
        row.version,
        row.what,
        msgspec.Raw(row.body.encode()),
        row.by,
        time_text(row.at),
        UNSET if row.approved_by is None else row.approved_by,
        UNSET if row.why is None else row.why,
        UNSET if row.change is None else row.change,
    )


def channel(row: StoredChannel) -> Channel:
    return Channel(**{**msgspec.structs.asdict(row), "created_at": time_text(row.created_at)})


def change(row: StoredChange, *, full: bool = False) -> Change:
    """Return a change. Account numbers of payees are masked, unless `full`."""
    body = row.body if full or row.kind is not ChangeKind.PAYEE else _masked(row.body)
    return Change(
        row.id,
        row.kind,
        row.subject,
        msgspec.Raw(body),
        row.state,
        row.maker,
        time_text(row.made_at),
        UNSET if row.checker is None else row.checker,
        UNSET if row.decided_at is None else time_text(row.decided_at),
        UNSET if row.reason is None else row.reason,
    )


def _masked(body: bytes) -> bytes:
    members = msgspec.json.decode(body)
    numbers = {name: masked(members[name]) for name in ("iban", "account") if members.get(name)}
    return msgspec.json.encode({**members, **numbers})
