"""From any JSON Schema to the strict subset that providers can hold a model to.

Every object is closed and all its properties are required; what was optional may be null instead.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Mapping, Sequence
from typing import cast

from weft.schema import JsonSchema

_KEYWORDS = {
    "$defs",
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "type",
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
# They describe and do not constrain, so they may go.
_DROPPED = {"title", "default", "examples", "discriminator", "minLength", "maxLength"}


def without_nulls(value: object, schema: JsonSchema) -> object:
    """Returns `value` without the nulls that a strict schema puts where something was optional.

    `schema` is the one before `strict_schema`. The default of a property that may be left out
    holds where the model wrote null.
    """
    return _without_nulls(value, schema, cast("JsonSchema", schema.get("$defs", {})))


def _without_nulls(value: object, schema: JsonSchema, defs: JsonSchema) -> object:
    schema = _resolved(schema, defs)
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        items = cast("JsonSchema", schema["items"])
        return [_without_nulls(item, items, defs) for item in cast("list[object]", value)]
    if not isinstance(value, Mapping) or "properties" not in schema:
        return cast("object", value)
    properties = cast("Mapping[str, JsonSchema]", schema["properties"])
    required = cast("Sequence[str]", schema.get("required", ()))
    return {
        key: _without_nulls(item, properties.get(key, {}), defs)
        for key, item in cast("JsonSchema", value).items()
        if item is not None or key in required or key not in properties
    }


def _resolved(schema: JsonSchema, defs: JsonSchema) -> JsonSchema:
    """Follows references, and the one option that is not null."""
    for _ in range(len(defs) + 2):
        options = [
            option
            for option in cast("Sequence[JsonSchema]", schema.get("anyOf", ()))
            if option.get("type") != "null"
        ]
        if len(options) == 1:
            schema = options[0]
        elif "$ref" in schema:
            name = cast("str", schema["$ref"]).removeprefix("#/$defs/")
            schema = cast("JsonSchema", defs.get(name, {}))
        else:
            break
    return schema


class _NotStrict(Exception):
    """The schema says something that the strict subset cannot say."""


def strict_schema(schema: JsonSchema) -> JsonSchema | None:
    """Returns `schema` in the strict subset, or None where that is impossible."""
    try:
        return _object(_strict(schema))
    except _NotStrict:
        return None


def without_titles(schema: JsonSchema) -> JsonSchema:
    """Returns `schema` without the titles that pydantic makes up."""
    return cast("JsonSchema", _untitled(schema, is_schema=True))


def _untitled(value: object, *, is_schema: bool) -> object:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        return {
            key: _untitled(item, is_schema=not (is_schema and key in {"properties", "$defs"}))
            for key, item in mapping.items()
            if not (is_schema and key == "title" and isinstance(item, str))
        }
    if isinstance(value, list):
        return [_untitled(item, is_schema=True) for item in cast("list[object]", value)]
    return value


def _object(schema: dict[str, object]) -> dict[str, object]:
    if schema.get("type") != "object":
        raise _NotStrict
    return schema


def _strict(schema: object) -> dict[str, object]:
    if not isinstance(schema, Mapping) or not schema:
        raise _NotStrict  # `true` or `{}`: anything goes
    given = {k: v for k, v in cast("JsonSchema", schema).items() if k not in _DROPPED}
    if "oneOf" in given and "anyOf" not in given:
        given["anyOf"] = given.pop("oneOf")
    if not _KEYWORDS.issuperset(given) or given.get("format", "uuid") not in _FORMATS:
        raise _NotStrict
    if not given.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise _NotStrict
    found: dict[str, object] = dict(given)
    if given.get("type") == "object":
        found |= _closed(given)
    if "items" in given:
        found["items"] = _strict(given["items"])
    if "anyOf" in given:
        found["anyOf"] = [_strict(option) for option in cast("list[object]", given["anyOf"])]
    if "$defs" in given:
        found["$defs"] = _each(given["$defs"])
    return found


def _closed(schema: dict[str, object]) -> dict[str, object]:
    if schema.get("additionalProperties", False) is not False:
        raise _NotStrict
    if "properties" not in schema and schema.get("additionalProperties") is not False:
        raise _NotStrict  # a free-form object
    properties = _each(schema.get("properties", {}))
    required = set(cast("list[str]", schema.get("required", [])))
    for name, field in properties.items():
        if name not in required:
            properties[name] = _nullable(field)
    return {
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _each(schemas: object) -> dict[str, dict[str, object]]:
    return {name: _strict(schema) for name, schema in cast("JsonSchema", schemas).items()}


def _nullable(field: dict[str, object]) -> dict[str, object]:
    options = cast("list[object]", field.get("anyOf", [field]))
    if {"type": "null"} in options:
        return field
    description = {"description": field["description"]} if "description" in field else {}
    bare = [
        {k: v for k, v in cast("JsonSchema", option).items() if k != "description"}
        for option in options
    ]
    return {"anyOf": [*bare, {"type": "null"}], **description}
