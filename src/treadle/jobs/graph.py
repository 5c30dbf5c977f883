"""A graph: steps, and the edges that decide which of them comes next."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Generic, cast

from typing_extensions import TypeVar

from treadle.errors import ConfigurationError, TooManySteps, UnknownStep
from treadle.jobs.failure import OnFailure, require_on_failure
from treadle.jobs.handlers import Handler
from treadle.jobs.node import FunctionNode, Node

V_contra = TypeVar("V_contra", contravariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)

END: Final = "__end__"
"""Where an edge leads that ends the graph."""

MAX_STEPS = 1000

Maker = Callable[[Any], "Node[Any] | Coroutine[Any, Any, Any]"]
"""What makes a node of a value: a job class, a handler function, a graph, or a coroutine function.

Its one argument is the result of the step before.
"""


class ConditionalEdge:
    """An edge to the step that a function of the result names: one of `steps`, which may be `END`.

        ConditionalEdge(by_mark, "write", "publish")

    `choose` is called on the event loop, so it must be short. Raises `ConfigurationError` for an
    async function, and without `steps`.
    """

    def __init__(self, choose: Callable[[Any], str], *steps: str) -> None:
        if inspect.iscoroutinefunction(choose):
            raise ConfigurationError(
                f"The condition {_name_of(choose)} is async; let a step find out what it needs, "
                "and the condition choose by its result."
            )
        if not steps:
            raise ConfigurationError(
                f"The condition {_name_of(choose)} leads nowhere; list the steps it may name."
            )
        self.choose = choose
        self.steps = steps

    def __str__(self) -> str:
        return f"{_name_of(self.choose)}: {_alternatives(self.steps)}"


Edge = str | ConditionalEdge
"""The name of the next step, or `END`, or a condition that chooses."""


class Graph(Generic[V_contra, R_co]):
    """A definition of steps and edges; called with a value, it makes a node that walks them.

        review = Graph[str, str](
            steps={"write": Write, "judge": judge, "publish": publish},
            edges={
                "write": "judge",
                "judge": ConditionalEdge(by_mark, "write", "publish"),
                "publish": END,
            },
            start="write",
        )
        text = await node.submit(review("weaving"))

    `Graph[V, R]` takes a value of type V and results in one of type R; what goes from step to step
    is not checked.

    - `steps`: what makes the node of each step, by its name. The first step gets the value that
      the graph was called with, each other the result of the step before. Several in a sequence
      run at the same time, each with that same value; the result of the step is the tuple of
      theirs, in the order of the sequence.
    - `edges`: what comes after each step; edges may lead back. Every step has one.
    - `start`: the first step.
    - `name`: the name of its node in reports.
    - `max_steps`: how many steps it may take; None is any number. Default 1,000.
    - `on_failure`: a step that fails fails the graph; with `"fail_fast"` those in parallel are
      cancelled, with `"collect"` they run to their end. By default that of its parent.

    A graph can itself be a step of another graph. Raises `ConfigurationError` for names that are
    not steps, a step without an edge, a step that cannot be reached, a `max_steps` below 1, and an
    `on_failure` that is unknown.
    """

    def __init__(
        self,
        steps: Mapping[str, Maker | Sequence[Maker]],
        edges: Mapping[str, Edge],
        *,
        start: str,
        name: str = "graph",
        max_steps: int | None = MAX_STEPS,
        on_failure: OnFailure | None = None,
    ) -> None:
        if max_steps is not None and max_steps < 1:
            raise ConfigurationError("max_steps must be at least 1.")
        if on_failure is not None:
            require_on_failure("on_failure", on_failure)
        self._name = name
        self._start = start
        self._max_steps = max_steps
        self._on_failure: OnFailure | None = on_failure
        self._steps = {name: _require_makers(name, step) for name, step in steps.items()}
        self._edges = dict(edges)
        self._require_names()
        self._require_reachable()

    @property
    def name(self) -> str:
        """What its node is called in reports."""
        return self._name

    def __call__(self, value: V_contra) -> Node[R_co]:
        """Returns a node that goes from the first step, with `value`, to the end.

        The steps are its children; it keeps none that has settled, so that it may loop forever.
        It fails with what a step of it failed with, with `NodeCancelled` where a step alone was
        cancelled, with `TooManySteps` beyond `max_steps`, and with `UnknownStep` where a condition
        chose what its edge does not list.
        """
        return _Walk(lambda node: self._walk(node, value), self._name, self._on_failure)

    def drawing(self) -> str:
        """Returns the graph as text: a line for its start, and one for each step with its edge."""
        return "\n".join([f"{self._name} → {self._start}", *map(self._line, self._steps)])

    def __repr__(self) -> str:
        return f"<Graph {self._name}: {', '.join(self._steps)}>"

    async def _walk(self, node: Node[object], value: object) -> R_co:
        name, taken = self._start, 0
        while name != END:
            if taken == self._max_steps:
                raise TooManySteps(
                    f"The graph {self._name} has taken {taken} step{'s' * (taken > 1)} and would "
                    f"continue with {name}. If it has to run for longer, raise max_steps."
                )
            taken += 1
            value = await self._take(node, name, value)
            name = self._after(name, value)
        return cast("R_co", value)

    async def _take(self, node: Node[object], name: str, value: object) -> object:
        """Runs a step; returns its result."""
        makers = self._steps[name]
        if callable(makers):
            return await (await node.submit(_make(name, makers, value)))
        made = [_make(f"{name}: {_name_of(maker)}", maker, value) for maker in makers]
        nodes = [await node.submit(one) for one in made]
        return tuple([await one for one in nodes])

    def _after(self, name: str, result: object) -> str:
        """Returns the step that comes after one with that result, or `END`."""
        edge = self._edges[name]
        if isinstance(edge, str):
            return edge
        chosen = edge.choose(result)
        if chosen not in edge.steps:
            raise UnknownStep(
                f"The condition after {name} chose {chosen!r}, and its edge has only "
                f"{_alternatives(edge.steps)}; list there what it may choose."
            )
        return chosen

    def _line(self, name: str) -> str:
        makers, edge = self._steps[name], self._edges[name]
        several = "" if callable(makers) else f" ({', '.join(map(_name_of, makers))})"
        return f"{name}{several} → {_shown(edge) if isinstance(edge, str) else edge}"

    def _require_names(self) -> None:
        known = ", ".join(self._steps) or "there are none"
        if END in self._steps:
            raise ConfigurationError(f"A step cannot be called {END!r}; that is the end.")
        if self._start not in self._steps:
            raise ConfigurationError(f"The start {self._start!r} is not a step. Steps: {known}.")
        for name in self._edges:
            if name not in self._steps:
                raise ConfigurationError(
                    f"There is an edge from {name!r}, which is not a step. Steps: {known}."
                )
            for target in self._targets(name):
                if target != END and target not in self._steps:
                    raise ConfigurationError(
                        f"The edge from {name} leads to {target!r}, which is not a step. "
                        f"Steps: {known}, and END."
                    )
        for name in self._steps:
            if name not in self._edges:
                raise ConfigurationError(f"The step {name} has no edge; lead it on, or to END.")

    def _require_reachable(self) -> None:
        reached, ahead = {self._start}, [self._start]
        while ahead:
            targets = set(self._targets(ahead.pop())) - reached - {END}
            reached |= targets
            ahead += targets
        lost = [name for name in self._steps if name not in reached]
        if lost:
            raise ConfigurationError(
                f"No way leads from {self._start} to {', '.join(lost)}; add an edge, or leave "
                "them out."
            )

    def _targets(self, name: str) -> Sequence[str]:
        edge = self._edges[name]
        return (edge,) if isinstance(edge, str) else edge.steps


class _Walk(Handler[R_co]):
    """A node that walks a graph."""

    __slots__ = ()

    keeps_children = False


def _require_makers(name: str, step: object) -> Maker | tuple[Maker, ...]:
    if callable(step):
        return cast("Maker", step)
    makers = tuple(cast("Sequence[Maker]", step)) if isinstance(step, Sequence) else ()
    if not makers or not all(map(callable, makers)):
        raise ConfigurationError(
            f"The step {name} must be what makes a node of a value: a job class and not a job, a "
            "handler or coroutine function that is not called yet, a graph, or several of these."
        )
    return makers


def _make(name: str, maker: Maker, value: object) -> Node[object]:
    node = FunctionNode(maker, (value,)) if inspect.iscoroutinefunction(maker) else maker(value)
    if not isinstance(node, Node):
        if inspect.iscoroutine(node):
            node.close()
        raise ConfigurationError(
            f"The step {name} made a {type(node).__name__}, and no node; it must be a job class, a "
            "handler or coroutine function, or a graph."
        )
    node.name = name
    return cast("Node[object]", node)


def _name_of(thing: object) -> str:
    if isinstance(thing, Graph):
        return cast("Graph[Any, Any]", thing).name
    return getattr(thing, "__name__", None) or type(thing).__name__


def _alternatives(steps: Sequence[str]) -> str:
    return " | ".join(map(_shown, steps))


def _shown(step: str) -> str:
    return "END" if step == END else step
