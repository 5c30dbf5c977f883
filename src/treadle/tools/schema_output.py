"""The output of a run that is given as a JSON Schema instead of a type."""

from collections.abc import Mapping

from treadle.domain.schema import JsonSchema, OutputSchema
from treadle.errors import InvalidInput
from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.json_schema import find_problem, require_schema
from treadle.tools.output_type import OutputType
from treadle.tools.strict import strict_schema


class SchemaOutput(OutputType[object]):
    """An output whose values are JSON: dictionaries, lists, texts, numbers.

    `given.schema` is what the value must fit. The provider gets it in its strict subset if
    `given.strict` is set and the schema has such a form, else as it is; one that is not an object
    is wrapped as with `OutputType`.
    """

    def __init__(self, given: OutputSchema) -> None:
        self._given = given.schema
        self._adapter = pydantic.TypeAdapter[object](object)
        self._wrap(given.schema, given.name, strict=given.strict)

    def _validated(self, value: object) -> object:
        problem = find_problem(value, self._given)
        if problem:
            raise ValueError(problem)
        return value


def require_output_schema(schema: Mapping[str, object], name: str = "") -> OutputSchema:
    """Returns the JSON Schema of an output with its name, by default its title.

    Raises `InvalidInput` for what is not a JSON Schema.
    """
    checked: JsonSchema = require_schema("output", schema)
    title = name or checked.get("title")
    given = title if isinstance(title, str) and title else "output"
    return OutputSchema(given, checked, strict=_strictly(checked))


def _strictly(schema: JsonSchema) -> bool:
    try:
        return strict_schema(schema) is not None
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"output is not a JSON Schema: {error}.") from error
