"""OpenAPI schemas: small builders, and HTTP request bodies from the types that decode them."""

from collections.abc import Iterable, Mapping
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

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


def object_of(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """Return the schema of an object. `more`: members of the schema itself."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


def amount(description: str, **more: Any) -> Schema:
    return {"type": "integer", "format": "int64", "description": description, **more}


def nullable(schema: Schema, description: str) -> Schema:
    return {**schema, "type": [schema["type"], "null"], "description": description}


def exactly(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Return the schema of an object with amounts. An amount that a double cannot hold is also sent as text."""
    texts: dict[str, Schema] = {
        f"{name}_text": {"type": "string", "description": f"`{name}` as text, if it is beyond 2^53 - 1 either way"}
        for name, schema in required.items()
        if schema.get("format") == "int64"
    }
    return object_of(required, {**(optional or {}), **texts})


def schemas_of(
    types: Iterable[type[msgspec.Struct]],
    checked: Mapping[tuple[str, str], Schema],
    descriptions: Mapping[tuple[str, str], str],
) -> dict[str, Schema]:
    """Return one schema by name for each of these types and for the types in them.

    `checked`: schemas of members that their type does not describe.
    """
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
    """Return the same schemas, with enumerations inlined where they are used.

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
    """Return the same schema. An integer that may not fit 32 bits gets the format `int64`: without it generated Go
    truncates.
    """
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
    """Return the same type, with members of raw JSON replaced by the type that describes them."""
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
    r"""Return a schema as generators of clients need it.

    A pattern ends with `$` (ECMA 262), not with `\Z`. A member that may be null declares it in its type. An enumeration
    has a type.
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
