"""The JSON Schema that pydantic makes of a type, without what a model does not need."""

from collections.abc import Mapping
from typing import cast

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from treadle.domain.schema import JsonSchema


class QuietJsonSchema(GenerateJsonSchema):
    """Leaves out a default that JSON cannot say, such as a sentinel, without a warning."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Does nothing: a function's own default holds, whatever the schema says of it."""


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
