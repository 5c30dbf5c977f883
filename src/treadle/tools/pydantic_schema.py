"""JSON Schemas from pydantic, without warnings and titles."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, cast

from treadle.domain.schema import JsonSchema
from treadle.tools import deferred_pydantic as pydantic

if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind


@cache
def quiet_json_schema() -> "type[GenerateJsonSchema]":
    """Returns the class that makes schemas without warnings.

    It omits a default that cannot be represented as JSON, such as a sentinel: the function's own
    default applies, whatever the schema contains.
    """

    class QuietJsonSchema(pydantic.GenerateJsonSchema):
        def emit_warning(self, kind: "JsonSchemaWarningKind", detail: str) -> None:
            """Does nothing."""

    return QuietJsonSchema


def without_titles(schema: JsonSchema) -> JsonSchema:
    """Returns `schema` without the titles that pydantic derives from names."""
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
