"""Task trees: a node is done when its whole subtree is done.

Usable alone, inside a running event loop or with one of its own:

    class Greet(Job[str]):
        async def task(self) -> str:
            return await self.submit(Fetch("name"))

    print(Commander().run(Greet()))
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

if TYPE_CHECKING:
    from treadle.jobs.agent_job import AgentJob
    from treadle.jobs.callbacks import Callback, CallbackEvent, Callbacks
    from treadle.jobs.commander import Commander
    from treadle.jobs.context import JobContext, job_context
    from treadle.jobs.failure import OnFailure
    from treadle.jobs.graph import END, ConditionalEdge, Graph
    from treadle.jobs.handlers import Handler, HandlerFunction, HandlerMethod, handler
    from treadle.jobs.job import Announces, Job
    from treadle.jobs.lifecycle import NodeState
    from treadle.jobs.node import (
        Change,
        Listener,
        Node,
        NodeSettled,
        NodeStarted,
        NodeSubmitted,
        current_node,
    )
    from treadle.jobs.root import Root
    from treadle.jobs.scope import Scope
    from treadle.jobs.start_queue import StartQueue
    from treadle.jobs.tree import Tree
    from treadle.jobs.worker_thread import blocking

__all__ = [
    "END",
    "AgentJob",
    "Announces",
    "Callback",
    "CallbackEvent",
    "Callbacks",
    "Change",
    "Commander",
    "ConditionalEdge",
    "Graph",
    "Handler",
    "HandlerFunction",
    "HandlerMethod",
    "Job",
    "JobContext",
    "Listener",
    "Node",
    "NodeSettled",
    "NodeStarted",
    "NodeState",
    "NodeSubmitted",
    "OnFailure",
    "Root",
    "Scope",
    "StartQueue",
    "Tree",
    "blocking",
    "current_node",
    "handler",
    "job_context",
]

_MODULES = {
    "AgentJob": "treadle.jobs.agent_job",
    "Callback": "treadle.jobs.callbacks",
    "CallbackEvent": "treadle.jobs.callbacks",
    "Callbacks": "treadle.jobs.callbacks",
    "Change": "treadle.jobs.node",
    "Listener": "treadle.jobs.node",
    "NodeSettled": "treadle.jobs.node",
    "NodeStarted": "treadle.jobs.node",
    "NodeSubmitted": "treadle.jobs.node",
    "Commander": "treadle.jobs.commander",
    "JobContext": "treadle.jobs.context",
    "job_context": "treadle.jobs.context",
    "OnFailure": "treadle.jobs.failure",
    "END": "treadle.jobs.graph",
    "ConditionalEdge": "treadle.jobs.graph",
    "Graph": "treadle.jobs.graph",
    "Handler": "treadle.jobs.handlers",
    "HandlerFunction": "treadle.jobs.handlers",
    "HandlerMethod": "treadle.jobs.handlers",
    "handler": "treadle.jobs.handlers",
    "Announces": "treadle.jobs.job",
    "Job": "treadle.jobs.job",
    "NodeState": "treadle.jobs.lifecycle",
    "Node": "treadle.jobs.node",
    "current_node": "treadle.jobs.node",
    "Root": "treadle.jobs.root",
    "Scope": "treadle.jobs.scope",
    "StartQueue": "treadle.jobs.start_queue",
    "Tree": "treadle.jobs.tree",
    "blocking": "treadle.jobs.worker_thread",
}


def __getattr__(name: str) -> object:
    # Imported when first named: `import treadle` needs few of these modules.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
