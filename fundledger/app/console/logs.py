"""Console log output on standard error: one JSON object a line, or text lines on a terminal."""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from fundledger.app.console.line_writer import LineWriter
from fundledger.app.console.terminal import ERROR, is_standard, writer_of

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "once"}
REPEAT_S: Final = 3600.0
REMEMBERED_MAX: Final = 10_000
Format = Literal["auto", "json", "text"]


class JsonLines(logging.Formatter):
    """A formatter of JSON lines: time, level, logger, message, fields of the process, each `extra` of the record."""

    def __init__(self, always: dict[str, Any]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """A formatter of text lines: local time of day, the level unless it is info, the message, then `name=value` for
    each field that JsonLines writes.
    """

    def __init__(self, always: dict[str, Any]) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join([f"  {name}={_shown(value)}" for name, value in {**self._always, **_extra(record)}.items()])
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        message = record.getMessage()
        line = f"{at} {level}{message if message.isprintable() else json.dumps(message)}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _PLAIN}


def _shown(value: object) -> str:
    """Return a value as one word or as a JSON string, so that it cannot look like another field or line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' ="') else json.dumps(text)


class Once(logging.Filter):
    """A filter that suppresses repeated records. It applies only to records that have a value `once` in their `extra`.

    A record passes if its value is new, and again after REPEAT_S seconds. The later record has the number of suppressed
    records as `repeated`. For example, a row that fails verification is found at each read, but one line is enough. If
    the log level is debug, suppressed records pass with level debug.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        once = getattr(record, "once", None)
        if once is None:
            return True
        now = self._clock()
        passed_at, repeated = self._passed.get(once, (now - REPEAT_S, 0))
        if now - passed_at < REPEAT_S:
            self._passed[once] = passed_at, repeated + 1
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        if repeated:
            record.repeated = repeated
        if len(self._passed) >= REMEMBERED_MAX:
            del self._passed[next(iter(self._passed))]
        self._passed.pop(once, None)
        self._passed[once] = now, 0
        return True


class _Lines(logging.Handler):
    """A handler that passes records as lines to a writer. `flush` is called at the end of the process, and waits at
    most FLUSH_S seconds.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        writer.report_with(self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            # The error handler of `logging` prints a traceback, which may block.
            message = f"a record of {record.name} cannot be formatted: {error!r}"
            line = self.format(_record(logging.ERROR, message, {"event": "log_line_failed"}))
        self._writer.write(line + "\n", record.levelno)

    def flush(self) -> None:
        self._writer.flush()

    def _dropped(self, lines: int) -> str:
        extra = {"event": "log_lines_dropped", "lines": lines}
        message = f"{lines} log lines were dropped: standard error did not accept them"
        return self.format(_record(logging.WARNING, message, extra)) + "\n"


def _record(level: int, message: str, extra: dict[str, Any]) -> logging.LogRecord:
    return logging.getLogger(__name__).makeRecord(__name__, level, __file__, 0, message, (), None, extra=extra)


def dropped_lines() -> int:
    """Return how many log lines of this process were dropped because standard error did not accept them."""
    return writer_of(ERROR).dropped


def configure_logs(level: str, always: dict[str, Any], format_: Format = "json") -> None:
    """Log to standard error. `auto` is `text` on a terminal, else `json`.

    A record is formatted by the caller and written by a thread, so that no caller waits for standard error.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if is_standard(sys.stderr, sys.__stderr__):
        handler = _Lines(writer_of(ERROR))
    people = format_ == "text" or (format_ == "auto" and sys.stderr is not None and sys.stderr.isatty())
    handler.setFormatter(TextLines(always) if people else JsonLines(always))
    handler.addFilter(Once())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel("WARNING")
