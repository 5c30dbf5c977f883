"""Task trees: a node is done when its whole subtree is done.

Usable alone, inside a running event loop or with one of its own:

    class Greet(Job[str]):
        async def task(self) -> str:
            return await self.submit(Fetch("name"))

    print(Commander().run(Greet()))
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
    "AgentJob": "agent_job",
    "Callback": "callbacks",
    "CallbackEvent": "callbacks",
    "Callbacks": "callbacks",
    "Change": "node",
    "Listener": "node",
    "NodeSettled": "node",
    "NodeStarted": "node",
    "NodeSubmitted": "node",
    "Commander": "commander",
    "JobContext": "context",
    "job_context": "context",
    "OnFailure": "failure",
    "END": "graph",
    "ConditionalEdge": "graph",
    "Graph": "graph",
    "Handler": "handlers",
    "HandlerFunction": "handlers",
    "HandlerMethod": "handlers",
    "handler": "handlers",
    "Announces": "job",
    "Job": "job",
    "NodeState": "lifecycle",
    "Node": "node",
    "current_node": "node",
    "Root": "root",
    "Scope": "scope",
    "StartQueue": "start_queue",
    "Tree": "tree",
    "blocking": "worker_thread",
}


def __getattr__(name: str) -> object:
    # Imported when first named: `import treadle` needs few of these modules.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
