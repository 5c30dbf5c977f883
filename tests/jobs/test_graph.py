import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import ConfigurationError, NodeCancelled, NodeReused, TooManySteps, UnknownStep
from treadle.jobs import END, Commander, ConditionalEdge, Graph, Handler, Job, Node, handler
from treadle.testing import run

pytestmark = pytest.mark.anyio


@dataclass
class Double(Job[int]):
    number: int

    async def task(self) -> int:
        return 2 * self.number


@handler
async def add_one(node: Handler[int], number: int) -> int:
    return number + 1


async def negate(number: int) -> int:
    return -number


async def fail(value: object) -> None:
    raise ValueError(value)


def big(number: int) -> str:
    return END if number > 100 else "double"


def one_step(make: Any, edge: str | ConditionalEdge = END, **options: Any) -> Graph[Any, Any]:
    return Graph({"only": make}, {"only": edge}, start="only", **options)


async def result_of(node: Node[Any]) -> object:
    async with Commander() as commander:
        return await commander.call(node)


async def test_the_result_of_each_step_is_the_value_of_the_next() -> None:
    graph = Graph[int, int](
        {"double": Double, "add": add_one, "negate": negate},
        {"double": "add", "add": "negate", "negate": END},
        start="double",
    )
    assert await result_of(graph(10)) == -21
    assert await result_of(graph(1)) == -3


async def test_edges_may_lead_back() -> None:
    graph = Graph[int, int](
        {"double": Double, "add": add_one},
        {"double": "add", "add": ConditionalEdge(big, "double", END)},
        start="double",
    )
    assert await result_of(graph(0)) == 127


async def test_several_run_at_the_same_time() -> None:
    async def wait(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"waited {seconds}"

    def longer(seconds: float) -> Node[str]:
        return one_step(wait)(2 * seconds)

    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await result_of(one_step([wait, longer, Double])(10)) == ("waited 10", "waited 20", 20)
    assert loop.time() - start == pytest.approx(20)


async def test_a_single_one_in_a_sequence_gives_a_tuple() -> None:
    assert await result_of(one_step([negate])(1)) == (-1,)


async def test_a_graph_is_a_step_of_a_graph() -> None:
    inner = Graph[int, int](
        {"add": add_one, "negate": negate}, {"add": "negate", "negate": END}, start="add"
    )
    outer = Graph[int, tuple[int, int]](
        {"inner": inner, "both": [inner, Double]}, {"inner": "both", "both": END}, start="inner"
    )
    assert await result_of(outer(1)) == (1, -4)


async def test_a_step_of_a_step_is_waited_for() -> None:
    """A step may place children of its own; the next begins when they have settled."""
    seen: list[str] = []

    async def later() -> None:
        await asyncio.sleep(60)
        seen.append("child")

    @handler
    async def first(node: Handler[None], value: None) -> None:
        await node.submit(later)

    async def second(value: None) -> None:
        seen.append("next")

    graph = Graph[None, None](
        {"first": first, "second": second}, {"first": "second", "second": END}, start="first"
    )
    await result_of(graph(None))
    assert seen == ["child", "next"]


async def test_the_steps_are_children_named_after_them() -> None:
    drawings: list[str] = []

    @handler
    async def draw(node: Handler[None], value: object) -> None:
        drawings.append(node.root.drawing())

    async def rest(value: object) -> None:
        await asyncio.sleep(1)

    graph = Graph[None, None](
        {"first": draw, "both": [rest, draw]},
        {"first": "both", "both": END},
        start="first",
        name="plan",
    )
    await result_of(graph(None))
    assert drawings == [
        "root #0 active\n  plan #1 active\n    first #2 active",
        "root #0 active\n  plan #1 active\n    both: rest #3 active\n    both: draw #4 active",
    ]


async def test_a_loop_of_many_steps_keeps_none_of_them() -> None:
    rounds, peaks = 20_000, list[int]()

    @handler
    async def count(node: Handler[int], number: int) -> int:
        if number in {rounds // 10, rounds}:
            gc.collect()
            peaks.append(tracemalloc.get_traced_memory()[0])
            assert node.parent is not None
            assert node.parent.children == (node,)
        return number + 1

    def more(number: int) -> str:
        return "only" if number <= rounds else END

    graph = one_step(count, ConditionalEdge(more, "only", END), max_steps=None)
    tracemalloc.start()
    try:
        assert await result_of(graph(1)) == rounds + 1
    finally:
        tracemalloc.stop()
    first, last = peaks
    assert last - first < 20_000  # a byte a pass, where a node takes a thousand


# What goes wrong while it runs


@pytest.mark.parametrize("steps", [1, 7])
async def test_a_bound_on_the_steps(steps: int) -> None:
    taken: list[int] = []

    async def count(value: object) -> None:
        taken.append(1)

    graph = one_step(count, "only", name="plan", max_steps=steps)
    with pytest.raises(TooManySteps, match=f"plan has taken {steps} steps? .* with only"):
        await result_of(graph(None))
    assert len(taken) == steps


async def test_as_many_steps_as_allowed() -> None:
    chain = {"a": add_one, "b": add_one, "c": add_one}
    graph = Graph[int, int](chain, {"a": "b", "b": "c", "c": END}, start="a", max_steps=3)
    assert await result_of(graph(0)) == 3


@pytest.mark.parametrize("chosen", ["double", "nowhere", None, 3, "", "END"])
async def test_a_condition_that_chooses_what_its_edge_does_not_list(chosen: Any) -> None:
    graph = Graph[int, int](
        {"double": Double, "negate": negate},
        {"double": "negate", "negate": ConditionalEdge(lambda _: chosen, "negate", END)},
        start="double",
    )
    with pytest.raises(UnknownStep, match=r"after negate chose .* only negate \| END"):
        await result_of(graph(1))


async def test_a_condition_that_raises() -> None:
    def bad(value: int) -> str:
        raise KeyError(value)

    with pytest.raises(KeyError, match="-1"):
        await result_of(one_step(negate, ConditionalEdge(bad, END))(1))


async def test_a_step_that_fails_ends_the_graph() -> None:
    seen: list[object] = []

    async def note(value: object) -> None:
        seen.append(value)

    graph = Graph[str, None](
        {"fail": fail, "note": note}, {"fail": "note", "note": END}, start="fail"
    )
    node = graph("broken")
    with pytest.raises(ValueError, match="broken"):
        await result_of(node)
    assert node.state == "failed"
    assert seen == []


async def test_a_graph_that_nobody_awaits_fails_its_parent() -> None:
    with pytest.raises(ValueError, match="broken"):
        async with Commander() as commander:
            commander.call(one_step(fail)("broken"))


@pytest.mark.parametrize("policy", ["fail_fast", "collect"])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_those_beside_a_step_that_fails(policy: Any, place: int) -> None:
    ended: list[str] = []

    async def rest(value: object) -> None:
        try:
            await asyncio.sleep(60)
            ended.append("completed")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def fail_later(value: object) -> None:
        await asyncio.sleep(1)
        raise ValueError(value)

    steps = [rest, rest]
    steps.insert(place, fail_later)
    node = one_step(steps, on_failure=policy)("broken")
    with pytest.raises(ValueError, match="broken"):
        await result_of(node)
    assert node.state == "failed"
    assert ended == ["completed" if policy == "collect" else "cancelled"] * 2


async def test_a_failure_may_be_collected_around_a_graph() -> None:
    async with Commander(on_failure="collect") as commander:
        node = commander.call(one_step(fail)("broken"))
        await node.settling()
        assert node.state == "failed"
        assert [str(error) for error in commander.root.errors] == ["broken"]


async def test_a_cancel_reaches_the_step_that_runs() -> None:
    ended: list[str] = []

    async def rest(value: object) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("rest")

    async with Commander() as commander:
        node = commander.call(one_step(rest, "only")(None))
        await asyncio.sleep(1)
        await node.cancel()
        assert (node.state, ended) == ("cancelled", ["rest"])


async def test_a_step_that_is_cancelled_alone_fails_the_graph() -> None:
    async with Commander(on_failure="collect") as commander:
        node = commander.call(one_step(asyncio.sleep)(3600))
        await asyncio.sleep(1)
        await node.children[0].cancel()
        await node.settling()
        assert node.state == "failed"
        assert isinstance(node.exception, NodeCancelled)


async def test_a_step_that_makes_no_node() -> None:
    with pytest.raises(ConfigurationError, match="only made a int"):
        await result_of(one_step(lambda value: value)(3))
    with pytest.raises(ConfigurationError, match="only made a coroutine"):
        await result_of(one_step(lambda value: negate(value + 1))(3))


async def test_a_step_that_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        await result_of(one_step(Double)(1, 2))  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        await result_of(one_step(lambda: Double(1))(1))


async def test_a_step_that_makes_the_same_node_twice() -> None:
    double = Double(1)
    with pytest.raises(NodeReused):
        await result_of(one_step(lambda _: double, "only")(None))


async def test_a_graph_is_one_node_for_its_callbacks() -> None:
    states: list[str] = []

    def told(node: Node[object]) -> None:
        states.append(node.state)

    graph = one_step(negate)
    await result_of(graph(1).on("settled", told, inject_node=True))
    await result_of(graph(1).on("start", told, inject_node=True))
    assert states == ["completed", "active"]


async def test_steps_need_no_more_than_one_place() -> None:
    graph = Graph[int, Any](
        {"double": Double, "both": [add_one, negate]},
        {"double": "both", "both": END},
        start="double",
    )
    async with Commander(limit=1, max_pending=1) as commander:
        nodes = [await commander.submit(graph(number)) for number in range(5)]
        assert [await node for node in nodes] == [(2 * n + 1, -2 * n) for n in range(5)]


# What is wrong where it is defined

STEPS: Mapping[str, Any] = {"a": add_one, "b": negate}
EDGES: Mapping[str, Any] = {"a": "b", "b": END}


@pytest.mark.parametrize(
    ("steps", "edges", "start", "message"),
    [
        (STEPS, EDGES, "c", "The start 'c' is not a step. Steps: a, b."),
        ({}, {}, "a", "The start 'a' is not a step. Steps: there are none."),
        (STEPS, {**EDGES, "c": "a"}, "a", "edge from 'c', which is not a step. Steps: a, b."),
        (STEPS, {"a": "c", "b": END}, "a", "edge from a leads to 'c', which is not a step"),
        (
            STEPS,
            {"a": ConditionalEdge(big, "b", "double"), "b": END},
            "a",
            "edge from a leads to 'double', which is not a step",
        ),
        (STEPS, {"a": "b"}, "a", "The step b has no edge"),
        (STEPS, {"a": END, "b": END}, "a", "No way leads from a to b;"),
        (STEPS, {"a": "a", "b": "b"}, "b", "No way leads from b to a;"),
        ({**STEPS, END: negate}, EDGES, "a", "A step cannot be called '__end__'"),
        ({"a": Double(1)}, {"a": END}, "a", "The step a must be what makes a node.* not a job"),
        ({"a": []}, {"a": END}, "a", "The step a must be what makes a node"),
        ({"a": [negate, 3]}, {"a": END}, "a", "The step a must be what makes a node"),
        ({"a": "b"}, {"a": END}, "a", "The step a must be what makes a node"),
        ({"a": 3}, {"a": END}, "a", "The step a must be what makes a node"),
    ],
)
def test_what_cannot_be_a_graph(
    steps: Mapping[str, Any], edges: Mapping[str, Any], start: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Graph(steps, edges, start=start)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_bound_must_leave_a_step(steps: int) -> None:
    with pytest.raises(ConfigurationError, match="max_steps must be at least 1"):
        one_step(negate, max_steps=steps)


def test_conditions_that_cannot_be() -> None:
    async def choose(value: object) -> str:
        return END

    with pytest.raises(ConfigurationError, match="The condition choose is async"):
        ConditionalEdge(choose, END)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="The condition big leads nowhere"):
        ConditionalEdge(big)


def test_a_definition_is_not_changed_from_outside() -> None:
    steps: dict[str, Any] = dict(STEPS)
    edges: dict[str, Any] = dict(EDGES)
    graph = Graph[int, int](steps, edges, start="a")
    before = graph.drawing()
    steps["a"] = Double
    edges["a"] = "a"
    assert graph.drawing() == before
    assert run(result_of(graph(1))) == -2


def test_the_drawing() -> None:
    inner = one_step(negate, name="inner")
    graph = Graph[Any, Any](
        {"write": Double, "judge": [add_one, inner, Double], "say": inner},
        {
            "write": ConditionalEdge(big, "write", "judge"),
            "judge": "say",
            "say": ConditionalEdge(lambda _: END, END, "write"),
        },
        start="write",
        name="review",
    )
    assert graph.drawing() == (
        "review → write\n"
        "write → big: write | judge\n"
        "judge (add_one, inner, Double) → say\n"
        "say → <lambda>: END | write"
    )
    assert repr(graph) == "<Graph review: write, judge, say>"


# Any graph


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[list[int]], int, int]:
    """A table: from a step and a value below 3 to the next step, -1 for the end; start; value."""
    count = draw(st.integers(1, 5))
    row = st.lists(st.integers(-1, count - 1), min_size=3, max_size=3)
    table = draw(st.lists(row, min_size=count, max_size=count))
    return table, draw(st.integers(0, count - 1)), draw(st.integers(0, 2))


def walked(table: Sequence[Sequence[int]], step: int, value: int, bound: int) -> list[int] | None:
    """The steps a graph of that table takes; None if they are too many."""
    path: list[int] = []
    while step != -1:
        if len(path) == bound:
            return None
        path.append(step)
        value = (value + step + 1) % 3
        step = table[step][value]
    return path


@given(walks())
def test_any_graph_goes_where_its_edges_lead(walk: tuple[list[list[int]], int, int]) -> None:
    table, start, value = walk
    path: list[int] = []

    def name(step: int) -> str:
        return END if step == -1 else f"s{step}"

    def make(step: int) -> Callable[[int], Node[int]]:
        @handler
        async def take(node: Handler[int], value: int) -> int:
            path.append(step)
            return (value + step + 1) % 3

        async def alike(value: int) -> int:
            path.append(step)
            return (value + step + 1) % 3

        return [take, alike][step % 2]  # type: ignore[return-value]

    reached, ahead = {start}, [start]
    while ahead:
        new = {*table[ahead.pop()]} - reached - {-1}
        reached |= new
        ahead += new
    graph = Graph[int, int](
        {name(step): make(step) for step in reached},
        {
            name(step): ConditionalEdge(
                lambda value, step=step: name(table[step][value]), *map(name, table[step])
            )
            for step in reached
        },
        start=name(start),
        max_steps=20,
    )
    expected = walked(table, start, value, 20)
    node = graph(value)
    if expected is None:
        with pytest.raises(TooManySteps):
            run(result_of(node))
        assert len(path) == 20
    else:
        run(result_of(node))
        assert path == expected
        assert node.state == "completed"
