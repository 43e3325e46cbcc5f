"""Bar charts of benchmark rates: a group of bars for each scenario, a bar for each contender, a line for its spread."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchmarks.runs import Run, median_rate

BAR, GAP, LEFT, WIDE, RIGHT = 16, 14, 170, 620, 110
COLOURS: Final = ("#8a8f98", "#3b6fb6", "#2a9d8f", "#e9a23b", "#7d5ba6", "#c8553d")


def svg(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """Return an SVG with all scenarios, each on its own scale, in vouchers per second."""
    parts: list[str] = []
    y = GAP
    for scenario, by_contender in runs.items():
        y += BAR
        parts.append(f'<text x="8" y="{y - 4}" font-weight="bold">{escape(scenario)}</text>')
        most = max((run.rate for of in by_contender.values() for run in of), default=0.0) or 1.0
        for number, (contender, of) in enumerate(by_contender.items()):
            rates = [run.rate for run in of] or [0.0]
            middle = median_rate(of) if of else 0.0
            colour = COLOURS[number % len(COLOURS)]
            length, least, greatest = (WIDE * rate / most for rate in (middle, min(rates), max(rates)))
            line = f'x1="{LEFT + least:.1f}" x2="{LEFT + greatest:.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}"'
            parts += [
                f'<text x="{LEFT - 6}" y="{y + BAR - 4}" text-anchor="end">{escape(contender)}</text>',
                f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{BAR - 4}" fill="{colour}"/>',
                f'<line {line} stroke="black"/>',
                f'<text x="{LEFT + greatest + 6:.1f}" y="{y + BAR - 4}">{middle:,.0f}/s</text>',
            ]
            y += BAR
        y += GAP
    size = f'width="{LEFT + WIDE + RIGHT}" height="{y}" font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{"".join(parts)}</svg>\n'
