"""The tool behind a call that the provider makes once a person has approved it."""

from treadle.domain.schema import ToolSchema
from treadle.tools.function import Tool
from treadle.tools.parameters import GivenParameters

APPROVED = "The call was approved."


def remote_tool(name: str) -> Tool[..., object]:
    """Returns the tool of a call with `FunctionCall.runs_at_provider`.

    Its output goes to the provider as the approval, and the provider makes the call then.
    """
    parameters = GivenParameters({})

    async def approved(**_: object) -> object:
        """Runs once the call is approved; the provider does the work."""
        return APPROVED

    return Tool(
        function=approved,
        schema=ToolSchema(name, "", parameters.parameters, strict=False),
        signature=parameters,
        is_async=True,
        idempotent=True,
        needs_approval=True,
    )
