"""The tree of a thread: its runs, their calls and jobs, and the agents that work for them.

A fold of the thread's events, from which a program can draw the work in progress.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal, assert_never

from msgspec import Struct

from treadle.domain.events import (
    AgentEvent,
    DurableEvent,
    Event,
    HandedOff,
    JobDelegated,
    JobSettled,
    JobStarted,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    TerminalEvent,
    ToolApproved,
    ToolCallRequested,
    ToolDelegated,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.state import RunStatus

MAX_ENDED = 1000
"""How many runs and background jobs that have ended a tree keeps."""

MAX_DETAIL = 200


class TreeNode(Struct, eq=False):
    """A run, a call, a job or an agent in a tree.

    - `id`: of the run, the call or the job; of an agent the thread on which it works, which `tree`
      contains.
    - `name`: of the agent, the tool or the job. `status`: that of a run, or how a call or a job
      ended.
    - `detail`: the beginning of a job's result or a call's output, or why it failed.
    - `began`: Unix seconds. `seconds`: the time it took, None while it is open.
    - `attempt`: how often a call or a job was started. `background`: whether it may outlive
      `run_id`.
    """

    kind: Literal["run", "call", "job", "agent"]
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
    """The runs and background jobs of a thread in `roots`, each with the work it started.

    Pass it the thread's events in their order. A node whose parent began before the first event
    passed is a root as well. Of the roots that have ended, the last 1,000 are kept. `str(tree)`
    draws it.

    - `calls`: whether the calls of tools are nodes of their runs, with the agents that work for
      them.
    """

    def __init__(self, *, calls: bool = False) -> None:
        self.roots: list[TreeNode] = []
        self._with_calls = calls
        self._run: TreeNode | None = None  # that began last
        self._awaited: set[str] = set()
        self._open: dict[str, TreeNode] = {}  # runs and jobs
        self._agents: dict[str, TreeNode] = {}
        self._calls: dict[str, list[TreeNode]] = {}  # the agents that work for a call
        self._open_calls: dict[str, TreeNode] = {}
        self._above: dict[str, TreeNode] = {}
        self._ended: deque[TreeNode] = deque()  # of the roots

    def apply(self, event: Event) -> None:
        """Takes the next event of the thread, durable or live."""
        match event:
            case RunStarted() | RunQueued():
                self._run_began(event)
            case HandedOff() | RunRequiresAction() | RunCancelling() | ToolApproved():
                self._run_changed(event)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._run_ended(event)
            case JobStarted():
                self._job_started(event)
            case JobSettled():
                self._job_settled(event)
            case ToolDelegated() | JobDelegated():
                self._agent_began(event)
            case ToolCallRequested() | ToolStarted():
                if self._with_calls:
                    self._call_began(event)
            case ToolOutputRecorded():
                self._call_ended(event)
            case AgentEvent():
                self._agent_event(event)
            case _:
                pass  # messages and steps are not nodes

    def agents(self) -> Iterator[TreeNode]:
        """Yields the agents that work, or worked, for the runs of this thread."""
        yield from self._agents.values()

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
            node = TreeNode("run", event.run_id, event.agent, event.run_id)
            self._place(node, None)
        node.began = event.at
        if isinstance(event, RunQueued):
            node.status = "queued"
        else:
            node.status = "in_progress"
            self._run = node
            self._awaited.clear()
            self._calls.clear()

    def _run_changed(
        self, event: HandedOff | RunRequiresAction | RunCancelling | ToolApproved
    ) -> None:
        node = self._open.get(event.run_id)
        if node is None:
            return  # it began before the first event passed
        match event:
            case HandedOff():
                node.name = event.agent
            case RunRequiresAction():
                node.status = "requires_action"
                self._awaited = set(event.call_ids)
            case RunCancelling():
                node.status = "cancelling"
            case ToolApproved():
                self._answered(node, event.call_id)
            case _ as unreachable:
                assert_never(unreachable)

    def _answered(self, run: TreeNode, call_id: str) -> None:
        """A run that waits continues as soon as no call is awaited any more."""
        self._awaited.discard(call_id)
        call = self._open_calls.get(call_id)
        if call is not None:
            call.status = "in_progress"
        if run.status == "requires_action" and not self._awaited:
            run.status = "in_progress"

    def _run_ended(self, event: TerminalEvent) -> None:
        node = self._open.get(event.run_id)
        if node is not None:
            detail = event.message if isinstance(event, RunFailed) else ""
            if isinstance(event, RunIncomplete):
                detail = event.stop_reason
            self._end(node, _STATUSES[type(event)], event.at, detail)

    # Calls

    def _call_began(self, event: ToolCallRequested | ToolStarted) -> None:
        if isinstance(event, ToolStarted):
            node = self._open_calls.get(event.call_id)
            if node is not None:
                node.began, node.attempt, node.status = event.at, event.attempt, "in_progress"
            return
        run = self._open.get(event.run_id)
        if run is not None:
            call = event.item
            node = TreeNode("call", call.call_id, call.name, run.id, began=event.at)
            node.status = "in_progress" if event.awaits is None else "requires_action"
            self._open_calls[call.call_id] = node
            run.children.append(node)

    # Jobs

    def _job_started(self, event: JobStarted) -> None:
        above = event.parent or ("" if event.background else event.run_id)
        node = self._open.get(event.job_id)
        if node is None:
            node = TreeNode(
                "job",
                event.job_id,
                event.name,
                event.run_id,
                began=event.at,
                background=event.background,
            )
            self._place(node, self._open.get(above))
        else:  # once more, after a crash
            self._move(node, self._open.get(above))
        node.attempt = event.attempt

    def _job_settled(self, event: JobSettled) -> None:
        node = self._open.get(event.job_id)
        if node is not None:
            self._end(node, event.outcome, event.at, event.output or event.message)
            if event.seconds:  # 0 if the process that ran the job ended before it
                node.seconds = event.seconds

    # Agents

    def _agent_began(self, event: ToolDelegated | JobDelegated) -> None:
        run = self._open.get(event.run_id)
        if isinstance(event, ToolDelegated):
            above = self._open_calls.get(event.call_id, run)
        else:
            above = self._open.get(event.job_id, run)
        node = self._agent(event.thread_id, event.agent, above, event.at)
        if isinstance(event, ToolDelegated):
            self._calls.setdefault(event.call_id, []).append(node)

    def _agent(self, thread_id: str, name: str, above: TreeNode | None, at: float) -> TreeNode:
        node = self._agents.get(thread_id)
        if node is None:
            run_id = above.run_id if above is not None else ""
            node = TreeNode(
                "agent", thread_id, name, run_id, tree=ThreadTree(calls=self._with_calls)
            )
            self._agents[thread_id] = node
            self._place(node, above)
        node.began = node.began or at
        return node

    def _call_ended(self, event: ToolOutputRecorded) -> None:
        call_id = event.item.call_id
        outcome = "failed" if event.item.is_error else "completed"
        for node in self._calls.pop(call_id, ()):
            if node.seconds is None:
                self._end(node, outcome, event.at)
        run = self._open.get(event.run_id)
        if run is not None:
            self._answered(run, call_id)
        call = self._open_calls.pop(call_id, None)
        if call is not None:
            self._close(call, outcome, event.at, event.item.text)
            if event.seconds:  # 0 if it did not run to its end
                call.seconds = event.seconds

    def _agent_event(self, event: AgentEvent) -> None:
        inner = event.event
        run = self._run if self._run is not None and self._run.seconds is None else None
        at = inner.at if isinstance(inner, DurableEvent) else 0.0
        node = self._agent(event.thread_id, event.agent, run, at)
        tree = node.tree
        assert tree is not None
        tree.apply(inner)
        if isinstance(inner, TerminalEvent):
            self._end(node, _STATUSES[type(inner)], inner.at)
        elif node.seconds is None and tree._run is not None:
            node.status = tree._run.status

    # Nodes

    def _place(self, node: TreeNode, above: TreeNode | None) -> None:
        if node.kind != "agent":
            self._open[node.id] = node
        if above is None:
            self.roots.append(node)
        else:
            self._above[node.id] = above
            above.children.append(node)

    def _move(self, node: TreeNode, above: TreeNode | None) -> None:
        """Moves a job that was started again: its parent may have been lost in a crash."""
        before = self._above.get(node.id)
        if before is not above:
            (self.roots if before is None else before.children).remove(node)
            self._above.pop(node.id, None)
            self._place(node, above)

    def _end(self, node: TreeNode, status: RunStatus, at: float, detail: str = "") -> None:
        """Ends a run, a job or an agent, with its calls and the agents that work for it."""
        is_first = node.seconds is None
        self._close(node, status, at, detail)
        self._open.pop(node.id, None)
        if is_first and node.id not in self._above:
            self._ended.append(node)
            if len(self._ended) > MAX_ENDED:
                self._forget(self._ended.popleft())

    def _close(self, node: TreeNode, status: RunStatus, at: float, detail: str = "") -> None:
        node.detail = " ".join(detail[:MAX_DETAIL].split())
        node.status = status
        node.seconds = max(0.0, at - node.began) if node.began else 0.0
        for below in node.children:
            if below.kind in {"agent", "call"} and below.seconds is None:
                self._close(below, status, at)
                if below.kind == "call":
                    self._open_calls.pop(below.id, None)

    def _forget(self, root: TreeNode) -> None:
        self.roots.remove(root)
        below = [root]
        while below:
            node = below.pop()
            if node.kind != "call":  # whose id the model chose
                for known in (self._open, self._agents, self._above):
                    known.pop(node.id, None)
            below += node.children


_STATUSES: dict[type[Event], RunStatus] = {
    RunCompleted: "completed",
    RunIncomplete: "incomplete",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunExpired: "expired",
}


def _line(node: TreeNode) -> str:
    parts = [f"{node.kind} {' '.join(node.name.split())}", node.status.replace("_", " ")]
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
