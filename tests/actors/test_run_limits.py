"""Limits of the runs that are worked on at a time: what waits, and what does not need to."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gauge import Gauge, begin

import treadle
from treadle import Agent, tool
from treadle.actors.permits import LimitedNode, Permits, RunLimits
from treadle.errors import ConfigurationError
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("most", [0, -1, True])
def test_a_limit_is_a_positive_number(most: int) -> None:
    with pytest.raises(ConfigurationError, match="max_runs_per_owner"):
        treadle.open(max_runs_per_owner=most)
    with pytest.raises(ConfigurationError, match="max_runs_per_node"):
        treadle.open(max_runs_per_node=most)


async def test_runs_of_an_owner_wait_for_each_other() -> None:
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent], max_runs_per_owner=2, idle_seconds=1) as runtime:
        runs = [await begin(runtime, agent, "ada", str(n)) for n in range(5)]
        runs += [await begin(runtime, agent, "bob"), await begin(runtime, agent, "")]
        for run in runs:
            assert (await run.result()).text == "Done."
    assert model.most == {"ada": 2, "bob": 1, "none": 1}
    assert [one for one in model.order if one.startswith("ada")] == [f"ada {n}" for n in range(5)]


async def test_owners_take_turns_at_a_full_node() -> None:
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent], max_runs_per_node=1) as runtime:
        runs = [await begin(runtime, agent, "ada", str(n)) for n in range(4)]
        runs += [await begin(runtime, agent, "bob", str(n)) for n in range(2)]
        for run in runs:
            await run.result()
    assert model.order == ["ada 0", "ada 1", "bob 0", "ada 2", "bob 1", "ada 3"]


async def test_queued_runs_of_a_thread_do_not_hold_up_other_threads() -> None:
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent], max_runs_per_owner=1) as runtime:
        thread = await runtime.create_thread(agent, owner="ada")
        first = [await thread.send(f"ada first {n}") for n in range(3)]
        other = await begin(runtime, agent, "ada", "other")
        await asyncio.gather(*(run.result() for run in (*first, other)))
    assert model.order == ["ada first 0", "ada other", "ada first 1", "ada first 2"]


async def test_a_run_that_waits_can_be_cancelled() -> None:
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent], max_runs_per_owner=1) as runtime:
        first = await begin(runtime, agent, "ada", "first")
        second = await begin(runtime, agent, "ada", "second")
        third = await begin(runtime, agent, "ada", "third")
        await asyncio.sleep(1)
        await second.cancel()
        assert (await second.result(raise_on_incomplete=False)).status == "cancelled"
        assert model.order == ["ada first"]
        for run in (first, third):
            await run.result()
    assert model.order == ["ada first", "ada third"]


async def test_a_thread_that_waits_can_be_deleted() -> None:
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent], max_runs_per_owner=1) as runtime:
        await begin(runtime, agent, "ada", "first")
        second = await begin(runtime, agent, "ada", "second")
        third = await begin(runtime, agent, "ada", "third")
        await asyncio.sleep(1)
        await (await runtime.connect(second.thread_id)).delete()
        assert (await third.result()).text == "Done."


async def test_a_run_that_waits_for_an_approval_does_not_count() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        """Pays."""
        return "paid"

    payer = Agent(ScriptedModel([[Call("pay", "{}")], "Paid."]), name="payer", tools=[pay])
    model = Gauge()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[payer, agent], max_runs_per_owner=1) as runtime:
        thread = await runtime.create_thread(payer, owner="ada")
        asking = await thread.send("Pay.")
        await asyncio.sleep(1)
        other = await begin(runtime, agent, "ada")
        await asyncio.sleep(1)
        assert model.requests == 1
        step = (await thread.state()).step
        assert step is not None
        await thread.approve(step.awaited[0].call_id)
        assert (await asking.result()).text == "Paid."
        started = [e for e in await thread.events() if e.type == "step.started"]
        assert started[1].at >= (await other.info()).ended_at  # type: ignore[operator]


async def test_an_agent_that_works_for_a_run_needs_no_permit() -> None:
    helper = Agent(ScriptedModel(["Helped."]), name="helper")
    boss = Agent(
        ScriptedModel([[Call("helper", '{"message": "help"}')], "Done."]),
        name="boss",
        tools=[helper.as_tool()],
    )
    async with treadle.open(agents=[boss], max_runs_per_owner=1, max_runs_per_node=1) as runtime:
        run = await begin(runtime, boss, "ada")
        assert (await asyncio.wait_for(run.result(), 10)).text == "Done."


async def test_runs_that_waited_are_resumed_with_the_limit(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    model = Gauge(1000)
    agent = Agent(model, name="a")
    async with treadle.open(url, agents=[agent], max_runs_per_owner=1) as runtime:
        runs = [await begin(runtime, agent, "ada", str(n)) for n in range(3)]
        await asyncio.sleep(1)
    assert model.order == ["ada 0"]
    model.seconds = 1
    async with treadle.open(url, agents=[agent], max_runs_per_owner=1) as runtime:
        for run in runs:
            resumed = await (await runtime.connect(run.thread_id)).run(run.id)
            assert (await resumed.result()).text == "Done."
    assert model.most == {"ada": 1}


# Permits


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["ask", "end", "leave"]), st.integers(0, 11)), max_size=60),
)
def test_permits_are_never_exceeded_and_never_lie_idle(
    per_owner: int, per_node: int, steps: list[tuple[str, int]]
) -> None:
    permits = Permits()
    woken: set[str] = set()
    limits = RunLimits(per_owner, per_node)
    nodes = [LimitedNode(limits, woken.add) for _ in range(2)]
    running: set[str] = set()
    waiting: dict[str, None] = {}

    def place(thread: str) -> tuple[str, LimitedNode]:
        number = int(thread)
        return ("", "ada", "bob")[number % 3], nodes[number % 2]

    def has_room(thread: str) -> bool:
        owner, node = place(thread)
        of_owner = sum(place(one)[0] == owner for one in running)
        of_node = sum(place(one)[1] is node for one in running)
        return of_node < per_node and (not owner or of_owner < per_owner)

    for step, number in steps:
        thread = str(number)
        owner, node = place(thread)
        woken.clear()
        if step == "ask":
            was_running = thread in running
            running.discard(thread)
            if permits.ask(thread, owner, node):
                running.add(thread)
                waiting.pop(thread, None)
            else:
                waiting[thread] = None
                assert was_running or not has_room(thread) or woken
        elif step == "end":
            permits.end(thread)
            running.discard(thread)
            waiting.pop(thread, None)
        else:
            permits.leave(node)
            running = {one for one in running if place(one)[1] is not node}
            waiting = {one: None for one in waiting if place(one)[1] is not node}
        for one in woken:
            assert one in waiting
            del waiting[one]
            running.add(one)
            place_of_one = place(one)
            assert permits.ask(one, *place_of_one)  # it was woken, and has what it waited for
        for node in nodes:
            assert sum(place(one)[1] is node for one in running) <= per_node
            assert permits.room(node) == per_node - sum(place(one)[1] is node for one in running)
        for owner in ("ada", "bob"):
            assert sum(place(one)[0] == owner for one in running) <= per_owner
        assert not any(has_room(one) for one in waiting)


@pytest.mark.parametrize("limits", [RunLimits(per_owner=2), RunLimits(2, 8), RunLimits(None, 2)])
def test_a_thread_that_asks_costs_the_same_however_many_wait(limits: RunLimits) -> None:
    class Counted(LimitedNode):
        reads = 0

        @property
        def limits(self) -> RunLimits:
            Counted.reads += 1
            return limits

        @limits.setter
        def limits(self, limits: RunLimits) -> None: ...

    permits = Permits()
    woken: list[str] = []
    nodes = [Counted(limits, woken.append) for _ in range(2)]
    for number in range(1000):
        permits.ask(str(number), "ada", nodes[number % 2])
    Counted.reads = 0
    permits.ask("last", "ada", nodes[0])
    permits.end("0")
    assert woken == ["4" if limits.per_owner is None else "2"]  # of its node, or of its owner
    assert Counted.reads < 20
