"""Schemas for the model: of a function it may call, and of the output it must give."""

from collections.abc import Mapping

from msgspec import Struct

JsonSchema = Mapping[str, object]


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
