"""Answers of the fund service about channels and changes: their types, and the conversion of rows to these types."""

from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers.structs import LeftOut, NextCursor
from fundledger.fund.model.change import Change as StoredChange
from fundledger.fund.model.change import ChangeKind, ChangeState
from fundledger.fund.model.channel import Channel as StoredChannel
from fundledger.fund.model.channel import ChannelState, Overdraft, PayoutMethod, RefundMethod
from fundledger.fund.model.requests import ChannelName
from fundledger.json_values import CurrencyCode, Id, Instant, Uuid, about, time_text


class Channel(msgspec.Struct):
    name: ChannelName
    currency: CurrencyCode
    bank_account: Annotated[Id, about("id of the channel's bank account in the account service")]
    payout: Annotated[
        str, about("`http`: the service sends payouts; else a person sends them", enum=list(get_args(PayoutMethod)))
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
    subject: Annotated[str, about("what is changed; for a channel its name and currency")]
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


def channel(row: StoredChannel) -> Channel:
    return Channel(**{**msgspec.structs.asdict(row), "created_at": time_text(row.created_at)})


def change(row: StoredChange) -> Change:
    return Change(
        row.id,
        row.kind,
        row.subject,
        msgspec.Raw(row.body),
        row.state,
        row.maker,
        time_text(row.made_at),
        UNSET if row.checker is None else row.checker,
        UNSET if row.decided_at is None else time_text(row.decided_at),
        UNSET if row.reason is None else row.reason,
    )
