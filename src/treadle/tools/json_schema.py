"""Validation of JSON values by a JSON Schema that no Python type stands behind; pure.

The keywords that decide what a program can rely on are checked: `type`, `enum`, `const`,
`properties`, `required`, `additionalProperties`, `items`, `prefixItems`, the bounds of numbers,
texts and lists, `anyOf`, `oneOf`, `allOf`, `not`, and a `$ref` within the schema. Others, such as
`pattern` and `format`, are not: a pattern of a stranger can take forever.
https://json-schema.org/draft/2020-12/json-schema-validation
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from treadle.domain.arguments import shown
from treadle.domain.schema import JsonSchema
from treadle.errors import InvalidInput

_MAX_DEPTH = 100
_MAX_WORK = 100_000
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_TYPE_NAMES = {*_TYPES, "integer"}
_SUBSCHEMAS = {"items", "additionalProperties", "not"}
_LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
_MAPS = {"properties", "$defs", "definitions"}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems"}
_COMPARED: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "above"),
    "exclusiveMaximum": (operator.lt, "below"),
}


def require_schema(name: str, schema: object) -> JsonSchema:
    """Returns a JSON Schema; raises `InvalidInput` where a keyword has a value it cannot have."""
    problem = _malformed(schema, name, 0)
    if problem:
        raise InvalidInput(f"{name} is not a JSON Schema: {problem}.")
    return cast("JsonSchema", schema)


def find_problem(value: object, schema: object) -> str:
    """Returns the first reason that `value` does not fit a schema that was required, or ""."""
    return next(_problems(value, schema, _Check(schema), "", 0), "")


class _Check:
    """One validation: its whole schema, and how many schemas it may still apply.

    References to itself within unions would take time that grows with the power of their depth.
    """

    def __init__(self, schema: object) -> None:
        self.schema = schema
        self.left = _MAX_WORK


def _malformed(schema: object, path: str, depth: int) -> str:
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, Mapping):
        return f"{path} is {shown(schema)}, not an object"
    if depth > _MAX_DEPTH:
        return f"it is nested deeper than {_MAX_DEPTH} levels"
    for key, value in cast("Mapping[object, object]", schema).items():
        if not isinstance(key, str):
            return f"{path} has the key {shown(key)}, which is not a text"
        problem = _bad_keyword(key, value, f"{path}.{key}", depth)
        if problem:
            return problem
    return ""


def _bad_keyword(key: str, value: object, path: str, depth: int) -> str:
    inner: Iterator[tuple[str, object]] = iter(())
    if key in _SUBSCHEMAS:
        inner = iter([(path, value)])
    elif key in _LISTS:
        if not isinstance(value, list | tuple):
            return f"{path} must be a list"
        listed = cast("Sequence[object]", value)
        inner = ((f"{path}[{n}]", one) for n, one in enumerate(listed))
    elif key in _MAPS:
        if not isinstance(value, Mapping):
            return f"{path} must be an object"
        named = cast("Mapping[object, object]", value)
        if not all(isinstance(name, str) for name in named):
            return f"{path} has a key that is not a text"
        inner = ((f"{path}.{name}", one) for name, one in named.items())
    elif key == "type":
        types = cast("list[object]", value) if isinstance(value, list) else [value]
        unknown = [one for one in types if not (isinstance(one, str) and one in _TYPE_NAMES)]
        return f"{path} names the type {shown(unknown[0])}" if unknown else ""
    elif key in {"required", "enum"}:
        if not isinstance(value, list | tuple):
            return f"{path} must be a list"
        names = cast("Sequence[object]", value)
        if key == "required" and not all(isinstance(name, str) for name in names):
            return f"{path} contains what is not a text"
    elif key in _COUNTS | _COMPARED.keys():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{path} must be a number"
    elif key == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        return f"{path} must refer to a part of the schema itself, such as #/$defs/name"
    found = (_malformed(one, where, depth + 1) for where, one in inner)
    return next((one for one in found if one), "")


def _problems(value: object, schema: object, check: _Check, path: str, depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        if schema is False:
            yield f"{path or 'the value'} is not allowed"
        return
    check.left -= 1
    if depth > _MAX_DEPTH or check.left < 0:
        yield f"{path or 'the value'} is nested too deeply"
        return
    rules = cast("JsonSchema", schema)
    where = path or "the value"
    if "$ref" in rules:
        yield from _problems(
            value, _target(check.schema, str(rules["$ref"])), check, path, depth + 1
        )
    if "type" in rules and not _has_type(value, rules["type"]):
        yield f"{where} must be of the type {_type_names(rules['type'])}, not {shown(value)}"
        return
    if "enum" in rules and not _is_among(value, cast("Sequence[object]", rules["enum"])):
        yield f"{where} must be one of {shown(list(cast('Sequence[object]', rules['enum'])))}"
    if "const" in rules and not _is_among(value, [rules["const"]]):
        yield f"{where} must be {shown(rules['const'])}"
    yield from _bounds(value, rules, where)
    if isinstance(value, Mapping):
        yield from _members(cast("JsonSchema", value), rules, check, path, depth)
    elif isinstance(value, list):
        yield from _entries(cast("list[object]", value), rules, check, path, depth)
    yield from _combined(cast("object", value), rules, check, path, depth)


def _combined(
    value: object, rules: JsonSchema, check: _Check, path: str, depth: int
) -> Iterator[str]:
    def fits(one: object) -> bool:
        return next(_problems(value, one, check, path, depth + 1), None) is None

    where = path or "the value"
    for one in cast("Sequence[object]", rules.get("allOf", ())):
        yield from _problems(value, one, check, path, depth + 1)
    if "anyOf" in rules and not any(map(fits, cast("Sequence[object]", rules["anyOf"]))):
        yield f"{where} fits none of the schemas in anyOf"
    if "oneOf" in rules:
        fitting = sum(map(fits, cast("Sequence[object]", rules["oneOf"])))
        if fitting != 1:
            yield f"{where} fits {fitting} of the schemas in oneOf, not one"
    if "not" in rules and fits(rules["not"]):
        yield f"{where} is not allowed"


def _members(
    value: JsonSchema, rules: JsonSchema, check: _Check, path: str, depth: int
) -> Iterator[str]:
    properties = cast("JsonSchema", rules.get("properties", {}))
    for name in cast("Sequence[object]", rules.get("required", ())):
        if name not in value:
            yield f"{path or 'the value'} lacks {shown(name)}"
    others = rules.get("additionalProperties", True)
    for name, member in value.items():
        inner = f"{path}.{name}" if path else name
        yield from _problems(member, properties.get(name, others), check, inner, depth + 1)


def _entries(
    value: list[object], rules: JsonSchema, check: _Check, path: str, depth: int
) -> Iterator[str]:
    first = cast("Sequence[object]", rules.get("prefixItems", ()))
    for n, entry in enumerate(value):
        rule = first[n] if n < len(first) else rules.get("items", True)
        yield from _problems(entry, rule, check, f"{path}[{n}]", depth + 1)


def _bounds(value: object, rules: JsonSchema, where: str) -> Iterator[str]:
    if isinstance(value, str | list):
        kind, unit = ("Length", "characters") if isinstance(value, str) else ("Items", "entries")
        size = len(cast("Sequence[object]", value))
        least, most = rules.get(f"min{kind}"), rules.get(f"max{kind}")
        if least is not None and size < cast("float", least):
            yield f"{where} must have at least {least} {unit}"
        if most is not None and size > cast("float", most):
            yield f"{where} must have at most {most} {unit}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, (fits, word) in _COMPARED.items():
            bound = rules.get(keyword)
            if bound is not None and not fits(value, bound):
                yield f"{where} must be {word} {bound}"


def _has_type(value: object, given: object) -> bool:
    types = cast("list[str]", given) if isinstance(given, list) else [cast("str", given)]
    return any(_is_a(value, one) for one in types)


def _is_a(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES[name])


def _type_names(given: object) -> str:
    return " or ".join(cast("list[str]", given)) if isinstance(given, list) else str(given)


def _is_among(value: object, known: Sequence[object]) -> bool:
    """Compares as JSON does: 1 is 1.0, and true is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in known)


def _target(root: object, reference: str) -> object:
    """Returns the part of a schema that a `$ref` names; a missing one allows anything."""
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping):
            return True
        found = cast("JsonSchema", found).get(name, True)
    return found
