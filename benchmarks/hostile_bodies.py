"""Hostile request bodies, for tests and for the benchmark. Each body is designed to cost the service much processor
time in proportion to its size.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

LOCATION: Final = " - at `$."
"""The text that the decoder writes before the location of an error. If the name of a member repeats this text, code
that parses the error message finds many locations.
"""


def bodies(example: dict[str, Any], size: int) -> Iterator[tuple[str, bytes]]:
    """Yield `(kind, body)`, each of about `size` bytes, for a route whose valid body is `example`."""
    yield from _anything(size)
    yield from _names(example, size)
    yield from _values(example, size)
    yield from _metadata(example, size)
    yield from _lists(example, size)


def _anything(size: int) -> Iterator[tuple[str, bytes]]:
    yield "blanks", b" " * size
    yield "digits", b"1" * size
    yield "a string without end", b'"' + b"a" * size
    yield "invalid UTF-8", b'{"id":"' + b"\xff" * size + b'"}'
    yield "nested lists", b"[" * size
    yield "nested objects", b'{"a":' * (size // 5)
    yield "nested and closed", b"[" * (size // 2) + b"]" * (size // 2)
    yield "commas", b"[" + b"1," * (size // 2) + b"1]"
    yield "NUL bytes", bytes(size)


def _names(example: dict[str, Any], size: int) -> Iterator[tuple[str, bytes]]:
    yield "an unknown name", _with(example, "a" * size)
    yield "a name like a location", _with(example, LOCATION * (size // len(LOCATION)) + "\n x")
    yield "a name of back quotes", _with(example, "`" * size)
    yield "a name of line ends", _with(example, "\n" * (size // 2))
    yield "a name of escapes", _open(example) + b',"' + b"\\u0061" * (size // 6) + b'":1}'
    yield "a name in Chinese", _with(example, "付" * (size // 3))
    yield "many unknown names", _open(example) + b"".join([b',"k%d":1' % i for i in range(size // 11)]) + b"}"
    name = next(iter(example), "id").encode()
    yield "one name many times", _open(example) + b',"%b":1' % name * (size // (len(name) + 5)) + b"}"
    first = json.dumps(example).encode()[1:-1]
    if first:
        yield "the same object many times", b"{" + b",".join([first] * (size // len(first) + 1)) + b"}"


def _values(example: dict[str, Any], size: int) -> Iterator[tuple[str, bytes]]:
    for path in _leaves(example):
        name = "/".join(map(str, path))
        yield f"{name} is long", _put(example, path, b'"' + b"a" * size + b'"')
        yield f"{name} is escaped", _put(example, path, b'"' + b"\\u0061" * (size // 6) + b'"')
        yield f"{name} is of quotes", _put(example, path, b'"' + b'\\"' * (size // 2) + b'"')
        yield f"{name} looks like a location", _put(example, path, json.dumps(LOCATION * (size // 9) + "\n").encode())
        yield f"{name} has many digits", _put(example, path, b"1" * size)
        yield f"{name} has many decimals", _put(example, path, b"0." + b"1" * size)
        yield f"{name} has a long exponent", _put(example, path, b"1e" + b"9" * size)
        yield f"{name} is a list of lists", _put(example, path, b"[" + b"[]," * (size // 3) + b"[]]")


def _metadata(example: dict[str, Any], size: int) -> Iterator[tuple[str, bytes]]:
    keys = b",".join([b'"k%d":1' % i for i in range(size // 10)])
    for name, value in (
        ("many keys, the last of them twice", b"{" + keys + b',"z":1,"z":2}'),
        ("many keys", b"{" + keys + b"}"),
        ("empty lists", b'{"a":[' + b"[]," * (size // 3) + b"[]]}"),
        ("empty objects", b'{"a":[' + b"{}," * (size // 3) + b"{}]}"),
        ("numbers that are 0", b'{"a":[' + b"1e-400," * (size // 7) + b"0]}"),
        ("a long number", b'{"a":' + b"7" * size + b"}"),
        ("deep", b'{"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"),
        ("backslashes", b'{"a":"' + b"\\\\" * (size // 2) + b'u0000"}'),
    ):
        yield f"metadata: {name}", _open(example) + b',"metadata":' + value + b"}"


def _lists(example: dict[str, Any], size: int) -> Iterator[tuple[str, bytes]]:
    for name, items in example.items():
        if isinstance(items, list) and items:
            item = json.dumps(items[0]).encode()
            many = [item] * (size // (len(item) + 1))
            yield f"{name}: too many", _put(example, (name,), b"[" + b",".join(many) + b"]")
            yield f"{name}: the last is bad", _put(example, (name,), b"[" + b",".join([*many[:4999], b"{}"]) + b"]")
            yield f"{name}: lists", _put(example, (name,), b"[" + b"[]," * (size // 3) + b"[]]")
            yield f"{name}: numbers", _put(example, (name,), b"[" + b"1," * (size // 2) + b"1]")
            yield f"{name}: one long item", _put(example, (name,), b'[{"a":"' + b"a" * size + b'"}]')
            blank = item[:-1] + b" " * 60_000 + b"}"
            blanks = b",".join([*[blank] * (size // 60_000), b"{}"])
            yield f"{name}: blanks, and the last is bad", _put(example, (name,), b"[" + blanks + b"]")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each leaf of a JSON value. Only the first item of each list is visited."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(member, (*path, name))
    elif isinstance(value, list):
        yield from _leaves(value[0], (*path, 0)) if value else ()
    else:
        yield path


def _open(example: dict[str, Any]) -> bytes:
    """Return the JSON text of the example without the closing brace. It has at least one member."""
    return json.dumps(example or {"reason": ""}).encode()[:-1]


def _with(example: dict[str, Any], name: str) -> bytes:
    return _open(example) + b"," + json.dumps(name, ensure_ascii=False).encode() + b":1}"


def _put(example: dict[str, Any], path: tuple[str | int, ...], value: bytes) -> bytes:
    """Return the JSON text of the example, in which the JSON `value` replaces the value at a path."""
    mark = "@here@"
    copy = json.loads(json.dumps(example))
    at = copy
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = mark
    return json.dumps(copy).encode().replace(json.dumps(mark).encode(), value)
