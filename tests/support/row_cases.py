"""Reads files of cases for statements, and the values in them: see `statement_rows.py`."""

import contextlib
import dataclasses
import datetime as dt
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

_RESULTS = ("row", "+ ", "- ", "locked ", "error ", "none")


@dataclasses.dataclass
class Call:
    """A line `with` or `again`, and its expected effect."""

    arguments: str
    again: bool
    expected: list[str]


@dataclasses.dataclass
class Block:
    statement: str
    claim: str
    given: list[str]
    held: list[str]
    setup: list[str]
    meanwhile: list[str]
    calls: list[Call]
    show: list[str]
    unordered: bool = False


def read_cases(path: Path) -> tuple[dict[str, dict[str, str]], list[Block]]:
    """Return `({table: default values}, blocks)`. Raise ValueError at a line that is not valid."""
    defaults: dict[str, dict[str, str]] = {}
    blocks: list[Block] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        word, _, rest = text.partition(" ")
        if not text or word == "#":
            continue
        if word == "default":
            table, *pairs = shlex.split(rest)
            defaults.setdefault(table, {}).update(pair.split("=", 1) for pair in pairs)
        elif word == "==":
            statement, _, claim = rest.partition(": ")
            blocks.append(Block(statement, claim, [], [], [], [], [], []))
        elif word in ("given", "held", "setup", "meanwhile"):
            getattr(blocks[-1], word).append(rest)
        elif text == "unordered":
            blocks[-1].unordered = True
        elif word == "show":
            blocks[-1].show = rest.split()
        elif word in ("with", "again"):
            blocks[-1].calls.append(Call(rest, word == "again", []))
        elif text.startswith(_RESULTS) or re.match(r"[\w./]+ \S+: ", text):
            blocks[-1].calls[-1].expected.append(text)
        else:
            raise ValueError(f"{path.name}:{number}: cannot read {text!r}")
    return defaults, blocks


# --- Values ---


def label(text: str) -> UUID:
    return UUID(bytes=text.encode().ljust(16, b"\0"))


def parse(text: str, kind: str, now: dt.datetime) -> Any:
    """Return a value of this SQL type. `now`: the start of the transaction."""
    if text == "null":
        return None
    if kind.endswith("[]"):
        return [parse(part, kind[:-2], now) for part in text[1:-1].split(",") if part]
    if kind == "uuid":
        return label(text)
    if kind in ("smallint", "integer", "bigint", "int2", "int4", "int8"):
        return int(text)
    if kind in ("double precision", "real", "float8", "float4"):
        return float(text)
    if kind in ("boolean", "bool"):
        return text == "true"
    if kind == "bytea":
        return text.encode()
    if kind in ("json", "jsonb"):
        return re.sub(r"@(\w+)", lambda match: str(label(match[1])), text)
    if kind == "date":
        return dt.date.fromisoformat(text)
    if kind in ("timestamp with time zone", "timestamptz"):
        return now + _minutes(text) if text[0] in "+-n" else dt.datetime.fromisoformat(text)
    # A part of an array is written as '' if it is empty.
    return _minutes(text) if kind == "interval" else "" if text == "''" else text


def _minutes(text: str) -> dt.timedelta:
    return dt.timedelta(minutes=0 if text == "now" else int(text.removesuffix("m")))


def shown(value: Any, now: dt.datetime) -> str:
    if value is None:
        return "null"
    if isinstance(value, asyncpg.pgproto.pgproto.UUID | UUID):
        raw = value.bytes.rstrip(b"\0")
        return raw.decode() if raw.isalnum() else str(value)
    if isinstance(value, dt.datetime):
        minutes = round((value - now).total_seconds() / 60)
        if abs(minutes) > 2 * 24 * 60:
            return value.isoformat()
        return "now" if minutes == 0 else f"{minutes:+}m"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bytes):
        return (value.decode() if value.isalnum() else value.hex()) or "''"
    if isinstance(value, list):
        return f"[{','.join(shown(part, now) for part in value)}]"
    if isinstance(value, asyncpg.Record):
        return f"({','.join(shown(part, now) for part in value)})"
    text = str(value)
    if re.match(r"[\[{]", text):
        with contextlib.suppress(ValueError):  # the server's own format has other spaces
            return _unlabelled(json.dumps(json.loads(text), separators=(",", ":")))
    return text.replace("\n", " ") if text else "''"


def _unlabelled(text: str) -> str:
    pattern = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return re.sub(pattern, lambda match: "@" + UUID(match[0]).bytes.rstrip(b"\0").decode(errors="replace"), text)


def shown_pairs(values: Iterable[tuple[str, Any]], now: dt.datetime) -> str:
    parts = []
    for name, value in values:
        # Seconds up to now depend on the machine; whole minutes do not.
        seconds = name.endswith("_s") and isinstance(value, float)
        if value is not None:
            parts.append(f"{name}={round(value / 60)}m" if seconds else f"{name}={shown(value, now)}")
    return " ".join(parts)
