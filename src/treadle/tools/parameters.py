"""The parameters of a tool: a JSON Schema for the model, and a validator for calls."""

from collections.abc import Mapping
from typing import Protocol

from treadle.domain.schema import JsonSchema

# Not a valid parameter name in any language, so no argument can have the same name.
CONTEXT = "treadle context"


class Parameters(Protocol):
    """The parameters of a tool; read from a function (`Signature`) or `GivenParameters`.

    - `parameters`: the JSON Schema of the arguments.
    - `plain`: that schema before it was made strict, in which optional arguments may be omitted.
    - `strict`: whether that schema is in the strict subset.
    - `takes_nothing`: whether a call without any arguments is complete.
    - `context_parameter`: the name of the parameter that takes the `RunContext`, if there is one.
    """

    @property
    def parameters(self) -> JsonSchema: ...
    @property
    def plain(self) -> JsonSchema: ...
    @property
    def strict(self) -> bool: ...
    @property
    def takes_nothing(self) -> bool: ...
    @property
    def context_parameter(self) -> str | None: ...

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the keyword arguments of the function; raises `ValueError` for invalid ones."""
        ...


class GivenParameters:
    """The parameters of a remote function, known only by their JSON Schema.

    The server of the function checks its arguments; here any JSON object is valid. The tool's
    function takes `**arguments`; they include the `RunContext` under the key `CONTEXT`.
    """

    strict = False
    context_parameter = CONTEXT

    def __init__(self, schema: JsonSchema) -> None:
        # Some providers refuse an object without properties, and none uses `$schema`.
        kept = {key: value for key, value in schema.items() if key != "$schema"}
        self.parameters: JsonSchema = {"type": "object", "properties": {}, **kept}
        self.plain = self.parameters
        self.takes_nothing = not self.parameters["properties"]

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the arguments as they are."""
        return dict(arguments)
