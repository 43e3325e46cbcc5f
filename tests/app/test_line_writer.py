"""The writer of log lines, with real pipes: lines arrive in order, and a pipe without a reader blocks nothing."""

import fcntl
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fundledger.app.console.line_writer import BYTES_MAX, CRITICAL_BYTES_MAX, SERIOUS_BYTES_MAX, LineWriter
from tests.support.waiting import eventually

LINE = "x" * 999


class Pipe:
    """A small pipe. `read_all` reads until it is closed."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self.text = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def begin_to_read(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        while part := os.read(self.reader, 65536):
            self.text += part

    def close(self) -> None:
        os.close(self.writer)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def fill(writer: LineWriter, level: int, count: int) -> list[str]:
    """Write `count` lines. Return the lines that were not dropped."""
    kept = []
    for number in range(count):
        before = writer.dropped
        line = f"{logging.getLevelName(level)} {number} {LINE}"
        writer.write(f"{line}\n", level)
        kept += [line] if writer.dropped == before else []
    return kept


async def test_a_pipe_that_is_not_read_takes_bounded_memory_and_gives_all_of_it_in_order(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer, lambda lines: f"dropped {lines}\n")
    kept = {level: fill(writer, level, 10_000) for level in (logging.INFO, logging.ERROR, logging.CRITICAL)}
    assert 0.9 < len(kept[logging.INFO]) * 1_000 / BYTES_MAX < 1.1
    assert fill(writer, logging.WARNING, 10) == []
    assert writer._bytes <= CRITICAL_BYTES_MAX
    assert BYTES_MAX + len(kept[logging.ERROR]) * 1_000 < SERIOUS_BYTES_MAX + 20_000
    dropped = writer.dropped
    assert dropped == 30_010 - sum(map(len, kept.values()))
    assert not writer.flush(0.01)
    pipe.begin_to_read()
    await eventually(lambda: writer.flush(0.1), "all is written")
    await eventually(lambda: pipe.text.endswith(b"dropped %d\n" % dropped), "the number is reported once")
    assert pipe.text.decode().splitlines() == [*itertools.chain(*kept.values()), f"dropped {dropped}"]
    assert len(fill(writer, logging.INFO, 1)) == 1


async def test_one_line_may_be_longer_than_all_room(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer)
    pipe.begin_to_read()
    line = "y" * (CRITICAL_BYTES_MAX + 1) + "\n"
    writer.write(line)
    await eventually(lambda: writer.flush(0.1), "it is written")
    await eventually(lambda: pipe.text == line.encode(), "it is read")


async def test_lines_for_a_reader_that_is_gone_are_counted(pipe: Pipe) -> None:
    writer = LineWriter(os.dup(pipe.writer))
    reader, pipe.reader = pipe.reader, os.open(os.devnull, os.O_RDONLY)
    os.close(reader)
    fill(writer, logging.INFO, 5)
    await eventually(lambda: writer.flush(0.1) and writer.dropped == 5, "they are given up")


async def test_a_descriptor_that_another_process_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LineWriter(pipe.writer)
    assert len(fill(writer, logging.INFO, 100)) == 100
    pipe.begin_to_read()
    await eventually(lambda: writer.flush(0.1), "all is written")
    await eventually(lambda: pipe.text.count(b"\n") == 100, "all is read")
    assert writer.dropped == 0


def program(code: str, **streams: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, **streams)


LOGS = """
import logging, sys
from fundledger.app.console.logs import configure_logs, dropped_lines
from fundledger.app.console.terminal import complain, say
configure_logs("info", {"worker": 0})
say("a banner")
for number in range(COUNT):
    logging.getLogger("t").info("%d %s", number, "x" * 1000)
logging.getLogger("t").info("%d", "no number")
"""


async def test_a_process_ends_although_nothing_reads_what_it_logged(pipe: Pipe) -> None:
    for end in ("", "complain('bad')\nsys.exit(2)", "logging.shutdown()\nimport os; os._exit(2)"):
        process = program(LOGS.replace("COUNT", "3000") + end, stdout=pipe.writer, stderr=pipe.writer)
        await eventually(lambda process=process: process.poll() is not None, "it ends", 30)
        assert process.returncode == (2 if end else 0)


async def test_all_that_a_process_logged_is_there_when_it_has_ended(pipe: Pipe) -> None:
    pipe.begin_to_read()
    process = program(LOGS.replace("COUNT", "500") + "complain('bad')", stdout=pipe.writer, stderr=pipe.writer)
    await eventually(lambda: process.poll() is not None, "it ends", 30)
    await eventually(lambda: pipe.text.endswith(b"bad\n"), "all is read")
    lines = pipe.text.decode().splitlines()
    lines.remove("a banner")
    assert [json.loads(line)["message"].split(" ")[0] for line in lines[:500]] == [str(n) for n in range(500)]
    assert "a record of t cannot be formatted" in json.loads(lines[500])["message"]
    assert len(lines) == 502
