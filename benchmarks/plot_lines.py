"""Line charts of benchmark results over load steps, one line per series."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchmarks.plot import COLOURS

LEFT, TOP, WIDE, HIGH, RIGHT, FOOT = 70, 34, 560, 260, 150, 40
KEY: Final = LEFT + WIDE + 10
MARKS: Final = 5


def lines(
    title: str, steps: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str, *, log: bool = False
) -> str:
    """Return an SVG. `series[name][i]` is the value at `steps[i]`; a value of None is left out. `log` makes the scale
    of the values logarithmic.
    """
    values = [value for of in series.values() for value in of if value is not None and (value > 0 or not log)]
    high, low = max(values, default=1.0) or 1.0, min(values, default=1.0) if log else 0.0
    if log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high * 1.01))

    def across(number: int) -> float:
        return LEFT + WIDE * (number + 0.5) / max(len(steps), 1)

    def up(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else value / high
        return TOP + HIGH * (1 - share)

    parts = [f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>']
    for mark in _marks(low, high, log=log):
        y = up(mark)
        parts += [
            f'<line x1="{LEFT}" x2="{LEFT + WIDE}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:g} {escape(unit)}</text>',
        ]
    for number, step in enumerate(steps):
        x = across(number)
        parts.append(f'<text x="{x:.1f}" y="{TOP + HIGH + 18}" text-anchor="middle">{escape(step)}</text>')
    for number, (name, of) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        dash = "" if number < len(COLOURS) else ' stroke-dasharray="5 3"'
        points = [(across(i), up(v)) for i, v in enumerate(of) if v is not None and (v > 0 or not log)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = TOP + 14 * number
        parts += [
            f'<line x1="{KEY}" x2="{KEY + 20}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>',
            f'<text x="{KEY + 26}" y="{y + 4}">{escape(name)}</text>',
        ]
    size = f'width="{LEFT + WIDE + RIGHT}" height="{TOP + HIGH + FOOT}" font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{"".join(parts)}</svg>\n'


def _marks(low: float, high: float, *, log: bool) -> list[float]:
    if log:
        return [low * 10.0**power for power in range(round(math.log10(high / low)) + 1)]
    return [high * number / MARKS for number in range(MARKS + 1)]
