"""Result figures of a benchmark, and the limits (floors) that the figures have to meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.runs import OpenRun, Run, ratios


@dataclass(frozen=True)
class Floor:
    """Limit of a figure: a maximum if `at_most` is True, otherwise a minimum."""

    value: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.value:g}"


RATE_FLOOR = Floor(0.85)
NAIVE_FLOOR = Floor(10)
BULK_FLOOR = Floor(0.75)
SINGLE_FLOOR = Floor(1.3, at_most=True)
TAIL_FLOOR = Floor(2, at_most=True)
MEMORY_FLOOR = Floor(250, at_most=True)
START_FLOOR = Floor(5, at_most=True)
LAG_FLOOR = Floor(500, at_most=True)
GROWTH_FLOOR = Floor(1.25, at_most=True)


@dataclass(frozen=True)
class Figure:
    """A result. `measured` is the median of the values, `spread` their minimum and maximum. `no_verdict` is the reason
    why the result is not conclusive, None if it is.
    """

    name: str
    measured: float
    unit: str
    floor: Floor | None = None
    spread: tuple[float, float] | None = None
    no_verdict: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the limit is met; None if there is no limit or no verdict."""
        if self.floor is None or self.no_verdict is not None:
            return None
        return self.measured <= self.floor.value if self.floor.at_most else self.measured >= self.floor.value


def median_figure(name: str, values: Sequence[float], unit: str, floor: Floor | None, runs: Sequence[Run]) -> Figure:
    """Return the figure for the median of `values`, one for each run or for each pair of runs. If one of `runs` has
    errors, the figure has no verdict.
    """
    if not values:
        return Figure(name, 0.0, unit, floor, None, "nothing was measured")
    errors = sum(run.errors for run in runs)
    against = f"{errors} requests failed" if errors else None
    return Figure(name, median(values), unit, floor, (min(values), max(values)), against)


def rate_figure(name: str, above: Sequence[Run], below: Sequence[Run], floor: Floor | None = None) -> Figure:
    return median_figure(name, ratios(above, below), "x", floor, [*above, *below])


def tail_figure(name: str, runs: Sequence[Run]) -> Figure:
    return median_figure(name, [run.p99_ms / run.p50_ms for run in runs if run.p50_ms], "x", TAIL_FLOOR, runs)


def single_figure(service: Sequence[Run], bare: Sequence[Run]) -> Figure:
    name = "single connection: p50 / p50 of a bare insert and commit"
    values = [a.p50_ms / b.p50_ms for a, b in zip(service, bare, strict=True) if b.p50_ms]
    return median_figure(name, values, "x", SINGLE_FLOOR, service)


def open_figures(name: str, run: OpenRun) -> list[Figure]:
    shown = (("p50", run.p50_ms), ("p99", run.p99_ms), ("p99.9", run.p999_ms or 0.0), ("max", run.max_ms))
    against = run.no_verdict or (f"{run.errors} requests failed" if run.errors else None)
    return [Figure(f"{name}: {what}", value, "ms", no_verdict=against) for what, value in shown]
