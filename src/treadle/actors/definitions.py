"""The agents of a thread as they work there: within its limits, with the options of its run."""

from treadle.actors.host import AnyAgent, Host
from treadle.domain.state import Run
from treadle.journal.base import ThreadInfo


def agent_on(host: Host, info: ThreadInfo, name: str) -> AnyAgent:
    """Returns an agent; one that works for another run, within what was left to that.

    Raises `UnknownAgent`.
    """
    agent, work = host.agent(name), info.work
    return agent if work is None else agent.within(work.limits)


def agent_of(host: Host, info: ThreadInfo, run: Run) -> AnyAgent:
    """Returns the agent that works on a run, with the options of the run.

    Raises `UnknownAgent`, and what `AgentDefinition.with_options` raises.
    """
    agent = agent_on(host, info, run.agent)
    if run.options is None:
        return agent
    return agent.with_options(run.options, host.catalog, run.first_agent)
