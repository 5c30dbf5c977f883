"""What a tool takes: told to the model as a JSON Schema, checked before a call."""

from collections.abc import Mapping
from typing import Protocol

from treadle.domain.schema import JsonSchema

# Not the name of a parameter in any language, so that no argument is called the same.
CONTEXT = "treadle context"


class Parameters(Protocol):
    """What a tool takes; read from a function (`Signature`) or given (`GivenParameters`).

    - `parameters`: the JSON Schema of the arguments.
    - `strict`: whether that schema is in the strict subset.
    - `takes_nothing`: whether a call without any arguments is complete.
    - `context_parameter`: the name of the parameter that takes the `RunContext`, if there is one.
    """

    @property
    def parameters(self) -> JsonSchema: ...
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
    """The parameters of a function that lives elsewhere, known by their JSON Schema only.

    Whoever serves the function checks its arguments; here they are any JSON object. The tool's
    function takes `**arguments`; among them is the `RunContext` under `CONTEXT`.
    """

    strict = False
    context_parameter = CONTEXT

    def __init__(self, schema: JsonSchema) -> None:
        # Some providers refuse an object without properties; `$schema` means nothing to any.
        kept = {key: value for key, value in schema.items() if key != "$schema"}
        self.parameters: JsonSchema = {"type": "object", "properties": {}, **kept}
        self.takes_nothing = not self.parameters["properties"]

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the arguments as they are."""
        return dict(arguments)
