"""Example arguments for a JSON Schema: the smallest value that fits, always the same.

Required properties only; `const`, `enum`, `default`, `minimum`, `maximum`, lengths, `$ref`,
`anyOf`, `oneOf` and `allOf` are honoured. Patterns and `format` other than dates are not.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from treadle.domain.schema import JsonSchema

MAX_DEPTH = 16
MAX_ITEMS = 16
MAX_STRING = 10_000
FORMATS: Mapping[str, str] = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "user@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def fill(schema: JsonSchema, number: int = 0, length: int = 0) -> dict[str, object]:
    """Returns an object that fits `schema`; calls of another `number` differ from each other.

    With a `length`, the first required string argument has that many characters.
    """
    value = example(schema, schema, number)
    arguments = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if length:
        name = next((key for key, old in arguments.items() if isinstance(old, str)), "text")
        arguments[name] = "x" * length
    return arguments


def example(
    schema: JsonSchema, root: JsonSchema, number: int = 0, name: str = "value", depth: int = 0
) -> object:
    """Returns a value that fits `schema`; references are looked up in `root`."""
    schema = resolve(schema, root)
    if depth > MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if choices := as_list(schema.get("enum")):
        return choices[number % len(choices)]
    if "default" in schema:
        return schema["default"]
    if kind_of(schema) == "object":
        return _object(schema, root, number, depth)
    if kind_of(schema) == "array":
        return _array(schema, root, number, depth)
    return _scalar(schema, number, name)


def resolve(schema: JsonSchema, root: JsonSchema) -> JsonSchema:
    """Follows `$ref` and takes the first alternative that is not null."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = _lookup(reference, root)
            continue
        alternatives = [m for key in ("anyOf", "oneOf", "allOf") for m in as_list(schema.get(key))]
        chosen = _first_of_value(as_schema(member) for member in alternatives)
        if chosen is None:
            return schema
        schema = chosen
    return {}


def properties(schema: JsonSchema) -> dict[str, JsonSchema]:
    """Returns the declared properties of an object's schema."""
    declared = as_schema(schema.get("properties"))
    return {name: as_schema(declared[name]) for name in declared}


def required(schema: JsonSchema) -> list[str]:
    """Returns the names of the properties that must be given and are declared."""
    declared = properties(schema)
    names = as_list(schema.get("required"))
    return [name for name in names if isinstance(name, str) and name in declared]


def kind_of(schema: JsonSchema) -> str:
    """Returns the JSON type of a schema, the first that is not null; "string" if there is none."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    kinds = [str(k) for k in as_list(kind) if k != "null"]
    return kinds[0] if kinds else "object" if "properties" in schema else "string"


def as_schema(value: object) -> JsonSchema:
    """Returns `value` if it is an object, else a schema that allows everything."""
    return cast("JsonSchema", value) if isinstance(value, dict) else {}


def _first_of_value(members: Iterable[JsonSchema]) -> JsonSchema | None:
    return next((member for member in members if member.get("type") != "null"), None)


def _lookup(reference: str, root: JsonSchema) -> JsonSchema:
    schema = root
    for key in reference.removeprefix("#").strip("/").split("/"):
        if key:
            schema = as_schema(schema.get(key))
    return schema


def _object(schema: JsonSchema, root: JsonSchema, number: int, depth: int) -> dict[str, object]:
    declared = properties(schema)
    return {
        name: example(declared[name], root, number, name, depth + 1) for name in required(schema)
    }


def _array(schema: JsonSchema, root: JsonSchema, number: int, depth: int) -> list[object]:
    most = _integer(schema.get("maxItems"), MAX_ITEMS)
    count = min(most, max(1, _integer(schema.get("minItems"), 1)), MAX_ITEMS)
    items = as_schema(schema.get("items"))
    return [example(items, root, number + at, "item", depth + 1) for at in range(count)]


def _scalar(schema: JsonSchema, number: int, name: str) -> object:
    match kind_of(schema):
        case "integer":
            return int(_bounded(schema, number + 1, 1))
        case "number":
            return _bounded(schema, number + 1.5, 0.5)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema, number, name)


def _bounded(schema: JsonSchema, value: float, step: float) -> float:
    lowest = _number(schema.get("minimum"))
    above = _number(schema.get("exclusiveMinimum"))
    highest = _number(schema.get("maximum"))
    below = _number(schema.get("exclusiveMaximum"))
    if lowest is not None:
        value = max(value, lowest)
    if above is not None:
        value = max(value, above + step)
    if highest is not None:
        value = min(value, highest)
    if below is not None:
        value = min(value, below - step)
    return value


def _string(schema: JsonSchema, number: int, name: str) -> str:
    form = schema.get("format")
    if isinstance(form, str) and form in FORMATS:
        return FORMATS[form]
    text = f"{name}-{number + 1}"
    shortest = min(_integer(schema.get("minLength"), 0), MAX_STRING)
    return text.ljust(shortest, "x")[: _integer(schema.get("maxLength"), MAX_STRING)]


def as_list(value: object) -> list[object]:
    """Returns `value` if it is an array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def _integer(value: object, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None
