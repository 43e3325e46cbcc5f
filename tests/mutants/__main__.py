"""Mutation tests, `python -m tests.mutants`: make mutants, run the tests of their targets, and print the score.

Exit code 0: every area has its minimum score. Exit code 1: an area has not, or accepted.toml has an unknown mutant.
"""

import argparse
import dataclasses
import hashlib
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.mutants.mutant import Mutant
from tests.mutants.report import report_of
from tests.mutants.run import Result, Run
from tests.mutants.selection import files_of, mutants_of, read_accepted, read_targets

ROOT = Path(__file__).parents[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Mutation tests of SQL and of the pure core."
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATH", help="files or folders, as fundledger/fund/model/fees.py"
    )
    parser.add_argument("--budget", type=float, metavar="S", help="begin no mutant after so many seconds")
    parser.add_argument("--sample", type=int, metavar="N", help="so many mutants, chosen by a fixed seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result there, also while running")
    parser.add_argument(
        "--resume", action="store_true", help="with --json: keep the results of files that have not changed"
    )
    parser.add_argument("--again", action="store_true", help="with --resume: but run the survivors anew")
    parser.add_argument(
        "--tests",
        nargs="+",
        default=[],
        metavar="FILE",
        help="run these tests instead of those that targets.toml names",
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    return parser.parse_args()


class Results:
    """Results by key of mutant, stored in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.by_key: dict[str, Result] = {}
        self._sources: dict[str, str] = {}

    def resume(self, mutants: list[Mutant], *, again: bool) -> None:
        if self._path is None or not self._path.exists():
            return
        known: dict[str, dict[str, Any]] = json.loads(self._path.read_text())
        for mutant in mutants:
            result = known.get(mutant.key)
            if result and result["source"] == _hash(mutant.source) and not (again and result["status"] == "survived"):
                self.add(mutant, Result(result["status"], result["by"], result["seconds"]))

    def add(self, mutant: Mutant, result: Result) -> None:
        self.by_key[mutant.key] = result
        self._sources[mutant.key] = _hash(mutant.source)

    def write(self) -> None:
        if self._path is None:
            return
        rows = {
            key: {"status": result.status, "by": result.by, "seconds": result.seconds, "source": self._sources[key]}
            for key, result in self.by_key.items()
        }
        self._path.write_text(json.dumps(rows, indent=1))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends and its folder is deleted
    start = time.monotonic()
    targets, accepted = read_targets(), read_accepted()
    files = files_of(ROOT, arguments.only)
    mutants = list(mutants_of(ROOT, files))
    if arguments.list:
        print("\n".join(mutant.key for mutant in mutants))
        return 0
    if arguments.sample:
        mutants = sorted(random.Random(0).sample(mutants, min(arguments.sample, len(mutants))), key=mutants.index)
    results = Results(arguments.json)
    if arguments.resume:
        results.resume(mutants, again=arguments.again)
    left = [mutant for mutant in mutants if mutant.key not in results.by_key]
    if left:
        with Run(ROOT) as run:
            _run(run, left, results, None if arguments.budget is None else start + arguments.budget, arguments.tests)
    results.write()
    if arguments.sample:  # an accepted mutant outside the sample still exists
        accepted = {mutant.key: accepted[mutant.key] for mutant in mutants if mutant.key in accepted}
    report = report_of(mutants, results.by_key, accepted, targets)
    print(report.text)
    print(f"\n{len(mutants)} mutants, {len(left)} of them run now or invalid, in {time.monotonic() - start:.0f} s")
    return 1 if report.problems else 0


def _run(run: Run, left: list[Mutant], results: Results, end: float | None, only_tests: list[str]) -> None:
    targets = read_targets()
    if only_tests:
        targets = dataclasses.replace(targets, tests=[("", only_tests)], slow=[])
    files = list(dict.fromkeys(mutant.file for mutant in left))
    # The tests of one group of targets run at a time, so that a budget that ends early has judged the first groups
    # completely.
    groups: dict[tuple[str, ...], list[str]] = {}
    for file in files:
        groups.setdefault(tuple(targets.tests_of(file)), []).append(file)
    for tests, of_group in groups.items():
        if end is not None and time.monotonic() > end:
            break
        print(f"# {' '.join(tests)}", flush=True)
        mutants = [mutant for mutant in left if mutant.file in of_group]
        with run.group(list(tests)) as group:
            baseline = group.baseline([file for file in of_group if file.endswith(".py")])
            invalid = run.invalid(mutants)
            for mutant in mutants:
                if end is not None and time.monotonic() > end:
                    break
                result = Result("invalid")
                if mutant.key not in invalid:
                    chosen = baseline.tests_of(mutant, list(tests))
                    seconds = sum(baseline.tests[test][0] for test in chosen)
                    result = run.mutant(group, mutant, chosen, seconds, targets.slow_tests_of(mutant.file))
                results.add(mutant, result)
                results.write()
                print(f"{result.status:8} {result.seconds:6.1f} s {mutant.key} ({result.by})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
