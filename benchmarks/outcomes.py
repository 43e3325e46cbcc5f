"""Counts of the outcomes of benchmark requests, and the fairness of the outcomes among merchants."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.mixed_loop import BROKEN, HUNG_UP, NEVER_SENT, Answer
from benchmarks.runs import percentile


@dataclass(frozen=True)
class Outcomes:
    """Counts of outcomes. `gave_up` counts requests whose client gave up or whose connection broke.

    Latencies are those of successful responses, None if there were no successful responses.
    """

    offered: int
    well: int
    limited_429: int
    shed_503: int
    gave_up: int
    other: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def share_well(self) -> float:
        return self.well / self.offered if self.offered else 0.0


def outcomes_of(answers: Iterable[Answer]) -> Outcomes:
    offered = well = limited = shed = gave_up = 0
    took: list[int] = []
    for answer in answers:
        offered += 1
        if answer.well:
            well += 1
            took.append(answer.took_ns)
        limited += answer.status == 429
        shed += answer.status == 503
        gave_up += answer.status in (BROKEN, HUNG_UP, NEVER_SENT)
    took.sort()
    p50, p99 = (percentile(took, share) / 1e6 if took else None for share in (0.5, 0.99))
    return Outcomes(offered, well, limited, shed, gave_up, offered - well - limited - shed - gave_up, p50, p99)


def jain(shares: Sequence[float]) -> float:
    """Return Jain's fairness index of n shares (Jain, Chiu, Hawe 1984): 1 if all are equal, 1/n if one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def served_shares(answers: Iterable[Answer], merchants: Iterable[int]) -> list[float]:
    """Return for each merchant the share of its requests that were successful. Merchants without requests
    are left out.
    """
    offered: dict[int, int] = {}
    well: dict[int, int] = {}
    for answer in answers:
        offered[answer.merchant] = offered.get(answer.merchant, 0) + 1
        well[answer.merchant] = well.get(answer.merchant, 0) + answer.well
    return [well[number] / offered[number] for number in merchants if number in offered]
