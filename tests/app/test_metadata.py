"""Metadata is stored as it was sent, or refused: it is never changed silently."""

import json
from decimal import Decimal

import msgspec
import pytest

from fundledger.app.http.bodies.decoding import METADATA_BYTES_MAX, metadata
from fundledger.app.http.problems import BadRequest


def stored(text: str) -> str | None:
    return metadata(msgspec.Raw(text.encode()))


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "-1",
        "1.5",
        "1.50",
        "0.1",
        "1e3",
        "1E+3",
        "-0.0",
        "123456789012345678901234567890",
        "5e-324",
        "1.7976931348623157e308",
    ],
)
def test_a_number_that_a_double_holds_is_stored_with_its_value(number: str) -> None:
    kept = stored(f'{{"n":{number}}}')
    assert kept is not None
    assert json.loads(kept, parse_float=Decimal, parse_int=Decimal)["n"] == Decimal(number)


@pytest.mark.parametrize(
    "number",
    [
        "1e-400",
        "-1e-400",
        "0.1234567890123456789",
        "9007199254740993.0",
        "1e-99999999999999999999",
        "1e400",
        "0." + "1" * 4000,
    ],
)
def test_a_number_that_would_be_rounded_is_refused(number: str) -> None:
    with pytest.raises(BadRequest) as bad:
        stored(f'{{"n":{number}}}')
    members = msgspec.json.decode(bad.value.reply.body)
    assert members["field"] == "metadata"
    assert len(bad.value.reply.body) < 400


@pytest.mark.parametrize("text", ["C:\\u0000tmp", "\\", "\\\\u0000", "a\\u0000\\"])
def test_a_backslash_is_no_nul(text: str) -> None:
    kept = stored(json.dumps({"path": text, text: 1}))
    assert kept is not None
    assert json.loads(kept) == {"path": text, text: 1}


@pytest.mark.parametrize("text", ["\0", "\\\0", "a\\\\\0b", "\0\\"])
def test_a_nul_is_refused_behind_whatever_it_stands(text: str) -> None:
    for members in ({"path": text}, {text: 1}, {"a": [{"b": text}]}):
        with pytest.raises(BadRequest, match=r"U\+0000"):
            stored(json.dumps(members))


def test_the_length_is_looked_at_before_anything_else() -> None:
    with pytest.raises(BadRequest, match=f"more than {METADATA_BYTES_MAX} bytes"):
        stored("[" * (METADATA_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a":"x"}',
        '{"kind":"payment","order_no":"2026-1"}',
        '{"order_no":"2026-1","kind":"payment"}',
        '{ "a" : "x" }',
        '{"a":"x","b":1}',
        '{"a":null}',
        '{"a":"x","b":["y"]}',
        '{"a":"\u007f/<>&"}',
        '{"A":"x","a":"y","_":"z"}',
        '{"a":"' + "x" * 600 + '"}',
        '{"ä":"x"}',
        '{"a":"\\n"}',
    ],
)
def test_the_shorter_way_stores_what_the_longer_one_does(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = stored(text)
    monkeypatch.setattr("fundledger.app.http.bodies.decoding._PLAIN_BYTES_MAX", -1)
    assert (
        stored(text) == short == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )


@pytest.mark.parametrize("text", ['{"a":"x","a":"x"}', '{"a":"x","a":"y"}', '["a"]', '"a"', '{"a":"\x01"}', '{"a":"x"'])
def test_the_shorter_way_takes_nothing_that_the_longer_one_refuses(text: str) -> None:
    with pytest.raises(BadRequest):
        stored(text)
