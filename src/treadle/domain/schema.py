"""Schemas for the model: of a function it may call, and of the output it must give."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

JsonSchema = Mapping[str, object]

OutputMode = Literal["native", "tool", "prompted"]
"""How a model is asked for structured output.

With the JSON Schema in the request (`native`), with a tool that takes the output as its arguments
(`tool`), or with the schema in the instructions (`prompted`).
"""


class ToolSchema(Struct, frozen=True):
    """A function as the model sees it.

    `strict` asks the provider to constrain the arguments to `parameters`; it is set only if
    the schema fits the strict subset of JSON Schema.
    """

    name: str
    description: str
    parameters: JsonSchema
    strict: bool


class OutputSchema(Struct, frozen=True):
    """The JSON Schema that the text of the final message must fit."""

    name: str
    schema: JsonSchema
    strict: bool
