"""Agents: which ones answer, with which tools."""

from typing import Any

from treadle.loop.definition import AgentDefinition
from treadle.models.windows import window_of
from treadle.server.api_request import ApiRequest
from treadle.server.bodies import AgentInfo, ToolInfo
from treadle.server.operation import Operations, Page
from treadle.server.services import Services

AGENTS = Operations("Agents")


@AGENTS.add("GET", "/agents", scope="read", answers={200: AgentInfo}, is_page=True)
async def list_agents(request: ApiRequest[Any, None]) -> Page:
    """Lists the agents."""
    return Page(
        [_info(agent, request.services) for agent in request.services.runtime.agents.values()]
    )


@AGENTS.add("GET", "/agents/{name}", scope="read", answers={200: AgentInfo})
async def read_agent(request: ApiRequest[Any, None]) -> AgentInfo:
    """Returns an agent."""
    return _info(request.services.runtime.agent(request.path["name"]), request.services)


def _info(agent: AgentDefinition[Any, Any], services: Services) -> AgentInfo:
    budget = agent.budget
    return AgentInfo(
        name=agent.name,
        description=agent.description,
        model=agent.model.name,
        serves=agent.name in services.served,
        examples=list(agent.examples),
        window=window_of(agent.model.name) if budget is None else budget.window,
        tools=[
            ToolInfo(
                name=tool.name,
                description=tool.schema.description,
                parameters=tool.schema.parameters,
                external=tool.external,
                needs_approval=tool.needs_approval is not False,
                to_user=tool.to_user,
            )
            for tool in agent.tools
        ],
        handoffs=list(agent.handoffs),
        overridable=sorted(agent.overridable),
    )
