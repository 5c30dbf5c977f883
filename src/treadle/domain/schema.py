"""What a model is told about a function it may call, or about the output it shall give."""

from collections.abc import Mapping

from msgspec import Struct

JsonSchema = Mapping[str, object]


class ToolSchema(Struct, frozen=True):
    """A function as the model sees it.

    `strict` asks the provider to constrain the arguments to `parameters`; it is set only where
    the schema fits the strict subset of JSON Schema.
    """

    name: str
    description: str
    parameters: JsonSchema
    strict: bool


class OutputSchema(Struct, frozen=True):
    """The JSON Schema that the text of the final message shall fit."""

    name: str
    schema: JsonSchema
    strict: bool
