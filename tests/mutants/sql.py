"""Mutants of a statement file, by a tokenizer of its own: a mutant differs from its file only in the fault.

A condition is not removed, but made constant, `(a = $1 OR true)`: a parameter that occurs nowhere else keeps its type,
and the planner drops the rest. For the same reason a SET item becomes `CASE WHEN true THEN <the column> ELSE ... END`.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.mutants.mutant import Edit, Mutant, applied

_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<text>'(?:[^']|'')*'|\$\$.*?\$\$)|(?P<name>\"(?:[^\"]|\"\")*\"|\{[a-z]+\})"
    r"|(?P<parameter>\$\d+)|(?P<number>\d+(?:\.\d+)?)|(?P<word>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<operator>::|[-+*/<>=~!@#%^&|?]+)|(?P<mark>[(),;.:\[\]])",
    re.DOTALL,
)
_END_OF_CONDITION = frozenset(
    ("GROUP", "ORDER", "LIMIT", "OFFSET", "RETURNING", "UNION", "EXCEPT", "INTERSECT", "FOR", "WINDOW", "HAVING", "WHERE",
     "JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "THEN", "ELSE", "DO", "USING", "SET", ",", ";")
)  # fmt: skip
_END_OF_ORDER = frozenset(
    ("LIMIT", "OFFSET", "FOR", "UNION", "EXCEPT", "INTERSECT", "ROWS", "RANGE", "RETURNING", "FETCH", ";")
)
_END_OF_SET = frozenset({"FROM", "WHERE", "RETURNING", ";"})
_FLIPPED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "=": "<>", "<>": "=", "!=": "="}
_OTHER_FUNCTION = {"SUM": "max", "MIN": "max", "MAX": "min", "GREATEST": "least", "LEAST": "greatest"}
_KEYWORDS_BEFORE_A_SIGN = frozenset(
    ("SELECT", "THEN", "ELSE", "WHEN", "AND", "OR", "BY", "LIMIT", "RETURNING", "IN", "WHERE", "ON", "FOR", "FROM")
)


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text


def tokens_of(source: str) -> list[Token]:
    """Return the tokens without comments and blanks. `depth` counts brackets and CASE ... END. Raise ValueError at
    other text.
    """
    tokens: list[Token] = []
    depth = at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"cannot read SQL at {source[at : at + 20]!r}")
        kind, text = match.lastgroup, match.group()
        opens = text in "([" if kind == "mark" else text.upper() == "CASE"
        closes = text in ")]" if kind == "mark" else text.upper() == "END"
        depth -= closes and kind in ("mark", "word")
        if kind not in ("comment", "space"):
            tokens.append(Token(kind, text, at, match.end(), depth))
        depth += opens and kind in ("mark", "word")
        at = match.end()
    if depth:
        raise ValueError("brackets do not match")
    return tokens


def sql_mutants(file: str, source: str) -> list[Mutant]:
    """Yield the mutants of one statement file."""
    return applied(file, source, list(_Statement(source).edits()))


class _Statement:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokens_of(source)
        self._words = [token.word for token in self._tokens]
        self._connectives = self._find_connectives()
        self._assigned: set[int] = set()

    def edits(self) -> Iterator[Edit]:
        yield from self._set_items()  # first: it learns which `=` assign
        for at in range(len(self._tokens)):
            yield from self._conditions(at)
            yield from self._joins(at)
            yield from self._locks(at)
            yield from self._orders(at)
            yield from self._functions(at)
            yield from self._limits(at)
            yield from self._signs(at)

    # --- Places ---

    def _word(self, at: int) -> str:
        return self._words[at] if 0 <= at < len(self._words) else ""

    def _end(self, at: int, ends: frozenset[str]) -> int:
        """Return the first token after `at` that is not part of its clause."""
        depth = self._tokens[at].depth
        for i in range(at + 1, len(self._tokens)):
            token = self._tokens[i]
            called = self._word(i + 1) == "(" and token.word in ("LEFT", "RIGHT")
            if token.depth < depth or (token.depth == depth and token.word in ends and not called):
                return i
        return len(self._tokens)

    def _closing(self, at: int) -> int:
        depth = self._tokens[at].depth
        return next(i for i in range(at + 1, len(self._tokens)) if self._tokens[i].depth == depth)

    def _text(self, first: int, end: int) -> str:
        return self._source[self._tokens[first].start : self._tokens[end - 1].end]

    def _replace(self, operator: str, first: int, end: int, text: str) -> Edit:
        return Edit(operator, self._tokens[first].start, self._tokens[end - 1].end, text)

    def _split(self, first: int, end: int, separators: set[int]) -> list[tuple[int, int]]:
        cuts = [first - 1, *sorted(i for i in separators if first <= i < end), end]
        return [(a + 1, b) for a, b in itertools.pairwise(cuts) if b > a + 1]

    def _find_connectives(self) -> dict[int, str]:
        """Return `{place: AND or OR}` without the AND of BETWEEN."""
        found: dict[int, str] = {}
        between: list[int] = []
        for i, token in enumerate(self._tokens):
            if token.word == "BETWEEN":
                between.append(token.depth)
            elif token.word == "AND" and between and between[-1] == token.depth:
                between.pop()
            elif token.word in ("AND", "OR"):
                found[i] = token.word
        return found

    # --- Operators ---

    def _set_items(self) -> Iterator[Edit]:
        for at, word in enumerate(self._words):
            if word != "SET" or "UPDATE" not in self._words[:at]:
                continue
            target = self._target(at)
            end = self._end(at, _END_OF_SET)
            depth = self._tokens[at].depth
            commas = {i for i in range(at + 1, end) if self._words[i] == "," and self._tokens[i].depth == depth}
            for first, last in self._split(at + 1, end, commas):
                if self._word(first + 1) != "=":
                    continue
                self._assigned.add(first + 1)
                column, value = self._tokens[first].text, self._text(first + 2, last)
                kept = f"{column} = CASE WHEN true THEN {target}.{column} ELSE {value} END"
                yield self._replace("set item dropped", first, last, kept)

    def _target(self, at: int) -> str:
        """Return the name by which the own row of a SET item is read."""
        if self._word(at - 1) == "UPDATE":  # ON CONFLICT DO UPDATE
            at = max(i for i in range(at) if self._words[i] == "INTO")
            end = next(i for i in range(at, len(self._words)) if self._words[i] in ("(", "SELECT", "VALUES"))
        else:
            end, at = at, max(i for i in range(at) if self._words[i] == "UPDATE")
        return self._tokens[end - 1].text

    def _conditions(self, at: int) -> Iterator[Edit]:
        word, depth = self._words[at], self._tokens[at].depth
        if at in self._connectives:
            yield self._replace("connective", at, at + 1, "OR" if word == "AND" else "AND")
        starts = word in ("WHERE", "HAVING")
        starts |= (
            word == "ON" and self._word(at - 1) != "DISTINCT" and self._word(at + 1) not in ("CONFLICT", "CONSTRAINT")
        )
        starts &= self._word(at - 1) != "CONFLICT"
        starts |= word == "WHEN" and any(
            self._words[i] == "CASE" and self._tokens[i].depth == depth - 1 and self._word(i + 1) == "WHEN"
            for i in range(at - 1, max(-1, at - 400), -1)
        )
        if starts:
            yield from self._terms(at + 1, self._end(at, _END_OF_CONDITION), depth)
        if word == "(" and self._word(at + 1) not in ("SELECT", "WITH"):
            end = self._closing(at)
            if any(at < i < end and self._tokens[i].depth == depth + 1 for i in self._connectives) and not any(
                self._words[i] in ("WHERE", "SELECT", "ON") and self._tokens[i].depth == depth + 1
                for i in range(at, end)
            ):
                yield from self._terms(at + 1, end, depth + 1)

    def _terms(self, first: int, end: int, depth: int) -> Iterator[Edit]:
        here = {i: word for i, word in self._connectives.items() if first <= i < end and self._tokens[i].depth == depth}
        alternatives = self._split(first, end, {i for i, word in here.items() if word == "OR"})
        for a, b in alternatives:
            if len(alternatives) > 1:
                yield self._replace("alternative dropped", a, b, f"(({self._text(a, b)}) AND false)")
            conjuncts = self._split(a, b, set(here))
            if len(alternatives) == 1 or len(conjuncts) > 1:
                for c, d in conjuncts:
                    yield self._replace("conjunct dropped", c, d, f"({self._text(c, d)} OR true)")

    def _joins(self, at: int) -> Iterator[Edit]:
        if self._words[at] != "JOIN":
            return
        first = at - 1 - (self._word(at - 1) == "OUTER")
        kind = self._word(first)
        others = {"FULL": ["LEFT", "RIGHT"], "LEFT": ["INNER"], "RIGHT": ["INNER"]}.get(kind)
        if others:
            for other in others:
                yield self._replace("join", first, at, other)
        elif kind not in ("CROSS", "NATURAL"):
            yield self._replace("join", at - (kind == "INNER"), at + 1, "LEFT JOIN")

    def _locks(self, at: int) -> Iterator[Edit]:
        if self._words[at] == "FOR" and self._word(at + 1) in ("UPDATE", "SHARE", "NO", "KEY"):
            end = self._end(at, frozenset({";", "LIMIT"}))
            yield self._replace("lock dropped", at, end, "")
        elif self._words[at : at + 2] == ["SKIP", "LOCKED"]:
            yield self._replace("skip locked dropped", at, at + 2, "")

    def _orders(self, at: int) -> Iterator[Edit]:
        if self._words[at : at + 2] != ["ORDER", "BY"]:
            return
        end, depth = self._end(at, _END_OF_ORDER), self._tokens[at].depth
        yield self._replace("order dropped", at, end, "")
        commas = {i for i in range(at, end) if self._words[i] == "," and self._tokens[i].depth == depth}
        for first, last in self._split(at + 2, end, commas):
            way = next((i for i in range(first, last) if self._words[i] in ("ASC", "DESC")), None)
            if way is not None:
                yield self._replace("order", way, way + 1, "ASC" if self._words[way] == "DESC" else "DESC")
            elif self._word(last - 2) != "NULLS":
                yield self._replace("order", last - 1, last, f"{self._tokens[last - 1].text} DESC")

    def _functions(self, at: int) -> Iterator[Edit]:
        word = self._words[at]
        if self._word(at + 1) != "(" or self._tokens[at].kind != "word":
            return
        if word in _OTHER_FUNCTION:
            yield self._replace("function", at, at + 1, _OTHER_FUNCTION[word])
        if word == "COALESCE":
            end, depth = self._closing(at + 1), self._tokens[at].depth + 1
            commas = {i for i in range(at + 2, end) if self._words[i] == "," and self._tokens[i].depth == depth}
            (a, b), *others = self._split(at + 2, end, commas)
            if others:
                rest = self._text(others[0][0], end)
                text = self._text(a, b)
                kept = f"CASE WHEN true THEN {text} ELSE {rest} END" if "$" in rest else f"({text})"
                yield self._replace("coalesce", at, end + 1, kept)

    def _limits(self, at: int) -> Iterator[Edit]:
        word = self._words[at]
        if word == "LIMIT":
            end = self._end(at, frozenset({"FOR", "OFFSET", ";"}))
            count = self._text(at + 1, end)
            yield self._replace("limit dropped", at, end, f"LIMIT CASE WHEN false THEN ({count})::bigint END")
        elif word == "DISTINCT" and self._word(at + 1) == "FROM":
            negated = self._word(at - 1) == "NOT"
            yield self._replace("distinct", at - negated, at + 1, "DISTINCT" if negated else "NOT DISTINCT")
        elif word == "DISTINCT" and self._word(at + 1) != "ON":
            yield self._replace("distinct", at, at + 1, "")
        elif word == "IS" and self._word(at + 1) in ("NULL", "TRUE", "FALSE"):
            yield self._replace("is null", at, at + 1, "IS NOT")
        elif word == "IS" and self._word(at + 1) == "NOT" and self._word(at + 2) in ("NULL", "TRUE", "FALSE"):
            yield self._replace("is null", at, at + 2, "IS")
        elif word == "NOT" and self._word(at - 1) != "IS" and self._word(at + 1) not in ("NULL", "DISTINCT"):
            yield self._replace("not dropped", at, at + 1, "")

    def _signs(self, at: int) -> Iterator[Edit]:
        token = self._tokens[at]
        if token.kind != "operator":
            return
        if token.text in _FLIPPED and at not in self._assigned:
            yield self._replace("comparison", at, at + 1, _FLIPPED[token.text])
        before = self._tokens[at - 1]
        is_binary = before.kind in ("number", "parameter", "text", "name") or before.text in (")", "]")
        is_binary |= before.kind == "word" and before.word not in _KEYWORDS_BEFORE_A_SIGN
        if token.text in ("+", "-") and is_binary:
            yield self._replace("arithmetic", at, at + 1, "-" if token.text == "+" else "+")
