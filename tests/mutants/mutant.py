"""A mutant: one small fault in one file, and the key that names it without a line number."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A mutant. `source` is the whole file with the fault; `where` names the function (Python only; "" outside
    functions).
    """

    file: str
    operator: str
    line: int
    mutated: str
    source: str
    where: str = ""
    number: int = 1

    @property
    def key(self) -> str:
        """Return a key that does not change with other lines. `number` distinguishes mutants with the same text."""
        return f"{self.file} | {self.operator} | {self.mutated}" + (f" #{self.number}" if self.number > 1 else "")


@dataclasses.dataclass(frozen=True)
class Edit:
    """A replacement of `source[start:end]` by `text`."""

    operator: str
    start: int
    end: int
    text: str
    where: str = ""


def applied(file: str, source: str, edits: list[Edit]) -> list[Mutant]:
    """Return the mutants of a file, ordered by place. Duplicates and edits that change nothing are left out."""
    seen = {source}
    counted: dict[tuple[str, str], int] = {}
    mutants = []
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        changed = source[: edit.start] + edit.text + source[edit.end :]
        if changed in seen:
            continue
        seen.add(changed)
        first = source.rfind("\n", 0, edit.start) + 1
        end_of_edit = edit.start + len(edit.text)
        last = changed.find("\n", end_of_edit)
        shown = re.sub(r"\s+", " ", changed[first : last if last >= 0 else len(changed)]).strip()
        if not shown:
            shown = "without " + re.sub(r"\s+", " ", source[edit.start : edit.end]).strip()
        number = counted[edit.operator, shown] = counted.get((edit.operator, shown), 0) + 1
        line = source.count("\n", 0, edit.start) + 1
        mutants.append(Mutant(file, edit.operator, line, shown, changed, edit.where, number))
    return mutants
