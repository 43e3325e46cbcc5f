"""The check of prose: each rule finds its habit, and lets a similar text pass."""

from pathlib import Path

import pytest

from tests.prose import RULES, SENTENCES, Text, check, findings, texts_of

EVERYWHERE = sorted(SENTENCES | {"test name"})
DOCSTRING = ["docstring"]
# kinds of texts, a text with the habit, the reported words, a similar text without it
CASES = [
    (sorted(SENTENCES), "It waits. Who waits is not in flight.", "Who", "It waits for the caller who pays."),
    (sorted(SENTENCES), "| a | What stands is final |", "What", "| Code | What to do |"),
    (sorted(SENTENCES), "# Whose turn it is", "Whose", "# Whose turn is it?"),
    (sorted(SENTENCES), "Those pass.", "Those", "The callers pass those."),
    (DOCSTRING, "Of one worker.", "Of", "The pid of one worker."),
    (DOCSTRING, "As `post`.", "As", "Assert that `post` is called."),
    (DOCSTRING, "How long a batch waits.", "How", "Time that shows how long a batch waits."),
    (DOCSTRING, "By its names.", "By", "By default, names are short."),
    (DOCSTRING, "Without comments.", "Without", "Without comments, the file is empty."),
    (EVERYWHERE, "repeats go to whoever asks", "whoever", "repeats go to the holder"),
    (EVERYWHERE, "so that nobody waits", "nobody", "the user `nobody` waits"),
    (EVERYWHERE, "unless someone pays", "someone", "unless some one-off pays"),
    (EVERYWHERE, "a merchant and his accounts", "his", "a merchant and this account"),
    (EVERYWHERE, "the order stays for ever", "for ever", "the order stays for every caller"),
    (EVERYWHERE, "a split merges by itself", "by itself", "a split follows by the item itself"),
    (EVERYWHERE, "refused for want of room", "for want of", "refused for a want-list"),
    (EVERYWHERE, "ten callers at once", "at once", "ten callers at one time"),
    (EVERYWHERE, "it is sent again and again", "again and again", "it is sent again, and again refused"),
    (EVERYWHERE, "the caller is told", "told", "the total is known"),
    (EVERYWHERE, "the client never hears of it", "hears", "the client never shears it"),
    (EVERYWHERE, "the order is asked after", "asked after", "the order is asked for after a day"),
    (EVERYWHERE, "a request that is let in", "let in", "a body that may let integers pass"),
    (EVERYWHERE, "the token is given back", "given back", "the token is given a backup"),
    (EVERYWHERE, "the order is written ahead", "written ahead", "the write-ahead log"),
    (EVERYWHERE, "a daemon is overdue", "daemon", "the table `daemons.leases`"),
    (EVERYWHERE, "the keeper splits", "keeper", "the bookkeeper splits"),
    (EVERYWHERE, "the desk batches", "desk", "the desktop batches"),
    (EVERYWHERE, "a crew of four", "crew", "a screw of four"),
    (EVERYWHERE, "the thermometer samples", "thermometer", "the thermometry samples"),
    (EVERYWHERE, "a roster of jobs", "roster", "a rostered job"),
    (EVERYWHERE, "refused at the door", "door", "refused at the indoor table"),
    (EVERYWHERE, "on the short path", "the short path", "a short path of a socket"),
    (EVERYWHERE, "written by compare and set", "compare and set", "written after compare, and set"),
]


@pytest.mark.parametrize(("kinds", "habit", "found", "similar"), CASES)
def test_a_habit_is_found_where_its_rule_applies_and_a_similar_text_passes(
    kinds: list[str], habit: str, found: str, similar: str
) -> None:
    for kind in EVERYWHERE:
        lines = list(findings(Text("a.py", 7, kind, habit)))
        assert [line.rpartition("': ")[0] for line in lines] == ([f"a.py:7: '{found}"] if kind in kinds else []), kind
        assert list(findings(Text("a.py", 7, kind, similar))) == []


def test_every_rule_has_a_case() -> None:
    assert [rule for rule in RULES if not any(rule.pattern.search(habit) for _, habit, _, _ in CASES)] == []


def test_a_habit_over_two_lines_is_reported_at_its_first() -> None:
    assert [line[:9] for line in findings(Text("a.md", 1, "document", "One line.\nIt is for\never.\n"))] == [
        "a.md:2: '"
    ]


@pytest.mark.parametrize(
    ("path", "source", "texts"),
    [
        ("a.py", '"""One."""\n\nX = 1\n"""Two."""\n', [(1, "docstring", "One."), (4, "docstring", "Two.")]),
        ("a.py", 'def f():\n    """One\n    two."""\n', [(2, "docstring", "One\n    two.")]),
        (
            "a.py",
            "x = 1  # one\n# two\n# three\n\n# four\n",
            [(1, "comment", " one"), (2, "comment", " two\n three"), (5, "comment", " four")],
        ),
        ("a.py", 'f("# no comment", \'two words\', "now three words")\n', [(1, "message", "now three words")]),
        ("a.py", 'f(f"lease {x.tell()} was lost now")\n', [(1, "message", "lease {x.tell()} was lost now")]),
        (
            "a.py",
            'f(f"lease {x[f\'{y}\']} was lost"\n  f"now")\n',
            [(1, "message", "lease {x[f'{y}']} was lost")],
        ),
        ("tests/a.py", 'f("now three words")\n\n\ndef test_a_b():\n    pass\n', [(4, "test name", "a b")]),
        ("a.sql", "-- one\n-- two\nSELECT 1 -- three\n", [(1, "comment", " one\n two"), (3, "comment", " three")]),
        ("a.toml", 'x = "#1"  # one\n', [(1, "comment", " one")]),
        ("Makefile", "a: b ## one\n", [(1, "comment", " one")]),
        (
            "a.md",
            "one\n\n## [Unreleased]\n\ntwo\n\n## [1.0.0]\n\nthree\n",
            [(1, "document", "one\n\n## [Unreleased]\n\ntwo\n\n")],
        ),
    ],
)
def test_the_texts_of_a_file_are_read_with_their_lines(
    path: str, source: str, texts: list[tuple[int, str, str]]
) -> None:
    assert [(text.line, text.kind, text.words) for text in texts_of(path, source)] == texts


@pytest.mark.parametrize(
    "hidden", ["`nobody`", "```\nnobody\n```", "[a](nobody.md)", "https://nobody.example", "{nobody}"]
)
def test_code_and_links_are_not_read(hidden: str) -> None:
    assert list(findings(Text("a.md", 1, "document", f"A caller {hidden} waits."))) == []


def test_released_files_are_not_read(tmp_path: Path) -> None:
    for name in ("fundledger/sql/a.sql", "fundledger/migrations/0001_a.sql", "tests/frozen/layout_1/a.toml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"{'--' if name.endswith('sql') else '#'} nobody\n")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "pyproject.toml",
        ".importlinter",
        "Makefile",
        "Dockerfile",
    ):
        (tmp_path / name).touch()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text("# a caller and his order\n")
    assert [line.split(": ")[0] for line in check(tmp_path)] == [".ci/run:1", "fundledger/sql/a.sql:1"]
