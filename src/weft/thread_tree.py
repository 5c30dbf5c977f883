"""The tree of a thread: its runs, the jobs they started and the agents that work for them.

A fold of the thread's events, for whoever wants to draw what is going on.
"""

from collections.abc import Iterator
from typing import Literal, assert_never

from msgspec import Struct

from weft.events import (
    AgentEvent,
    Event,
    HandedOff,
    JobDelegated,
    JobSettled,
    JobStarted,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepStarted,
    TerminalEvent,
    ToolApproved,
    ToolDelegated,
    ToolOutputRecorded,
)
from weft.state import RunStatus

MAX_ROOTS = 1000
"""How many runs and background jobs a tree keeps, if as many have ended."""

MAX_DETAIL = 200


class TreeNode(Struct):
    """A run, a job or an agent in a tree.

    - `id`: of the run or the job; of an agent the thread on which it works, told in `tree`.
    - `name`: of the agent or the job. `status`: that of a run, or how a job ended.
    - `detail`: the beginning of a job's result, or why it failed.
    - `began`: Unix seconds. `seconds`: the time it took, None while it is open.
    - `attempt`: how often a job was started. `background`: whether it may outlive `run_id`.
    """

    kind: Literal["run", "job", "agent"]
    id: str
    name: str
    run_id: str
    status: RunStatus = "in_progress"
    detail: str = ""
    began: float = 0.0
    seconds: float | None = None
    attempt: int = 1
    background: bool = False
    children: "list[TreeNode]" = []
    tree: "ThreadTree | None" = None


class ThreadTree:
    """The runs and background jobs of a thread in `roots`, each with what it started.

    Give it the thread's events in their order. Of the roots that have ended, the last 1,000 are
    kept. `str(tree)` draws it.
    """

    def __init__(self) -> None:
        self.roots: list[TreeNode] = []
        self._open: dict[str, TreeNode] = {}
        self._calls: dict[str, list[TreeNode]] = {}

    def apply(self, event: Event) -> None:
        """Takes the next event of the thread, durable or live."""
        match event:
            case RunStarted() | RunQueued():
                self._run_began(event)
            case HandedOff() | RunRequiresAction() | ToolApproved() | StepStarted():
                self._run_changed(event)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._run_ended(event)
            case JobStarted():
                self._job_started(event)
            case JobSettled():
                node = self._open.get(event.job_id)
                self._end(event.job_id, event.outcome, event.at, event.output or event.message)
                if node is not None:
                    node.seconds = event.seconds
            case ToolDelegated():
                self._agent_began(event, event.call_id)
            case JobDelegated():
                self._agent_began(event, event.job_id)
            case ToolOutputRecorded():
                outcome = "failed" if event.item.is_error else "completed"
                for node in self._calls.pop(event.item.call_id, ()):
                    self._end(node.id, outcome, event.at)
            case AgentEvent():
                self._agent_event(event)
            case _:
                pass  # what is said and done within a step is no node

    def agents(self) -> Iterator[TreeNode]:
        """Yields the agents that work, or worked, for the runs of this thread."""
        nodes = self.roots[:]
        while nodes:
            node = nodes.pop()
            if node.kind == "agent":
                yield node
            nodes += node.children

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Yields a line for each node, those of the threads of agents included."""
        below: list[tuple[TreeNode, str, str]] = [(root, "", "") for root in reversed(self.roots)]
        while below:
            node, head, indent = below.pop()
            yield head + _line(node)
            children = [*node.children, *(node.tree.roots if node.tree is not None else ())]
            for child in reversed(children):
                is_last = child is children[-1]
                mark, bar = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
                below.append((child, indent + mark, indent + bar))

    # Runs

    def _run_began(self, event: RunStarted | RunQueued) -> None:
        node = self._open.get(event.run_id)
        if node is None:
            node = TreeNode("run", event.run_id, event.agent, event.run_id, children=[])
            self._add(node, None)
        node.status = "queued" if isinstance(event, RunQueued) else "in_progress"
        node.began = event.at

    def _run_changed(
        self, event: HandedOff | RunRequiresAction | ToolApproved | StepStarted
    ) -> None:
        node = self._open.get(event.run_id)
        if node is None:
            return  # its beginning was not told
        match event:
            case HandedOff():
                node.name = event.agent
            case RunRequiresAction():
                node.status = "requires_action"
            case ToolApproved() | StepStarted():
                node.status = "in_progress"
            case _ as unreachable:
                assert_never(unreachable)

    def _run_ended(self, event: TerminalEvent) -> None:
        detail = event.message if isinstance(event, RunFailed) else ""
        if isinstance(event, RunIncomplete):
            detail = event.stop_reason
        self._end(event.run_id, _STATUSES[type(event)], event.at, detail)

    # Jobs and agents

    def _job_started(self, event: JobStarted) -> None:
        node = self._open.get(event.job_id)
        if node is not None:  # once more, after a crash, and no longer below what is lost
            node.attempt = event.attempt
            return
        node = TreeNode(
            "job",
            event.job_id,
            event.name,
            event.run_id,
            began=event.at,
            attempt=event.attempt,
            background=event.background,
            children=[],
        )
        self._add(node, event.parent or (None if event.background else event.run_id))

    def _agent_began(self, event: ToolDelegated | JobDelegated, above: str) -> None:
        node = self._agent(event.agent, event.thread_id, event.run_id, above)
        node.began = node.began or event.at
        if isinstance(event, ToolDelegated):
            self._calls.setdefault(event.call_id, []).append(node)

    def _agent(self, name: str, thread_id: str, run_id: str, above: str) -> TreeNode:
        node = self._open.get(thread_id)
        if node is None:
            node = TreeNode("agent", thread_id, name, run_id, children=[], tree=ThreadTree())
            self._add(node, above if above in self._open else run_id)
        return node

    def _agent_event(self, event: AgentEvent) -> None:
        inner = event.event
        node = self._open.get(event.thread_id)
        if node is None:
            running = next((n.id for n in reversed(self.roots) if n.kind == "run"), "")
            node = self._agent(event.agent, event.thread_id, running, event.call_id)
        assert node.tree is not None
        node.tree.apply(inner)
        if isinstance(inner, TerminalEvent):
            self._end(node.id, _STATUSES[type(inner)], inner.at)

    # Nodes

    def _add(self, node: TreeNode, above: str | None) -> None:
        parent = self._open.get(above) if above else None
        self._open[node.id] = node
        if parent is not None:
            parent.children.append(node)
            return
        self.roots.append(node)
        if len(self.roots) > MAX_ROOTS:
            oldest = next((root for root in self.roots if root.seconds is not None), None)
            if oldest is not None:
                self.roots.remove(oldest)

    def _end(self, id: str, status: RunStatus, at: float, detail: str = "") -> None:
        """Ends a node, and the agents below it: nothing works for what has ended."""
        node = self._open.pop(id, None)
        if node is None:
            return
        node.status, node.detail = status, " ".join(detail[:MAX_DETAIL].split())
        node.seconds = max(0.0, at - node.began) if node.began else 0.0
        for child in node.children:
            if child.kind == "agent":
                self._end(child.id, status, at)


_STATUSES: dict[type[Event], RunStatus] = {
    RunCompleted: "completed",
    RunIncomplete: "incomplete",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunExpired: "expired",
}


def _line(node: TreeNode) -> str:
    parts = [f"{node.kind} {node.name}", node.status.replace("_", " ")]
    if node.background:
        parts[0] = f"background {parts[0]}"
    if node.attempt > 1:
        parts.append(f"attempt {node.attempt}")
    if node.seconds is not None:
        parts.append(f"{node.seconds:.1f} s")
    parts.append(node.id)
    if node.detail:
        parts.append(node.detail)
    return "  ".join(parts)
