"""Which fields of a JSON object can be streamed: those that are, or may be, strings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from treadle.domain.schema import JsonSchema
from treadle.errors import ConfigurationError


def require_streamable(
    fields: Iterable[str], schema: JsonSchema, owner: str, error: type[ConfigurationError]
) -> tuple[str, ...]:
    """Returns the `fields`, each once; raises `error` for one that cannot be streamed.

    `schema` is that of the object; `owner` names its owner in errors.
    """
    if isinstance(fields, str):
        raise error(f"stream_fields of {owner} is a list of names: stream_fields=[{fields!r}].")
    names = tuple(dict.fromkeys(fields))
    properties = cast("JsonSchema", schema.get("properties", {}))
    defs = cast("JsonSchema", schema.get("$defs", {}))
    for name in names:
        if name not in properties:
            known = ", ".join(properties) or "none"
            raise error(
                f"stream_fields names {name!r}, which {owner} does not have; it has: {known}."
            )
        if not _may_be_string(properties[name], defs, frozenset()):
            raise error(
                f"stream_fields names {name!r} of {owner}, which is not a string; only strings can "
                "be shown while they are written."
            )
    return names


def _may_be_string(schema: object, defs: JsonSchema, seen: frozenset[str]) -> bool:
    if not isinstance(schema, Mapping):
        return False
    field = cast("JsonSchema", schema)
    reference = field.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        target = defs.get(reference.removeprefix("#/$defs/"))
        return _may_be_string(target, defs, seen | {reference})
    kind = field.get("type")
    options = cast("Sequence[object]", field.get("anyOf", field.get("oneOf", ())))
    return (
        kind == "string"
        or (isinstance(kind, list) and "string" in kind)
        or any(_may_be_string(option, defs, seen) for option in options)
    )
