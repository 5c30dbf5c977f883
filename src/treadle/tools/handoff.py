"""The tool that hands a run over to another agent."""

import re
from dataclasses import replace

from treadle.tools.function import Tool, tool


def handoff_tool(agent: str, description: str) -> Tool[..., object]:
    """Returns the tool `transfer_to_…` for an agent of that name.

    Its function only answers; the loop sees `Tool.handoff` and hands the run over at the end of
    the step.
    """

    async def transfer() -> str:
        return f"{agent} continues the conversation now."

    about = f" {description}" if description else ""
    name = f"transfer_to_{re.sub(r'[^a-zA-Z0-9_-]', '_', agent)}"[:64]
    made = tool(name=name, description=f"Hands the conversation over to {agent}.{about}")(transfer)
    return replace(made, handoff=agent, idempotent=True)
