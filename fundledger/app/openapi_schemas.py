"""The schemas of request bodies in the OpenAPI file, derived from the types that decode them."""

from collections.abc import Iterable, Mapping
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

from fundledger.app import body
from fundledger.ledger.chart import CHART

Schema = dict[str, Any]
REF: Final = "#/components/schemas/"
UUID: Final[Schema] = {
    "type": "string",
    "format": "uuid",
    "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
}
ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9:_.-]{1,128}$"}
_INT32_MAX: Final = (1 << 31) - 1
INSTANT: Final[Schema] = {"type": "string", "format": "date-time"}
_METADATA = Annotated[dict[str, Any], msgspec.Meta(description="a JSON object of at most 4,096 bytes")] | None
_BODIES: Final = (
    body.AccountBody,
    body.VoucherBody,
    body.BatchBody,
    body.ReverseBody,
    body.HoldBody,
    body.CaptureBody,
    body.FreezeBody,
    body.PolicyBody,
    body.ReasonBody,
)
# What body.py checks with functions instead of types: (schema, member) -> what its type does not say.
_CHECKED_BY_FUNCTIONS: Final[dict[tuple[str, str], Schema]] = {
    ("EntryBody", "account"): {**ID, "description": "id of an open account"},
    ("VoucherBody", "id"): {**UUID, "description": "the idempotency key: it counts once, for ever"},
    ("VoucherBody", "type"): {"type": "string", "pattern": "^[a-z_]{1,32}$", "description": "its meaning is yours"},
    ("ReverseBody", "id"): {**UUID, "description": "id of the reversal, which is a voucher too"},
    ("AccountBody", "type"): {
        "type": "string",
        "enum": list(CHART),
        "description": "\n".join(f"`{type_.name}`: {type_.meaning}" for type_ in CHART.values()),
    },
    ("HoldBody", "expires_at"): {
        "type": ["string", "null"],
        "format": "date-time",
        "default": None,
        "description": "in the future; without it the hold stays until it is captured or released",
    },
}
_DESCRIPTIONS: Final[dict[tuple[str, str], str]] = {
    ("EntryBody", "side"): "a debit adds to "
    + ", ".join(f"`{type_.name}`" for type_ in CHART.values() if type_.normal < 0)
    + "; a credit adds to all others",
    ("VoucherBody", "reference"): "a text of yours; part of the voucher's content",
    ("ReverseBody", "reference"): "a text of yours; part of the reversal's content",
    ("VoucherBody", "ticket"): "taken, not looked at in this version",
    ("VoucherBody", "entries"): "debits and credits are equal; each account is open, and all are of one currency",
    ("BatchBody", "atomic"): "true: all are posted or none; false, or left out: each stands alone",
    ("AccountBody", "owner"): "whom the account belongs to; all accounts of an owner are kept together",
    ("AccountBody", "posting"): "`buffered`: credits wait a moment, as `pending`, and are posted many at a time",
    ("PolicyBody", "posting"): "`buffered`: credits wait a moment, as `pending`, and are posted many at a time",
    ("PolicyBody", "reason"): "kept with the change",
    ("FreezeBody", "reason"): "kept with the change",
    ("ReasonBody", "reason"): "kept with the change",
    ("FreezeBody", "scope"): "`debits`: no money leaves; `all`: no entries at all",
}


def request_schemas() -> dict[str, Schema]:
    """By name, one for each type in body.py that a request decodes to."""
    return schemas_of(_BODIES, _CHECKED_BY_FUNCTIONS, _DESCRIPTIONS)


def schemas_of(
    types: Iterable[type[msgspec.Struct]],
    checked: Mapping[tuple[str, str], Schema],
    descriptions: Mapping[tuple[str, str], str],
) -> dict[str, Schema]:
    """By name, one for each of these types, and of those in them. `checked`: what a type does not say of a member."""
    _, schemas = msgspec.json.schema_components([_mirror(type_) for type_ in types], ref_template=REF + "{name}")
    for (name, member), schema in checked.items():
        assert member in schemas[name]["properties"], "a member that its type does not have"
        schemas[name]["properties"][member] = schema
    for (name, member), description in descriptions.items():
        schemas[name]["properties"][member]["description"] = description
    for schema in schemas.values():
        del schema["title"]
    tidied: dict[str, Schema] = _tidied(schemas)
    return tidied


def with_enums_inlined(schemas: dict[str, Schema]) -> dict[str, Schema]:
    """The same schemas; those that are enumerations stand where they are used.

    Two enumerations with one value in common would make generated Go code declare one constant twice.
    """
    enums = {REF + name: schema for name, schema in schemas.items() if "enum" in schema}

    def inlined(schema: Any) -> Any:
        if isinstance(schema, list):
            return [inlined(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if schema.get("$ref") in enums:
            return {**enums[schema["$ref"]], **{name: value for name, value in schema.items() if name != "$ref"}}
        return {name: inlined(value) for name, value in schema.items()}

    return {name: inlined(schema) for name, schema in schemas.items() if REF + name not in enums}


def with_wide_integers(schema: Any) -> Any:
    """The same; an integer that may not fit 32 bits has the format `int64`, without which generated Go truncates it."""
    if isinstance(schema, list):
        return [with_wide_integers(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: with_wide_integers(value) for name, value in schema.items()}
    types = schema.get("type")
    is_integer = types == "integer" or (isinstance(types, list) and "integer" in types)
    if is_integer and "enum" not in schema and schema.get("maximum", _INT32_MAX + 1) > _INT32_MAX:
        schema.setdefault("format", "int64")
    return schema


@cache
def _mirror(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same type, but for members that are kept as raw JSON, of which it tells what they may be."""
    fields: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(struct):
        if field.type is msgspec.Raw:
            default = msgspec.field(default=None)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = msgspec.field(default_factory=field.default_factory)
        else:
            default = msgspec.field(default=field.default)
        fields.append((field.name, _mirrored(field.type), default))
    strict = struct.__struct_config__.forbid_unknown_fields
    return msgspec.defstruct(struct.__name__, fields, forbid_unknown_fields=strict, kw_only=True)


def _mirrored(type_: Any) -> Any:
    if type_ is msgspec.Raw:
        return _METADATA
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return _mirror(type_)
    if get_origin(type_) is Annotated:
        inner, *meta = get_args(type_)
        return Annotated[_mirrored(inner), *meta]
    if get_origin(type_) is UnionType:
        return reduce(or_, [_mirrored(one) for one in get_args(type_)])
    if get_origin(type_) is list:
        return list[_mirrored(get_args(type_)[0])]  # type: ignore[misc]
    return type_


def _tidied(schema: Any) -> Any:
    r"""JSON Schema's patterns (ECMA 262) end with `$`, not with `\Z`; a member that may be null says so in its type.

    An enumeration has a type: generators of clients need one.
    """
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _tidied(value) for name, value in schema.items()}
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = schema["pattern"].replace(r"\Z", "$")
    if isinstance(schema.get("enum"), list) and "type" not in schema:
        schema = {"type": "string", **schema}
    match schema.get("anyOf"):
        case [{"type": str(type_)} as given, {"type": "null"}]:
            del schema["anyOf"]
            schema = {**given, "type": [type_, "null"], **schema}
    return schema
