"""The parameter in which the model announces a call to the user.

It is part of the schema that the model sees only: the function does not get it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import cast

from msgspec.structs import replace

from treadle.domain.schema import JsonSchema, ToolSchema
from treadle.errors import InvalidTool

TO_USER = "to_user"
"""The default name of the parameter."""

_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]{0,63}")
_PARAMETER = {
    "type": "string",
    "description": (
        "Write this first: one short sentence to the user, in the user's language, that says what "
        'you are about to do, such as "Let me look that up…". It is shown at once, before the '
        "call is made."
    ),
}


def spoken(schema: ToolSchema, parameter: str) -> ToolSchema:
    """Returns a copy of `schema` with `parameter` before all others, required.

    Raises `InvalidTool` if there is such a parameter already, or the name is not an identifier.
    """
    if not _IDENTIFIER.fullmatch(parameter):
        raise InvalidTool(
            f"to_user={parameter!r} is not a valid parameter name; use an identifier of at most 64 "
            f"letters, digits and _, or True for {TO_USER!r}."
        )
    parameters = schema.parameters
    properties = cast("JsonSchema", parameters.get("properties", {}))
    if parameter in properties:
        raise InvalidTool(
            f"The tool {schema.name} has a parameter {parameter!r} already; rename it, or give "
            'the announcement another name: to_user="…".'
        )
    required = cast("Sequence[str]", parameters.get("required", ()))
    return replace(
        schema,
        parameters={
            **parameters,
            "properties": {parameter: _PARAMETER, **properties},
            "required": [parameter, *required],
        },
    )


def without(arguments: Mapping[str, object], parameter: str) -> Mapping[str, object]:
    """Returns the arguments without `parameter`, in any position and of any type."""
    if not parameter or parameter not in arguments:
        return arguments
    return {name: value for name, value in arguments.items() if name != parameter}
