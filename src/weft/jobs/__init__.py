"""Task trees: a node is done when its whole subtree is done.

Usable alone, inside a running event loop or with one of its own:

    class Greet(Job[str]):
        async def task(self) -> str:
            return await self.submit(Fetch("name"))

    print(Commander().run(Greet()))
"""

from weft.jobs.agent_job import AgentJob
from weft.jobs.blocking import blocking
from weft.jobs.callbacks import Callback, CallbackEvent, Callbacks
from weft.jobs.change import Change, Listener, NodeSettled, NodeStarted, NodeSubmitted
from weft.jobs.commander import Commander
from weft.jobs.context import JobContext, job_context
from weft.jobs.failure import OnFailure
from weft.jobs.graph import END, ConditionalEdge, Graph
from weft.jobs.handler import Handler, HandlerFunction, HandlerMethod, handler
from weft.jobs.job import Announces, Job
from weft.jobs.lifecycle import NodeState
from weft.jobs.node import Node, current_node
from weft.jobs.root import Root
from weft.jobs.scope import Scope
from weft.jobs.start_queue import StartQueue
from weft.jobs.tree import Tree

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
