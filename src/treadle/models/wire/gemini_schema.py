"""JSON Schemas as the Gemini API reads them.

The API knows a part of JSON Schema and ignores the rest, which treadle validates in any case; two
forms have to be written in another way to have an effect.
https://ai.google.dev/gemini-api/docs/structured-output#json-schema-support
"""

from collections.abc import Mapping
from typing import cast

from treadle.domain.schema import JsonSchema

_SCHEMAS_BY_NAME = {"properties", "$defs", "definitions", "patternProperties"}
_VALUES = {"default", "enum", "const", "examples", "required"}


def readable_schema(schema: JsonSchema) -> dict[str, object]:
    """Returns `schema` with each `const` as an `enum`, and each `$ref` alone.

    "If `$ref` is set on a sub-schema, no other properties, except for those starting with a `$`,
    may be set."
    """
    found: dict[str, object] = {}
    has_reference = isinstance(schema.get("$ref"), str)
    for name, value in schema.items():
        if has_reference and not name.startswith("$"):
            continue
        if name == "const" and isinstance(value, str | int | float) and not isinstance(value, bool):
            found["enum"] = [value]
        elif name in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            inner = cast("Mapping[str, object]", value)
            found[name] = {key: _readable(one) for key, one in inner.items()}
        else:
            found[name] = value if name in _VALUES else _readable(value)
    return found


def _readable(value: object) -> object:
    if isinstance(value, Mapping):
        return readable_schema(cast("JsonSchema", value))
    if isinstance(value, list):
        return [_readable(one) for one in cast("list[object]", value)]
    return value
