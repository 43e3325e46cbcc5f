"""Command `fundledger bench`: starts the service, measures the service and baselines in one run, and proves the
service's books.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks import machine, report
from benchmarks.progress import Progress
from benchmarks.runs import BenchFault
from benchmarks.scenarios import NAMES, run_all
from benchmarks.session import Plan, Session
from benchmarks.wrk import choose_driver

OTHERS_MAX = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the service. Exit status: 0 ok, 1 wrong books or failed requests, 2 nothing could be measured."""
    options = _parser().parse_args(arguments)
    previous = signal.signal(signal.SIGTERM, _end)
    progress = Progress()
    started_at = datetime.now(UTC)
    root = Path(tempfile.mkdtemp(prefix="fundledger-bench-", dir=options.data_root))
    root.chmod(0o711)
    try:
        session = Session(_plan(options), progress, root)
        facts = machine.facts(root)
        processors = machine.Processors()
        run_all(session)
        facts["processor_share_of_others"] = round(processors.share_of_others(), 3)
    except BenchFault as fault:
        progress.say(f"fundledger bench: {fault}")
        return 2
    except KeyboardInterrupt:
        progress.say("fundledger bench: interrupted")
        return 130
    finally:
        shutil.rmtree(root, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)
    facts["postgres"] = session.postgres
    if facts["processor_share_of_others"] > OTHERS_MAX:
        others = f"{facts['processor_share_of_others']:.0%}"
        session.notes.append(
            f"other programs used {others} of the processors during the run: repeat it on an idle machine"
        )
    print(report.text(session, facts))
    print(f"\n{report.write_json(session, facts, started_at, options.out)}")
    return 1 if session.failed else 0


def _end(number: int, frame: FrameType | None) -> None:
    # The exception unwinds the stack, so that every started server is stopped.
    del number, frame
    sys.exit(143)


def _plan(options: argparse.Namespace) -> Plan:
    """Return the plan that the command line options request. Raises BenchFault if no run can satisfy the options."""
    if options.reference is not None and not options.reference.is_file():
        raise BenchFault(f"--reference {options.reference}: no such file")
    settings = dict(setting.split("=", 1) for setting in options.setting)
    long = options.long
    return Plan(
        frozenset(options.only),
        long,
        None if options.reference is None else options.reference.resolve(),
        choose_driver(options.driver),
        options.rounds or (5 if long else 3),
        options.seconds or (10 if long else 4),
        options.warm_up_seconds,
        options.open_seconds or (60 if long else 8),
        options.accounts,
        max(options.accounts, 1_000_000) if long else options.accounts,
        settings,
        options.unbounded,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fundledger bench", description=main.__doc__)
    parser.add_argument(
        "--long", action="store_true", help="longer runs, a million accounts, a ledger of 20,000,000 entries"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="SCRIPT", help="a reference server to compare with in the same run"
    )
    parser.add_argument("--only", action="append", default=[], choices=NAMES, help="run only this scenario; repeatable")
    parser.add_argument(
        "--driver",
        choices=("auto", "wrk", "own"),
        default="auto",
        help="driver of the closed loops; auto: wrk if installed",
    )
    parser.add_argument(
        "--unbounded",
        action="store_true",
        help="overload: do not slow down commits; the capacity is then the machine's",
    )
    parser.add_argument("--rounds", type=_positive, help="runs of each contender (3; long: 5)")
    parser.add_argument("--seconds", type=_seconds, help="length of one run (4; long: 10)")
    parser.add_argument("--open-seconds", type=_seconds, help="length of the open loop (8; long: 60)")
    parser.add_argument("--warm-up-seconds", type=_seconds, default=2, help="warm-up of each contender (2)")
    parser.add_argument(
        "--accounts", type=_positive, default=100_000, help="accounts of the uniform scenarios (100,000)"
    )
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="setting FUNDLEDGER_NAME of the service; repeatable",
    )
    parser.add_argument("--data-root", type=Path, help="parent of the data directories (the system's temporary folder)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks-out"), help="folder of the JSON report (benchmarks-out)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0.1")
    return number


def _setting(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=VALUE")
    return text
