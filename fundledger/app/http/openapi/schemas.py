"""OpenAPI schemas of the types of HTTP requests and answers, in the form that generators of clients need."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fundledger.json_values import REF

Schema = dict[str, Any]
_INT32_MAX: Final = (1 << 31) - 1


class Schemas:
    """The schemas of one document, by the names of their structs. `examples`: at most one value of each struct."""

    def __init__(self, examples: Sequence[msgspec.Struct]) -> None:
        self._examples = {type(example).__name__: example for example in examples}
        self._found: dict[str, Schema] = {}
        self._known: dict[type, Schema] = {}

    def of(self, type_: Any) -> Schema:
        """Return the schema of a type: a reference for a struct, `oneOf` for a tuple of types.

        Enumerations are inlined. Otherwise generated Go code would declare a constant twice, if two enumerations have a
        value in common.
        """
        if isinstance(type_, tuple):
            return {"oneOf": [self.of(one) for one in type_]}
        if not isinstance(type_, type):
            return self._new(type_)
        if type_ not in self._known:
            self._known[type_] = self._new(type_)
        return self._known[type_]

    def _new(self, type_: Any) -> Schema:
        (schema,), found = msgspec.json.schema_components([type_], ref_template=REF + "{name}")
        for named in found.values():
            if "description" in named:
                named["description"] = " ".join(named["description"].split())
        enums = {REF + name: found.pop(name) for name in list(found) if "enum" in found[name]}
        for name, struct in found.items():
            tidied = _tidied(struct, enums)
            assert self._found.setdefault(name, tidied) == tidied, f"two types have the name {name}"
        referred: Schema = _tidied(schema, enums)
        return referred

    def all(self) -> dict[str, Schema]:
        """Return the schemas of all structs that `of` was called for, with examples, in alphabetical order."""
        for name, example in self._examples.items():
            self._found[name]["examples"] = [msgspec.json.decode(msgspec.json.encode(example))]
        return dict(sorted(self._found.items()))


def _tidied(schema: Any, enums: dict[str, Schema]) -> Any:
    r"""Return a schema as generators of clients need it.

    A pattern ends with `$` (ECMA 262), not with `\Z`. A member that may be null has `null` among its types. An
    enumeration has a type. An integer that may need more than 32 bits has the format `int64`, because generated Go code
    truncates it otherwise.
    """
    if isinstance(schema, list):
        return [_tidied(item, enums) for item in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if reference in enums:
        schema = {**enums[reference], **{name: value for name, value in schema.items() if name != "$ref"}}
    schema = {name: _tidied(value, enums) for name, value in schema.items()}
    if isinstance(schema.get("title"), str):
        del schema["title"]
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
    if isinstance(schema.get("enum"), list) and "type" not in schema:
        schema = {"type": "string" if isinstance(schema["enum"][0], str) else "integer", **schema}
    match schema.get("anyOf"):
        case [{"type": str(type_)} as given, {"type": "null"}] if "enum" not in given:
            del schema["anyOf"]
            schema = {**given, "type": [type_, "null"], **schema}
    if isinstance(schema.get("properties"), dict):
        _describe_texts(schema["properties"])
    is_integer = schema.get("type") in ("integer", ["integer", "null"])
    if is_integer and "enum" not in schema and schema.get("maximum", _INT32_MAX + 1) > _INT32_MAX:
        schema.setdefault("format", "int64")
    return schema


def _describe_texts(members: dict[str, Schema]) -> None:
    """Add a description to each member that is an amount as text. Only `Exact` structs have such members."""
    for name, member in members.items():
        amount = name.removesuffix("_text")
        if amount != name:
            member["description"] = f"`{amount}` as text, if it is beyond 2^53 - 1 either way"
