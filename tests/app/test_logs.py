"""Log lines: JSON for programs, plain lines on a terminal; no value can look like another line."""

import io
import json
import logging
import sys

import pytest

from fundledger.app.console.logs import REMEMBERED_MAX, Format, JsonLines, Once, configure_logs


@pytest.fixture(autouse=True)
def _keeps_the_root_logger() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line_of(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, format_: Format, **extra: object) -> str:
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("info", {"worker": 0}, format_)
    logging.getLogger("t").warning("something happened", extra=extra)
    return out.getvalue()


@pytest.mark.parametrize(
    ("out", "format_", "is_json"),
    [
        (io.StringIO(), "auto", True),
        (Terminal(), "auto", False),
        (Terminal(), "json", True),
        (io.StringIO(), "text", False),
    ],
)
def test_a_terminal_gets_lines_for_people(
    monkeypatch: pytest.MonkeyPatch, out: io.StringIO, format_: Format, is_json: bool
) -> None:
    line = line_of(monkeypatch, out, format_, account="m:1")
    if is_json:
        assert json.loads(line) | {"at": ""} == {
            "at": "",
            "level": "warning",
            "logger": "t",
            "message": "something happened",
            "worker": 0,
            "account": "m:1",
        }
    else:
        assert line[8:] == " warning: something happened  worker=0  account=m:1\n"


@pytest.mark.parametrize("value", ["a\nb", "a b", 'a"b', "a=b", "\x1b[31m"])
def test_a_value_stays_one_field_of_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    line = line_of(monkeypatch, Terminal(), "auto", note=value)
    assert line.count("\n") == 1
    assert json.loads(line.partition("note=")[2]) == value
    assert "\x1b" not in line


def test_a_message_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("info", {}, "auto")
    logging.getLogger("t").info("the caller sent %s", "a\n12:00:00 error: all is lost")
    assert out.getvalue().count("\n") == 1


def test_without_standard_error_the_log_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure_logs("info", {}, "auto")
    assert isinstance(logging.getLogger().handlers[0].formatter, JsonLines)


def test_a_traceback_follows_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("info", {}, "auto")
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("t").exception("it failed")
    assert out.getvalue().splitlines()[0].endswith("error: it failed")
    assert "ValueError: no" in out.getvalue()


def test_what_is_to_be_logged_once_is_logged_again_after_an_hour_with_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("info", {}, "json")
    handler = logging.getLogger().handlers[0]
    handler.filters[:] = [Once(lambda: now)]
    for at, name in (
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3_599, "a"),
        (3_600, "a"),
        (3_601, "a"),
        (9_000, "a"),
        (9_000, "b"),
    ):
        now = 1_000.0 + at
        logging.getLogger("t").critical("row %s", name, extra={"event": "integrity_finding", "once": name})
        logging.getLogger("t").warning("always")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    shown = [(line["message"], line.get("repeated")) for line in lines if line["message"] != "always"]
    assert shown == [("row a", None), ("row b", None), ("row a", 2), ("row a", 1), ("row b", None)]
    assert len(lines) == len(shown) + 8
    assert not any("once" in line for line in lines)


def test_what_was_logged_once_is_kept_in_bounded_memory() -> None:
    once = Once()
    record = logging.makeLogRecord({"levelno": logging.CRITICAL})
    for number in range(3 * REMEMBERED_MAX):
        record.once = number
        assert once.filter(record)
    assert len(once._passed) == REMEMBERED_MAX


def test_a_repetition_is_of_the_level_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("debug", {}, "json")
    for _ in range(3):
        logging.getLogger("t").critical("row", extra={"once": "row"})
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == ["critical", "debug", "debug"]
