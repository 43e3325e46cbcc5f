"""Store of the fund service: the registry of channels, with the cache of each worker.

A worker reads all channels every LOOK_EVERY_S seconds. If a request names a channel that the cache lacks, the worker
reads all channels again, at most once in MISS_EVERY_S. So an unknown channel costs little. A channel whose row does not
match its MAC permits no order.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fundledger.fund.model import accounts
from fundledger.fund.model.change import Change
from fundledger.fund.model.channel import SETTINGS, UPGRADE, Channel, ChannelPatch, ChannelRequest
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.mac_layouts import CHANNEL, channel_fields
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.queries import SQL
from fundledger.settings import SIMULATOR

LOOK_EVERY_S: Final = 1.0
MISS_EVERY_S: Final = 0.1
Key = tuple[str, str]
_decode_new = msgspec.json.Decoder(ChannelRequest).decode
_decode_patch = msgspec.json.Decoder(ChannelPatch).decode


class Channels:
    """The channels of the fund database, with the cache of one worker. Methods raise what asyncpg raises.

    `automatic`: channels that are registered for a currency when they are first used, because the settings name them.
    The value is `references_unique` of the channel.
    """

    def __init__(self, pool: Any, macs: OrderMacs, automatic: Mapping[str, bool]) -> None:
        self._pool = pool
        self._macs = macs
        self._automatic = automatic
        self._known: dict[Key, Channel] = {}
        self._tampered: set[Key] = set()
        self._looked_at = -MISS_EVERY_S
        self._looking: asyncio.Task[None] | None = None

    def known(self, name: str, currency: str) -> Channel | None:
        """Return a channel from the cache. Never waits."""
        return self._known.get((name, currency))

    def __len__(self) -> int:
        """Return the number of channels in the cache."""
        return len(self._known)

    @property
    def names(self) -> set[str]:
        """The names of the channels in the cache, and of those that the settings name."""
        return {name for name, _ in self._known} | set(self._automatic)

    async def find(self, name: str, currency: str) -> Channel | None:
        """Return a channel, read through the cache. Raises Tampered."""
        key = name, currency
        if key not in self._known and time.monotonic() - self._looked_at > MISS_EVERY_S:
            await self._look_once()
        if key in self._tampered:
            raise Tampered("channel", f"{name} {currency}")
        return self._known.get(key)

    async def get(self, name: str, currency: str) -> Channel | None:
        """Return a channel, read through the cache. Register a channel that the settings name. Raises Tampered."""
        found = await self.find(name, currency)
        if found is None and name in self._automatic:
            new = _new(ChannelRequest(name, currency, "http", self._automatic[name], None), SETTINGS)
            await _insert(self._pool, self._macs, new)
            await self.look()
            found = self.known(name, currency)
        return found

    async def _look_once(self) -> None:
        """Read all channels. Concurrent calls share one read."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self.look())
        await asyncio.shield(self._looking)

    async def watch(self) -> None:
        """Repeat until cancelled: read all channels. May be restarted after an exception."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read all channels into the cache."""
        began = time.monotonic()
        found, tampered = await read_channels(self._pool, self._macs)
        if began < self._looked_at:
            # A read that began later has ended already. This one may have the terms of a channel before its change.
            return
        self._known = {(channel.name, channel.currency): channel for channel in found}
        self._tampered = tampered
        self._looked_at = began

    async def apply(self, connection: Any, change: Change) -> Refusal | None:
        """Apply an approved change of a channel, in the transaction that records the approval. Raises Tampered."""
        name, _, currency = change.subject.partition(" ")
        row = await connection.fetchrow(SQL["lock_channel"], name, currency)
        if row is not None and not self._macs.agrees(CHANNEL, "channel", change.subject, channel_fields, row):
            raise Tampered("channel", change.subject)
        if "name" in msgspec.json.decode(change.body):
            if row is not None:
                return exists(name, currency)
            new = _new(_decode_new(change.body), change.maker)
            return None if await _insert(connection, self._macs, new) else exists(name, currency)
        if row is None:
            return Refusal(Code.CHANNEL_NOT_FOUND, f"there is no channel {change.subject}", "name")
        patch = _decode_patch(change.body)
        given = {name: value for name in _PATCHED if (value := getattr(patch, name)) is not msgspec.UNSET}
        new = msgspec.structs.replace(_channel(row), **given, registered_by=change.maker)
        changed = new.payout, new.references_unique, new.overdraft, new.state, new.registered_by
        await connection.execute(SQL["change_channel"], name, currency, *changed, *_seal(self._macs, new), new.refund)
        return None


_PATCHED: Final = ("payout", "references_unique", "overdraft", "refund", "state")


def exists(name: str, currency: str) -> Refusal:
    """Return the refusal of a new channel that is registered already."""
    return Refusal(Code.CHANNEL_EXISTS, f"channel {name} is registered for {currency}", "name")


def automatic(names: Collection[str]) -> dict[str, bool]:
    """Return the channels that the settings name, with `references_unique`. The simulator has no unique references."""
    return {name: name != SIMULATOR for name in names}


async def read_channels(connection: Any, macs: OrderMacs) -> tuple[list[Channel], set[Key]]:
    """Return `(channels that match their MACs, names and currencies of the others)`. Reports the others."""
    rows = await connection.fetch(SQL["read_channels"])
    found, bad = [], set[Key]()
    for row in rows:
        key = row["name"], row["currency"]
        if macs.agrees(CHANNEL, "channel", " ".join(key), channel_fields, row):
            found.append(_channel(row))
        else:
            bad.add(key)
    return found, bad


async def register_used(connection: Any, macs: OrderMacs) -> None:
    """Register the channels of existing orders, so that an upgrade refuses nothing. Call this in the transaction of the
    migration that created the registry. A person made the refunds of the earlier version.
    """
    for name, currency in await connection.fetch(SQL["used_channels"]):
        await _insert(connection, macs, _new(ChannelRequest(name, currency, "http", False, None, "manual"), UPGRADE))


def _new(request: ChannelRequest, by: str) -> Channel:
    account = accounts.bank(request.name, request.currency)
    terms = request.payout, request.references_unique, request.overdraft
    return Channel(request.name, request.currency, account, *terms, "open", by, datetime.now(UTC), request.refund)


async def _insert(connection: Any, macs: OrderMacs, channel: Channel) -> bool:
    """Insert a channel. Return False if the channel exists."""
    columns = *msgspec.structs.astuple(channel), *_seal(macs, channel)
    return await connection.fetchval(SQL["write_channel"], *columns) is not None


def _seal(macs: OrderMacs, channel: Channel) -> tuple[int, bytes]:
    return macs.rows.tag(CHANNEL, channel_fields(msgspec.structs.asdict(channel)))


def _channel(row: Any) -> Channel:
    return Channel(*(row[name] for name in Channel.__struct_fields__))
