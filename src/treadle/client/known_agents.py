"""The agents of a server that a client knows as well, for the types of their outputs."""

from typing import Any

from treadle.domain.state import Run
from treadle.errors import UnknownAgent
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition, agent_with_options, reachable_from

AnyAgent = AgentDefinition[Any, Any]


class KnownAgents:
    """Agents by name, and the `catalog` of what options of runs name."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self._agents: dict[str, AnyAgent] = {}

    def register(self, agent: AgentDefinition[Any, Any]) -> None:
        """Makes an agent known, and those it may hand over to or have work for it."""
        self._agents.update(reachable_from(agent))

    def agent_of(self, run: Run) -> AnyAgent:
        """Returns the agent that worked on a run; raises `UnknownAgent` if it is not known here."""
        agent = self._agents.get(run.agent)
        if agent is None:
            raise UnknownAgent(
                f"The agent {run.agent[:100]!r} is not known to this client; pass "
                "Client(agents=[agent]), or use the JSON of result()."
            )
        if run.options is None:
            return agent
        return agent_with_options(agent, run.options.of_result, self.catalog, run.first_agent)
