"""Removes the nulls that a strict schema makes models write for omitted properties."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from treadle.domain.arguments import is_mapping
from treadle.domain.schema import JsonSchema


def without_nulls(value: object, schema: JsonSchema) -> object:
    """Returns `value` without the nulls that stand for omitted optional properties.

    `schema` is the schema before `strict_schema`. If the model wrote null for an optional property,
    the property's default applies, even if its type includes null. In a union of objects, the first
    one whose properties and constants agree with the value decides.
    """
    return _without_nulls(value, schema, cast("JsonSchema", schema.get("$defs", {})))


def _without_nulls(value: object, schema: JsonSchema, defs: JsonSchema) -> object:
    if isinstance(value, list):
        entries = cast("list[object]", value)
        items = cast("JsonSchema", _fitting(entries, "items", schema, defs).get("items", {}))
        return [_without_nulls(entry, items, defs) for entry in entries]
    if not isinstance(value, Mapping):
        return value
    members = cast("JsonSchema", value)
    found = _fitting(members, "properties", schema, defs)
    properties = cast("Mapping[str, JsonSchema]", found.get("properties", {}))
    required = cast("Sequence[str]", found.get("required", ()))
    return {
        key: _without_nulls(member, properties.get(key, {}), defs)
        for key, member in members.items()
        if member is not None or key in required or key not in properties
    }


def _fitting(value: object, keyword: str, schema: JsonSchema, defs: JsonSchema) -> JsonSchema:
    """Returns the option of `schema` with a mapping under `keyword` that `value` is meant for."""
    options = [
        option
        for option in _options(schema, defs, frozenset())
        if isinstance(option.get(keyword), Mapping)
    ]
    if len(options) > 1:
        options = [option for option in options if _fits(value, option, defs)] or options
    return options[0] if options else {}


def _options(schema: object, defs: JsonSchema, seen: frozenset[str]) -> Iterator[JsonSchema]:
    """Yields what `schema` may stand for, behind its references and unions."""
    if not is_mapping(schema):
        return  # true and false are schemas as well
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference not in seen:
            target = cast("JsonSchema", defs.get(reference.removeprefix("#/$defs/"), {}))
            yield from _options(target, defs, seen | {reference})
        return
    union = schema.get("anyOf", schema.get("oneOf"))
    if union is None:
        yield schema
        return
    for option in cast("Sequence[JsonSchema]", union):
        yield from _options(option, defs, seen)


def _fits(value: object, option: JsonSchema, defs: JsonSchema) -> bool:
    # Looks no deeper than it must: the same value is looked at again on each level below.
    if isinstance(value, list):
        entries = cast("list[object]", value)
        items = cast("JsonSchema", option.get("items", {}))
        return not entries or any(
            _fits(entries[0], item, defs) for item in _options(items, defs, frozenset())
        )
    if not isinstance(value, Mapping):
        return "properties" not in option and "items" not in option
    members = cast("JsonSchema", value)
    properties = cast("Mapping[str, JsonSchema]", option.get("properties", {}))
    required = cast("Sequence[str]", option.get("required", ()))
    return (
        members.keys() <= properties.keys()
        and members.keys() >= set(required)
        and all(
            _agrees(member, properties[key]) or (member is None and key not in required)
            for key, member in members.items()
        )
    )


def _agrees(member: object, schema: object) -> bool:
    if not is_mapping(schema):
        return True
    if "const" in schema:
        return member == schema["const"]
    return member in cast("Sequence[object]", schema["enum"]) if "enum" in schema else True
