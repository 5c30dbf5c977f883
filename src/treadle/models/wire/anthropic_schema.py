"""The part of JSON Schema that Anthropic's structured outputs accept.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from collections.abc import Iterator, Mapping
from typing import cast

from treadle.domain.schema import JsonSchema

_FORMATS = {
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
}
# The API refuses a schema with one of these, so they move into the description.
_CONSTRAINTS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
)
_SCHEMAS_BY_NAME = ("properties", "$defs")


def supported_schema(schema: JsonSchema) -> JsonSchema | None:
    """Returns `schema` with constraints the API refuses moved into the descriptions.

    Returns None for a schema that refers to itself, or to something outside.
    """
    return None if _has_open_references(schema) else _supported(schema)


def _supported(schema: JsonSchema) -> dict[str, object]:
    moved = [name for name in _CONSTRAINTS if name in schema and not _is_taken(name, schema[name])]
    found = {name: _value(name, value) for name, value in schema.items() if name not in moved}
    if moved:
        said = ", ".join(f"{name}: {schema[name]}" for name in moved)
        found["description"] = f"{schema.get('description', '')} ({said})".lstrip()
    return found


def _is_taken(name: str, value: object) -> bool:
    return (name == "format" and value in _FORMATS) or (name == "minItems" and value in (0, 1))


def _value(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        nested = cast("JsonSchema", value)
        if name in _SCHEMAS_BY_NAME:
            return {key: _supported(cast("JsonSchema", inner)) for key, inner in nested.items()}
        return _supported(nested) if name == "items" else nested
    if name in {"anyOf", "allOf"}:
        return [_supported(option) for option in cast("list[JsonSchema]", value)]
    return value


def _has_open_references(schema: JsonSchema) -> bool:
    """Whether a reference leads outside the definitions, or is circular."""
    definitions = cast("Mapping[str, object]", schema.get("$defs", {}))
    targets = {f"#/$defs/{name}": set(_references(inner)) for name, inner in definitions.items()}
    if not targets.keys() >= set(_references(schema)):
        return True
    while leaves := [name for name, names in targets.items() if not names & targets.keys()]:
        for name in leaves:
            del targets[name]
    return bool(targets)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, object]", value).items():
            if name == "$ref" and isinstance(inner, str):
                yield inner
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _references(inner)
