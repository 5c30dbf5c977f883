"""The type of an agent's structured output: its schema for the model, its validation for us."""

import re
from typing import Any, Generic, TypeVar, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from weft.errors import ConfigurationError
from weft.schema import OutputSchema
from weft.tools.strict import strict_schema, without_titles
from weft.tools.validation import explain_validation

T = TypeVar("T")

_WRAPPER = "value"


class OutputType(Generic[T]):
    """A type that the final text must parse as: a pydantic model, dataclass, TypedDict, list, …

    Providers ask for an object; another type is wrapped as `{"value": …}`. Raises
    `ConfigurationError` for a type that JSON cannot say.
    """

    def __init__(self, type_: type[T]) -> None:
        name = getattr(type_, "__name__", str(type_))
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(type_)
            schema = without_titles(self._adapter.json_schema(mode="validation"))
        except (PydanticUserError, PydanticInvalidForJsonSchema) as error:
            raise ConfigurationError(f"The output type {name} cannot be said in JSON.") from error
        self._wrapped = schema.get("type") != "object"
        if self._wrapped:
            defs = schema.get("$defs")
            inner = {key: value for key, value in schema.items() if key != "$defs"}
            schema = {
                "type": "object",
                "properties": {_WRAPPER: inner},
                "required": [_WRAPPER],
                **({"$defs": defs} if defs else {}),
            }
        strict = strict_schema(schema)
        safe_name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "output"
        self.schema = OutputSchema(safe_name, strict or schema, strict is not None)

    def parse(self, text: str) -> T:
        """Returns the value of `text`; raises `ValueError` (pydantic's `ValidationError`)."""
        if not self._wrapped:
            return self._adapter.validate_json(_unfenced(text))
        wrapper = TypeAdapter(dict[str, Any]).validate_json(_unfenced(text))
        if _WRAPPER not in wrapper:
            raise ValueError(f'the object has no member "{_WRAPPER}"')
        return self._adapter.validate_python(wrapper[_WRAPPER], strict=False)

    def explain(self, error: ValueError) -> str:
        """Returns what is wrong, in words a model can act upon."""
        if isinstance(error, ValidationError):
            return explain_validation(error)
        return str(error)


def _unfenced(text: str) -> str:
    """Returns the text inside a Markdown code fence, which models like to add, or the text."""
    found = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", text, re.DOTALL)
    return cast("str", found[1]) if found else text
