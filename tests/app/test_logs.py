"""Log lines: JSON for programs, plain lines on a terminal, and neither lets a value look like another line."""

import io
import json
import logging
import sys

import pytest

from fundledger.app.logs import Format, JsonLines, configure_logs


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
