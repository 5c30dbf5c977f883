"""From any JSON Schema to the strict subset that providers can hold a model to.

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
# They describe, or constrain what pydantic checks anyway, so they may go.
_DROPPED = {"title", "default", "examples", "discriminator", "minLength", "maxLength"}
# OpenAI refuses a schema with such a pattern; pydantic checks it anyway.
_LOOKAROUND = re.compile(r"\(\?<?[=!]")


class _NotStrict(Exception):
    """The schema says something that the strict subset cannot say."""


def strict_schema(schema: JsonSchema) -> JsonSchema | None:
    """Returns `schema` in the strict subset, or None where that is impossible."""
    if schema.get("type") != "object":
        return None
    try:
        return _Conversion(cast("JsonSchema", schema.get("$defs", {}))).strict(schema)
    except _NotStrict:
        return None


class _Conversion:
    """The conversion of one schema, which knows the definitions that references name."""

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
        """Puts the definition in place of a `$ref`, beside which OpenAI allows no description.

        The openai SDK does the same. A description inside its own definition has to go instead,
        as there is no end to inlining that.
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
    """Returns the part of `schema` that counts; raises `_NotStrict` for what cannot be said."""
    if not isinstance(schema, Mapping):
        raise _NotStrict  # `true`: anything goes
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
