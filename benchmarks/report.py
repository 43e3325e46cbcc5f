"""Report of a benchmark: the printed text and the JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure
from benchmarks.plot import svg
from benchmarks.runs import Run, median_rate
from benchmarks.session import Session

_MET = {True: "yes", False: "NO", None: ""}


def text(session: Session, facts: dict[str, Any]) -> str:
    parts = [
        *(page.text for page in session.pages),
        table(("scenario", "", "vouchers/s", "p50 ms", "p99 ms", "errors"), list(_run_rows(session))),
        table(("figure", "measured", "floor", "met"), [_figure_row(figure) for figure in session.figures]),
        table(("books", "vouchers", "acknowledged", "in flight at most", "verify s", "ok"), list(_proof_rows(session))),
    ]
    # Print each reason once, because all figures of a run have the same reason.
    reasons = {f"no verdict on {f.name.rpartition(':')[0]}: {f.no_verdict}": 0 for f in session.figures if f.no_verdict}
    against = [*reasons, *(f"books of {name}: {proof.why}" for name, proof in session.proofs.items() if proof.why)]
    shown = ("cores", "memory_mb", "python", "postgres", "wrk", "fdatasync_p50_us", "load_average_1_min", "commit")
    machine = ", ".join(f"{name} {facts[name]}" for name in shown)
    return "\n\n".join(part for part in [*parts, "\n".join([*against, *session.notes]), machine] if part)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with columns of minimal width; columns of numbers are right-aligned."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(w) if not _numeric(rows, i) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write_json(session: Session, facts: dict[str, Any], started_at: datetime, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-{started_at:%Y%m%dT%H%M%SZ}.json"
    if session.runs:
        path.with_suffix(".svg").write_text(svg(session.runs))
    for page in session.pages:
        for name, drawing in page.drawings.items():
            path.with_name(f"{path.stem}-{name}.svg").write_text(drawing)
    path.write_text(json.dumps(_members(session, facts, started_at), indent=1, default=str) + "\n")
    return path


def _members(session: Session, facts: dict[str, Any], started_at: datetime) -> dict[str, Any]:
    return {
        "started_at": started_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "plan": {**asdict(session.plan), "only": sorted(session.plan.only)},
        "machine": facts,
        "runs": [
            {"scenario": scenario, "contender": contender, "rate": run.rate, **asdict(run)}
            for scenario, by_contender in session.runs.items()
            for contender, runs in by_contender.items()
            for run in runs
        ],
        "pages": {page.name: page.members for page in session.pages},
        "figures": [{**asdict(figure), "met": figure.met} for figure in session.figures],
        "proofs": {name: asdict(proof) for name, proof in session.proofs.items()},
        "notes": session.notes,
        "ok": not session.failed,
    }


def _run_rows(session: Session) -> list[tuple[str, ...]]:
    rows = []
    for scenario, by_contender in session.runs.items():
        shown = scenario
        for contender, runs in by_contender.items():
            rows.append((shown, contender, *_run_cells(runs)))
            shown = ""
    return rows


def _run_cells(runs: Sequence[Run]) -> tuple[str, ...]:
    errors = sum(run.errors for run in runs)
    p50, p99 = median(run.p50_ms for run in runs), median(run.p99_ms for run in runs)
    return f"{median_rate(runs):,.0f}", f"{p50:.2f}", f"{p99:.2f}", str(errors)


def _figure_row(figure: Figure) -> tuple[str, ...]:
    spread = f" ({figure.spread[0]:.2f} to {figure.spread[1]:.2f})" if figure.spread else ""
    measured = "no verdict" if figure.no_verdict else f"{figure.measured:.2f} {figure.unit}{spread}"
    return figure.name, measured, "" if figure.floor is None else f"{figure.floor} {figure.unit}", _MET[figure.met]


def _proof_rows(session: Session) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{p.vouchers:,}",
            f"{p.acknowledged:,}",
            f"{p.in_flight_max:,}",
            f"{p.elapsed_s:.1f}",
            "yes" if p.ok else "NO",
        )
        for name, p in session.proofs.items()
    ]


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column][:1].isdigit() for row in rows)
