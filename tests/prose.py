"""Checks the texts of the project for habits that CONTRIBUTING rules out: `python -m tests.prose`, part of `make lint`.

It reads docstrings, comments, documents, names of tests, and the strings of product code. Ruff (D401) checks that the
docstring of a function begins with a verb. A library for prose (vale, proselint) reads no docstrings or needs a download.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Text(NamedTuple):
    """A text for people. `kind`: docstring, comment, message, document or test name."""

    path: str
    line: int
    kind: str
    words: str


# --- Rules ----------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A habit. `pattern` has a group `found`; `kinds`: the kinds of texts that it applies to."""

    pattern: re.Pattern[str]
    instead: str
    kinds: frozenset[str]


SENTENCES = frozenset({"docstring", "comment", "message", "document"})
START = r"(?:\A|(?<=[.!?:;|])\s|^ *(?:[-*#]+|\d+\.) |\n *\n)\s*\**"
"""The start of a text, sentence, table cell, list item, heading or paragraph."""
NO_QUESTION = r"(?![^.!?|]*\?)"


def word(pattern: str, instead: str) -> Rule:
    """Return the rule against a word or phrase, in texts of all kinds."""
    words = pattern.replace(" ", r"\s+")
    return Rule(
        re.compile(rf"(?<![\w-])(?P<found>{words})(?![\w-])", re.IGNORECASE), instead, SENTENCES | {"test name"}
    )


def opening(words: str, instead: str) -> Rule:
    """Return the rule against first words of a sentence that is no question."""
    return Rule(re.compile(rf"{START}(?P<found>{words})\b{NO_QUESTION}", re.MULTILINE), instead, SENTENCES)


def headless(words: str, rest: str = "") -> Rule:
    """Return the rule against first words of a docstring, which leave a phrase without its noun or verb."""
    pattern = re.compile(rf"\A\s*(?P<found>{words})\b{rest}")
    return Rule(pattern, "begin with a verb or a noun phrase", frozenset({"docstring"}))


THING = "name the thing: the request, the caller, the batch"
RULES = [
    opening(r"Who|Whom|Whose|What(?! to do\b)|Whatever|Whichever|Those", THING),
    headless("Of|As|And|But|Or|Also|Else|Likewise|Which|How"),
    headless("By|For|From|In|On|Over|Per|To|Until|With|Without", rest=r"(?![^.]*,)"),
    word(r"who(?:so|m)?ever|(?:no|some|any|every)body|no one|(?:some|any|every)one", THING),
    word("he|him|his|himself|she|her|hers", "a merchant and a caller are 'it'"),
    word("for ?ever", "permanently"),
    word("by (?:itself|themselves)", "automatically, alone"),
    word("for want of", "because there is no"),
    word("at once", "immediately, concurrently, in one call"),
    word("again and again", "repeatedly"),
    word("tells?|told|telling", "report, return, record, distinguish"),
    word("hears?|heard|hearing", "receive"),
    word("(?:ask|look)(?:s|ed|ing)? after", "poll, recover"),
    word(r"let(?:s|ting)? in(?=\s*(?:[.,;:)]|and\b|or\b|at\b|again\b|by\b|\Z))", "admit"),
    word("(?:give|gives|giving|given|gave) back", "return, refund, release"),
    word("(?:written|writes?) ahead", "insert as `posting`"),
    word("daemons?", "background job"),
    word("keepers?", "rebalancer"),
    word("desks?", "order batcher"),
    word("crews?", "process group"),
    word("thermometers?", "heavy-hitter sampler"),
    word("rosters?", "job runner"),
    word("doors?", "admission, early reject"),
    word("the short path", "the fast path"),
    word("compare and set", "optimistic path"),
]
"""In the order of house rules: sentences, docstrings, words, terms. A new rule gets a row in `tests/test_prose.py`."""

# --- Texts ----------------------------------------------------------------------------------------------------------

QUOTES = re.compile(r"\A\w*(\"\"\"|'''|[\"'])(.*)\1\Z", re.DOTALL)
F_START, F_END = (getattr(tokenize, f"FSTRING_{end}", None) for end in ("START", "END"))
BETWEEN = {tokenize.NL, tokenize.COMMENT}
Comment = tuple[int, int, str, bool]
"""Line, column, words, and whether it has a line of its own."""


def tokens_of(source: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of Python. An f-string is one `STRING`, as in Python 3.11; later versions split it."""
    lines, start, depth = source.splitlines(keepends=True), (0, 0), 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == F_START:
            start, depth = (start if depth else token.start), depth + 1
        elif token.type == F_END:
            depth -= 1
            if not depth:
                yield token._replace(type=tokenize.STRING, string=between(lines, start, token.end), start=start)
        elif not depth:
            yield token


def between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the source between two positions: line from 1, column from 0."""
    part = lines[start[0] - 1 : end[0]]
    part[-1] = part[-1][: end[1]]
    part[0] = part[0][start[1] :]
    return "".join(part)


def of_python(path: str, source: str) -> Iterator[Text]:
    """Yield docstrings, comments and names of tests; strings of product code with three words are messages."""
    comments: list[Comment] = []
    before, name = tokenize.NEWLINE, ""
    for token in tokens_of(source):
        if token.type == tokenize.COMMENT:
            comments.append((*token.start, token.string.lstrip("#"), token.line.lstrip().startswith("#")))
        elif token.type == tokenize.STRING:
            words = QUOTES.sub(r"\2", token.string)
            if before in {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}:
                yield Text(path, token.start[0], "docstring", words)
            elif not path.startswith("tests/") and len(re.findall(r"(?<!\S)[A-Za-z]+", CODE.sub("", words))) >= 3:
                yield Text(path, token.start[0], "message", words)
        elif name == "def" and token.string.startswith("test_"):
            yield Text(path, token.start[0], "test name", token.string.removeprefix("test_").replace("_", " "))
        if token.type not in BETWEEN:
            before, name = token.type, token.string
    yield from blocks(path, comments)


def of_comments(path: str, source: str, mark: str) -> Iterator[Text]:
    """Yield the comments of a file that begin with `mark`."""
    comment = re.compile(rf"(?P<code>.*?)(?:(?<=\s)|^){mark}+(?P<words>\s.*)")
    found = ((number, comment.match(line)) for number, line in enumerate(source.splitlines(), start=1))
    return blocks(path, [(n, m.start("words"), m["words"], not m["code"].strip()) for n, m in found if m])


def blocks(path: str, comments: list[Comment]) -> Iterator[Text]:
    """Join comments on lines of their own that follow one another."""
    texts: list[Text] = []
    last = (0, 0, False)
    for line, column, words, own in comments:
        if own and last == (line - 1, column, True):
            texts[-1] = texts[-1]._replace(words=f"{texts[-1].words}\n{words}")
        else:
            texts.append(Text(path, line, "comment", words))
        last = (line, column, own)
    return iter(texts)


def texts_of(path: str, source: str) -> Iterator[Text]:
    """Yield the texts of a file; of a changelog those that are not released."""
    if path.endswith(".py"):
        return of_python(path, source)
    if path.endswith(".md"):
        unreleased = re.split(r"^## \[\d", source, maxsplit=1, flags=re.MULTILINE)[0]
        return iter([Text(path, 1, "document", unreleased)])
    return of_comments(path, source, "--" if path.endswith((".sql", ".lua")) else "#")


# --- Findings -------------------------------------------------------------------------------------------------------

CODE = re.compile(r"```.*?```|`[^`]*`|\]\([^)\s]*\)|https?://\S+|\{[^{}]*\}", re.DOTALL)
FORMER = re.compile(r"Formerly( also)?: [^|]*")
"""The glossary names the words of earlier versions."""


def findings(text: Text) -> Iterator[str]:
    """Yield a line for each habit in a text, outside of code, links and fields of f-strings."""
    plain = text.words
    for pattern in (CODE, FORMER):
        plain = pattern.sub(lambda hidden: re.sub(r"\S", "_", hidden[0]), plain)
    for rule in RULES:
        if text.kind in rule.kinds:
            for match in rule.pattern.finditer(plain):
                line = text.line + plain.count("\n", 0, match.start("found"))
                yield f"{text.path}:{line}: {' '.join(match['found'].split())!r}: {rule.instead}"


FOLDERS = ("fundledger", "benchmarks", "tests", "docs", "deploy")
SUFFIXES = {".py", ".sql", ".lua", ".toml", ".md", ".txt"}
OTHERS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "pyproject.toml",
    ".importlinter",
    "Makefile",
    "Dockerfile",
    ".ci/run",
)
PINNED = re.compile(r"/migrations/|^tests/frozen/layout_")
"""Released files, which are never edited."""


def check(root: Path) -> list[str]:
    """Return the findings of all files, in order."""
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.suffix in SUFFIXES]
    found: list[str] = []
    for path in [*(root / name for name in OTHERS), *paths]:
        name = str(path.relative_to(root))
        if not PINNED.search(name):
            for text in texts_of(name, path.read_text()):
                found += findings(text)
    return found


if __name__ == "__main__":
    sys.exit("\n".join(check(ROOT)) or None)
