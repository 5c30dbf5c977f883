"""The parameters of a tool as providers accept them: an object without a union at the top."""

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from treadle.domain.schema import JsonSchema, ToolSchema

_UNIONS = ("oneOf", "anyOf", "allOf")
# OpenAI: "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at
# the top level". Anthropic: "input_schema does not support oneOf, allOf, or anyOf at the top
# level".
_REFUSED = (*_UNIONS, "enum", "const", "not", "if", "then", "else", "$ref")
_MAX_NOTE = 4_000


def accepted_parameters(tool: ToolSchema) -> JsonSchema:
    """Returns the parameters of a tool, with a union at the top replaced by one object.

    The object has the properties of all options and requires what all of them require; its
    description contains the options. What the model writes is validated against the tool's own
    schema in any case.
    """
    schema = tool.parameters
    if schema.get("type") == "object" and not any(name in schema for name in _REFUSED):
        # OpenAI: "object schema missing properties".
        return schema if "properties" in schema else {**schema, "properties": {}}
    return _merged(schema)


def _merged(schema: JsonSchema) -> JsonSchema:
    found: dict[str, object] = {k: v for k, v in schema.items() if k not in _REFUSED}
    properties, required = _members(schema, schema, 0)
    found |= {"type": "object", "properties": properties}
    found.pop("required", None)
    if required:
        found["required"] = [name for name in properties if name in required]
    options = {name: schema[name] for name in _UNIONS if name in schema}
    note = msgspec.json.encode(options).decode() if options else ""
    if note and len(note) <= _MAX_NOTE:
        said = str(schema.get("description", ""))
        found["description"] = f"{said} The arguments must fit {note}.".strip()
    return found


def _members(
    schema: JsonSchema, root: JsonSchema, depth: int
) -> tuple[dict[str, object], set[str]]:
    """Returns the properties that any option of `schema` has, and those that every one requires."""
    properties = dict(_mapping(schema.get("properties")))
    required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
    if depth > 8:  # a schema that refers to itself
        return properties, required
    for name in _UNIONS:
        options = [_mapping(option) for option in _list(schema.get(name))]
        inner = [_members(option, root, depth + 1) for option in options]
        for more, _ in inner:
            for key, value in more.items():
                properties.setdefault(key, value)
        needs = [needed for _, needed in inner]
        for field in {field for needed in needs for field in needed}:
            if name == "allOf" or all(field in needed for needed in needs):
                required.add(field)
    if isinstance(reference := schema.get("$ref"), str):
        more, needed = _members(_definition(reference, root), root, depth + 1)
        properties, required = more | properties, required | needed
    return properties, required


def _definition(reference: str, root: JsonSchema) -> JsonSchema:
    found: object = root
    if reference.startswith("#/"):
        for part in reference[2:].split("/"):
            found = _mapping(found).get(part.replace("~1", "/").replace("~0", "~"))
    return _mapping(found)


def _mapping(value: object) -> JsonSchema:
    return cast("JsonSchema", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
