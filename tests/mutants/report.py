"""The report of a mutation run: counts by file and area, survivors, and the verdict."""

import dataclasses
from collections.abc import Iterable

from tests.mutants.mutant import Mutant
from tests.mutants.run import Result
from tests.mutants.selection import Targets


@dataclasses.dataclass
class Count:
    killed: int = 0
    survived: int = 0
    accepted: int = 0
    invalid: int = 0
    not_run: int = 0

    @property
    def score(self) -> float | None:
        """Return the score of the mutants that ran, are valid and are not accepted; None if there are none."""
        judged = self.killed + self.survived
        return self.killed / judged if judged else None

    def add(self, result: Result, *, accepted: bool) -> None:
        name = "accepted" if accepted and result.status == "survived" else result.status.replace(" ", "_")
        setattr(self, name, getattr(self, name) + 1)

    def row(self, name: str) -> str:
        score = "" if self.score is None else f"{self.score:.1%}"
        return f"| {name} | {self.killed} | {self.survived} | {self.accepted} | {self.invalid} | {self.not_run} | {score} |"


HEADER = "| {} | killed | survived | accepted | invalid | not run | score |\n|---|---|---|---|---|---|---|"


@dataclasses.dataclass
class Report:
    text: str
    problems: list[str]


def report_of(
    mutants: Iterable[Mutant], results: dict[str, Result], accepted: dict[str, str], targets: Targets
) -> Report:
    """Return the report of the chosen files. `results` are by key of mutant; a mutant without a result was not run."""
    files: dict[str, Count] = {}
    areas: dict[str, Count] = {}
    survivors: list[str] = []
    existing: set[str] = set()
    for mutant in mutants:
        existing.add(mutant.key)
        result = results.get(mutant.key, Result("not run"))
        for name, counts in ((mutant.file, files), (targets.area_of(mutant.file), areas)):
            counts.setdefault(name, Count()).add(result, accepted=mutant.key in accepted)
        if result.status == "survived" and mutant.key not in accepted:
            survivors.append(f"  {mutant.file}:{mutant.line} {mutant.operator}: {mutant.mutated} ({result.by})")
    problems = [
        f"accepted.toml names a mutant that does not exist: {key}"
        for key in accepted
        if key.partition(" | ")[0] in files and key not in existing
    ]
    for name, count in areas.items():
        minimum = targets.areas[name][1]
        if count.score is not None and count.score < minimum:
            problems.append(f"{name}: a score of {count.score:.1%}, less than {minimum:.0%}")
    lines = [HEADER.format("file"), *(count.row(name) for name, count in sorted(files.items()))]
    lines += ["", HEADER.format("area"), *(count.row(name) for name, count in sorted(areas.items()))]
    if survivors:
        lines += ["", "Survivors:", *survivors]
    return Report("\n".join([*lines, "", *problems]).rstrip(), problems)
