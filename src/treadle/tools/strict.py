"""Converts a JSON Schema to the strict subset that providers can enforce.

Every object is closed and all its properties are required; what was optional may be null instead.
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

import re
from collections.abc import Mapping, Sequence
from typing import cast

from treadle.domain.schema import JsonSchema

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
# They only describe, or pydantic checks them anyway, so they can be dropped.
_DROPPED = {"title", "default", "examples", "discriminator", "minLength", "maxLength"}
# OpenAI refuses a schema with such a pattern; pydantic checks it anyway.
_LOOKAROUND = re.compile(r"\(\?<?[=!]")


class _NotStrict(Exception):
    """The schema has no form in the strict subset."""


def strict_schema(schema: JsonSchema) -> JsonSchema | None:
    """Returns `schema` in the strict subset, or None if that is impossible."""
    if schema.get("type") != "object":
        return None
    try:
        return _Conversion(cast("JsonSchema", schema.get("$defs", {}))).strict(schema)
    except _NotStrict:
        return None


class _Conversion:
    """The conversion of one schema, with the definitions that its references name."""

    def __init__(self, defs: JsonSchema) -> None:
        self._defs = defs
        self._inlined: list[str] = []

    def strict(self, schema: object) -> dict[str, object]:
        given = _strict_keywords(schema)
        if "$ref" in given and len(given) > 1:
            return self._inline(given)
        if not given.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
            raise _NotStrict
        found: dict[str, object] = dict(given)
        if given.get("type") == "object":
            found |= self._closed(given)
        if "items" in given:
            found["items"] = self.strict(given["items"])
        if "anyOf" in given:
            found["anyOf"] = [self.strict(o) for o in cast("list[object]", given["anyOf"])]
        if "$defs" in given:
            found["$defs"] = self._each(cast("JsonSchema", given["$defs"]))
        return found

    def _inline(self, given: dict[str, object]) -> dict[str, object]:
        """Replaces a `$ref` with its definition: OpenAI allows no description next to a `$ref`.

        The openai SDK does the same. Inside its own definition, the description is dropped instead,
        because inlining would never end.
        """
        if given.keys() != {"$ref", "description"}:
            raise _NotStrict
        reference = cast("str", given["$ref"])
        if reference in self._inlined:
            return {"$ref": reference}
        definition = cast("JsonSchema", self._defs.get(reference.removeprefix("#/$defs/"), {}))
        self._inlined.append(reference)
        found = self.strict({**definition, "description": given["description"]})
        self._inlined.pop()
        return found

    def _closed(self, schema: dict[str, object]) -> dict[str, object]:
        if schema.get("additionalProperties", False) is not False:
            raise _NotStrict
        if "properties" not in schema and "additionalProperties" not in schema:
            raise _NotStrict  # a free-form object
        properties = cast("JsonSchema", schema.get("properties", {}))
        required = cast("Sequence[str]", schema.get("required", ()))
        return {
            "properties": self._each(
                {
                    name: field if name in required else _nullable(field)
                    for name, field in properties.items()
                }
            ),
            "required": list(properties),
            "additionalProperties": False,
        }

    def _each(self, schemas: JsonSchema) -> dict[str, dict[str, object]]:
        return {name: self.strict(schema) for name, schema in schemas.items()}


def _strict_keywords(schema: object) -> dict[str, object]:
    """Returns the relevant part of `schema`; raises `_NotStrict` if it has no strict form."""
    if not isinstance(schema, Mapping):
        raise _NotStrict  # `true`: any value
    given = {k: v for k, v in cast("JsonSchema", schema).items() if k not in _DROPPED}
    if "oneOf" in given and "anyOf" not in given:
        given["anyOf"] = given.pop("oneOf")
    if _LOOKAROUND.search(str(given.get("pattern", ""))):
        del given["pattern"]
    if not _KEYWORDS.issuperset(given) or given.get("format", "uuid") not in _FORMATS:
        raise _NotStrict
    if isinstance(given.get("type"), list):
        raise _NotStrict  # its objects could not be closed; pydantic itself writes `anyOf`
    return given


def _nullable(schema: object) -> dict[str, object]:
    if not isinstance(schema, Mapping):
        raise _NotStrict
    field = cast("JsonSchema", schema)
    options = cast("list[JsonSchema]", field.get("anyOf", field.get("oneOf", [field])))
    description = {"description": field["description"]} if "description" in field else {}
    bare = [{k: v for k, v in option.items() if k != "description"} for option in options]
    null = [] if {"type": "null"} in bare else [{"type": "null"}]
    return {"anyOf": [*bare, *null], **description}
