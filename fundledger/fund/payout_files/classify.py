"""Payout files of the fund service: decide about the results of a file. Pure.

A result is recorded only if it names a payout of the file, with its amount, and nothing contradicts it. Every other
final result is a finding. A finding changes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from fundledger.fund.model.payout_file import Outcome, Result, ResultReport

SENT: Final = "sent"
NONE: Final = "none"
Said = tuple[str, int | None, str | None]
"""State, amount and currency of a result. Results of one payout that differ in these contradict each other."""


class Exported(msgspec.Struct, frozen=True):
    """A payout of a file. `reported`: its recorded result. `ending`: the recorded end of its withdrawal."""

    order: UUID
    amount: int
    currency: str
    reported: str | None = None
    ending: str | None = None

    @property
    def stands(self) -> str:
        return self.reported or self.ending or SENT


class Finding(msgspec.Struct, frozen=True):
    """A row of fund.channel_findings. `stands`: the recorded state. `says`: the report of the bank."""

    order: UUID
    stands: str
    says: str
    result: Result


class Decided(msgspec.Struct, frozen=True):
    """The outcomes of an import: `reports[i]` is that of `results[i]`. `recorded`: the results to record."""

    reports: list[ResultReport]
    recorded: list[Result]
    findings: list[Finding]


def decide(channel: str, results: Sequence[Result], payouts: Mapping[UUID, Exported]) -> Decided:
    """Return the outcomes of results. `payouts`: the payouts of the file."""
    said: dict[UUID, set[Said]] = {}
    for result in results:
        if result.order is not None and result.state != "pending":
            said.setdefault(result.order, set()).add((result.state, result.amount, result.currency))
    reports, recorded, findings, done = [], [], [], set[UUID]()
    for result in results:
        payout = None if result.order is None else payouts.get(result.order)
        outcome = _outcome(result, payout, said, done)
        if outcome == "recorded":
            assert payout is not None
            done.add(payout.order)
            recorded.append(result)
        found = _finding(channel, result, payout, outcome)
        if found is not None:
            findings.append(found)
        order = None if payout is None else payout.order
        reports.append(ResultReport(result.line, result.ref, result.state, outcome, result.amount, order))
    return Decided(reports, recorded, findings)


def _outcome(
    result: Result,
    payout: Exported | None,
    said: Mapping[UUID, set[Said]],
    done: set[UUID],
) -> Outcome:
    if payout is None:
        return "unknown"
    if result.state == "pending":
        return "pending"
    if result.amount not in (None, payout.amount) or result.currency not in (None, payout.currency):
        return "amount"
    if len(said[payout.order]) > 1 or payout.reported not in (None, result.state):
        return "contradictory"
    if payout.reported is not None or payout.order in done:
        return "repeated"
    return "recorded"


def _finding(channel: str, result: Result, payout: Exported | None, outcome: Outcome) -> Finding | None:
    if payout is None:
        return Finding(unknown_id(channel, result.ref), NONE, "unknown", result)
    match outcome:
        case "amount" | "repeated":
            return Finding(payout.order, payout.stands, outcome, result)
        case "contradictory":
            return Finding(payout.order, payout.stands, result.state, result)
        case "recorded" if payout.ending not in (None, result.state):
            # A front end has reported another end. The withdrawal keeps that end.
            return Finding(payout.order, payout.stands, result.state, result)
    return None


def unknown_id(channel: str, ref: str) -> UUID:
    """Return the id under which a finding about an unknown reference is stored."""
    return UUID(bytes=hashlib.sha256(f"{len(channel)}:{channel}{ref}".encode()).digest()[:16])
