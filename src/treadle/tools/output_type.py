"""The type of an agent's structured output: its schema and its validation."""

import json
import re
from collections.abc import Callable
from functools import cached_property
from types import UnionType
from typing import Any, Generic, TypeVar, Union, cast, get_args, get_origin

import msgspec
from typing_extensions import TypeForm

from treadle.domain.schema import JsonSchema, OutputSchema, ToolSchema
from treadle.errors import ConfigurationError
from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.failure import explain_failure, message_of, reraise_interrupt
from treadle.tools.function import Tool
from treadle.tools.nulls import without_nulls
from treadle.tools.parameters import GivenParameters
from treadle.tools.partial_output import PartialOutput, growing_json
from treadle.tools.pydantic_schema import quiet_json_schema, without_titles
from treadle.tools.strict import strict_schema
from treadle.tools.validation import explain_validation

T = TypeVar("T")
R = TypeVar("R")

OUTPUT_TOOL = "final_output"
"""The name of the tool that takes the output as its arguments."""

_WRAPPER = "value"


class OutputType(Generic[T]):
    """A type that the answer must parse as: a pydantic model, dataclass, TypedDict, list, union, …

    Providers ask for an object; another type is wrapped as `{"value": …}`. If `str` is one of the
    types of a union, `takes_text` is set: an answer that is not such an object is the text itself.
    Raises `ConfigurationError` for a type that cannot be represented as JSON.
    """

    def __init__(self, type_: TypeForm[T]) -> None:
        name = _name_of(type_)
        try:
            self._adapter: pydantic.TypeAdapter[T] = pydantic.TypeAdapter(type_)
            schema = without_titles(self._adapter.json_schema(schema_generator=quiet_json_schema()))
        except Exception as error:  # pydantic and user code raise many kinds
            reason = explain_failure(error).splitlines()[0]
            raise ConfigurationError(
                f"The output type {name} cannot be represented as JSON: {reason}"
            ) from error
        self._wrap(schema, name)
        self._type = type_
        others = _without_text(type_)
        if others is not None:
            # What the call of the output contains: a text that is one of the types is no call.
            self.takes_text, self._called = True, OutputType(others)

    def _wrap(self, schema: JsonSchema, name: str, *, strict: bool = True) -> None:
        self.takes_text = False
        self._type: object = object
        self._called: OutputType[T] = self
        self._wrapped = schema.get("type") != "object"
        self._plain = _wrapped(schema) if self._wrapped else schema
        closed = strict_schema(self._plain) if strict else None
        safe_name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "output"
        self.schema = OutputSchema(safe_name, closed or self._plain, closed is not None)

    def parse(self, text: str) -> T:
        """Returns the value of an answer; raises `ValueError` (pydantic's `ValidationError`)."""
        if not self.takes_text:
            return self._checked(lambda: self._parse(_decoded(text)))
        try:
            value = _decoded(text)
        except ValueError:
            value = None
        if isinstance(value, dict) and value.keys() == {_WRAPPER}:
            return self._checked(lambda: self._parse(cast("object", value)))
        return self._checked(lambda: self._adapter.validate_json(msgspec.json.encode(text)))

    def parse_call(self, arguments: str) -> T:
        """Returns the value of the arguments of a call; raises `ValueError`."""
        called = self._called
        return self._checked(lambda: called._parse(_decoded(arguments)))

    def convert(self, value: object) -> T:
        """Returns a value of its plain JSON form, without a wrapper; raises `ValueError`."""
        return self._checked(lambda: self._validated(value))

    def encode(self, value: T) -> str:
        """Returns the JSON of a value, for `parse`; raises `ValueError` if it has none."""

        def encoded() -> str:
            inner = self._adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
            return f'{{"{_WRAPPER}":{inner.decode()}}}' if self._wrapped else inner.decode()

        return self._checked(encoded)

    @cached_property
    def tool(self) -> Tool[..., object]:
        """The tool that takes the output as its arguments; its function accepts anything.

        What is wrong with the arguments is decided where any other answer is checked.
        """
        schema = self._called.schema

        async def accept(**_: object) -> str:
            return "Received."

        return Tool(
            function=accept,
            schema=ToolSchema(
                OUTPUT_TOOL,
                "Gives your final answer. Call it once, when you are done.",
                schema.schema,
                schema.strict,
            ),
            signature=GivenParameters(schema.schema),
            is_async=True,
            idempotent=True,
            takes_output=True,
        )

    @cached_property
    def instructions(self) -> str:
        """What a model is told that is not held to the schema by its provider."""
        schema = msgspec.json.encode(self.schema.schema, order="deterministic").decode()
        return (
            "Your final answer is JSON only, without any other text, and fits this JSON Schema: "
            f"{schema}"
        )

    def explain(self, error: ValueError) -> str:
        """Returns a description of the error that a model can act upon."""
        if isinstance(error, pydantic.ValidationError):
            return explain_validation(error)
        return message_of(error)

    def partial(self, *, is_call: bool = False) -> Callable[[str], T]:
        """Returns what makes a value of an answer that still grows.

        It raises `ValueError` while too little has arrived, and if nothing has been added; see
        `PartialOutput`.
        """
        called = self._called if is_call else self
        last: object = None

        def make(text: str) -> T:
            nonlocal last
            value = growing_json(text)
            if value is None or value == last:
                raise ValueError("nothing was added")
            last = value
            return called._checked(lambda: called._built(value))

        return make

    def _built(self, value: object) -> T:
        if self.schema.strict:
            value = without_nulls(value, self._plain)
        if self._wrapped:
            value = _unwrapped(value)
        return cast("T", self._growing.build(value))

    @cached_property
    def _growing(self) -> PartialOutput:
        return PartialOutput(self._type)

    def _checked(self, get: Callable[[], R]) -> R:
        try:
            return get()
        except ValueError:
            raise
        except BaseException as error:  # a user's validator, or JSON nested too deeply
            reraise_interrupt(error)
            raise ValueError(explain_failure(error)) from error

    def _parse(self, value: object) -> T:
        if self.schema.strict:
            value = without_nulls(value, self._plain)
        if self._wrapped:
            value = _unwrapped(value)
        return self._validated(value)

    def _validated(self, value: object) -> T:
        # Validated as JSON: in JSON mode pydantic accepts dates as text and tuples as lists.
        return self._adapter.validate_json(msgspec.json.encode(value))


def _unwrapped(value: object) -> object:
    if not isinstance(value, dict) or _WRAPPER not in value:
        raise ValueError(f'it must be a JSON object with the member "{_WRAPPER}"')
    return cast("dict[str, object]", value)[_WRAPPER]


def _name_of(type_: object) -> str:
    options = get_args(type_)
    if get_origin(type_) in {Union, UnionType}:
        return "_or_".join(_name_of(option) for option in options)
    return getattr(type_, "__name__", str(type_))


def _without_text(type_: object) -> Any:
    """Returns the other types of a union with `str`, as a union; None for any other type."""
    if get_origin(type_) not in {Union, UnionType}:
        return None
    options = get_args(type_)
    others = tuple(option for option in options if option is not str)
    return Union[others] if others and len(others) < len(options) else None  # noqa: UP007


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
