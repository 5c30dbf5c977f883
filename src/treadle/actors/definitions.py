"""The agents of a thread as they work there: within its limits, with the options of its run."""

from treadle.actors.host import AnyAgent, Host
from treadle.domain.state import Run
from treadle.journal.base import ThreadInfo
from treadle.loop.definition import agent_with_options, agent_within


def agent_on(host: Host, info: ThreadInfo, name: str) -> AnyAgent:
    """Returns an agent; one that works for another run, within what was left to that.

    Raises `UnknownAgent`.
    """
    agent, work = host.agent(name), info.work
    return agent if work is None else agent_within(agent, work.limits)


def agent_of(host: Host, info: ThreadInfo, run: Run) -> AnyAgent:
    """Returns the agent that works on a run, with the options of the run.

    Raises `UnknownAgent`, and what `agent_with_options` raises.
    """
    agent = agent_on(host, info, run.agent)
    if run.options is None:
        return agent
    return agent_with_options(agent, run.options, host.catalog, run.first_agent)
