"""Tools that the caller of a run answers, known only by their JSON Schema."""

from collections.abc import Mapping

from treadle.domain.options import ExternalTool
from treadle.domain.schema import JsonSchema, ToolSchema
from treadle.tools.function import Tool
from treadle.tools.json_schema import find_problem
from treadle.tools.parameters import GivenParameters


class CheckedParameters(GivenParameters):
    """Parameters of a JSON Schema that is checked here: the caller gets valid arguments only."""

    def __init__(self, schema: JsonSchema) -> None:
        super().__init__(schema)
        self._schema = schema

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the arguments; raises `ValueError` for some that do not fit the schema."""
        problem = find_problem(arguments, self._schema)
        if problem:
            raise ValueError(problem)
        return dict(arguments)


def external_tool(declared: ExternalTool) -> Tool[..., object]:
    """Returns a declared tool as one that a run can have."""

    async def answered_outside(**_: object) -> object:
        """Is never called: the output is submitted to the thread."""
        raise NotImplementedError

    parameters = CheckedParameters(declared.parameters)
    return Tool(
        function=answered_outside,
        schema=ToolSchema(
            declared.name, declared.description, parameters.parameters, declared.strict
        ),
        signature=parameters,
        is_async=True,
        external=True,
    )
