"""The type of an agent's structured output: its schema and its validation."""

import json
import re
from typing import Generic, TypeVar, cast

import msgspec
from pydantic import TypeAdapter, ValidationError

from treadle.domain.schema import JsonSchema, OutputSchema
from treadle.errors import ConfigurationError
from treadle.tools.failure import explain_failure, message_of, reraise_interrupt
from treadle.tools.nulls import without_nulls
from treadle.tools.pydantic_schema import QuietJsonSchema, without_titles
from treadle.tools.strict import strict_schema
from treadle.tools.validation import explain_validation

T = TypeVar("T")

_WRAPPER = "value"


class OutputType(Generic[T]):
    """A type that the final text must parse as: a pydantic model, dataclass, TypedDict, list, …

    Providers ask for an object; another type is wrapped as `{"value": …}`. Raises
    `ConfigurationError` for a type that cannot be represented as JSON.
    """

    def __init__(self, type_: type[T]) -> None:
        name = getattr(type_, "__name__", str(type_))
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
            schema = without_titles(self._adapter.json_schema(schema_generator=QuietJsonSchema))
        except Exception as error:  # pydantic and user code raise many kinds
            reason = explain_failure(error).splitlines()[0]
            raise ConfigurationError(
                f"The output type {name} cannot be represented as JSON: {reason}"
            ) from error
        self._wrap(schema, name)

    def _wrap(self, schema: JsonSchema, name: str, *, strict: bool = True) -> None:
        self._wrapped = schema.get("type") != "object"
        self._plain = _wrapped(schema) if self._wrapped else schema
        closed = strict_schema(self._plain) if strict else None
        safe_name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "output"
        self.schema = OutputSchema(safe_name, closed or self._plain, closed is not None)

    def parse(self, text: str) -> T:
        """Returns the value of `text`; raises `ValueError` (pydantic's `ValidationError`)."""
        try:
            return self._parse(_decoded(text))
        except ValueError:
            raise
        except BaseException as error:  # a user's validator, or JSON nested too deeply
            reraise_interrupt(error)
            raise ValueError(explain_failure(error)) from error

    def _parse(self, value: object) -> T:
        if self.schema.strict:
            value = without_nulls(value, self._plain)
        if self._wrapped:
            if not isinstance(value, dict) or _WRAPPER not in value:
                raise ValueError(f'it must be a JSON object with the member "{_WRAPPER}"')
            value = cast("dict[str, object]", value)[_WRAPPER]
        return self._validated(value)

    def _validated(self, value: object) -> T:
        # Validated as JSON: in JSON mode pydantic accepts dates as text and tuples as lists.
        return self._adapter.validate_json(msgspec.json.encode(value))

    def explain(self, error: ValueError) -> str:
        """Returns a description of the error that a model can act upon."""
        if isinstance(error, ValidationError):
            return explain_validation(error)
        return message_of(error)


def _wrapped(schema: JsonSchema) -> JsonSchema:
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    defs = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {"type": "object", "properties": {_WRAPPER: inner}, "required": [_WRAPPER], **defs}


_THOUGHT = re.compile(
    r"\A(?:\s*(?:<think(?:ing)?>)?.*?</think(?:ing)?>)+", re.DOTALL | re.IGNORECASE
)
_FENCE = re.compile(r"```[ \t]*(?:json\b)?(.*?)```", re.DOTALL | re.IGNORECASE)


def _decoded(text: str) -> object:
    """Returns the JSON value of an answer; raises `ValueError` if there is not exactly one.

    Servers without a parser for reasoning pass `<think>…</think>` on as text, and models put JSON
    in fences and sentences, each time they are asked. Such an answer means one value as well.
    """
    try:
        return msgspec.json.decode(text)
    except ValueError as error:
        first = error
    rest = _THOUGHT.sub("", text).replace("\ufeff", "")
    fenced = [match.strip() for match in _FENCE.findall(rest)]
    for candidate in (rest.strip(), *(fenced if len(fenced) == 1 else ())):
        try:
            return msgspec.json.decode(candidate)
        except ValueError:
            continue
    found = _only_object(rest)
    if found is None:
        raise first
    return found


def _only_object(text: str) -> object:
    """Returns the one object between sentences, or None if there is none, or more than one."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, end = _DECODER.raw_decode(text, start)
    except ValueError:
        return None
    return None if "{" in text[end:] else cast("object", value)


_DECODER = json.JSONDecoder()
