"""Limits of runs that the nodes of one PostgreSQL database count together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import psycopg
import pytest
from tests.gauge import Gauge, begin
from tests.postgres import server

import treadle
from treadle import Agent, Runtime
from treadle.actors import postgres_engine
from treadle.domain.events import RunStarted
from treadle.errors import SpendingLimitReached
from treadle.models.base import ModelRequest
from treadle.streaming.demux import StreamEvent

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url() -> str:
    return server().url()


@pytest.fixture(autouse=True)
def without_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node hands over is told, and so is what has room again."""
    monkeypatch.setattr(postgres_engine, "SWEEP_SECONDS", 3600)


async def test_nodes_that_hammer_never_run_more_than_the_limit(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 3600)
    gauge = Gauge(0.02)
    agents = [Agent(Gauge(0.02, gauge), name="a") for _ in range(3)]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(treadle.open(url, agents=[agent], max_runs_per_owner=3))
            for agent in agents
        ]

        async def talk(runtime: Runtime, agent: Agent, owner: str) -> None:
            thread = await runtime.create_thread(agent, owner=owner)
            for n in range(3):
                run = await thread.send(f"{owner} {n}")
                assert (await run.result()).text == "Done."

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for runtime, agent in zip(nodes, agents, strict=True):
                for owner in ("ada", "bob"):
                    for _ in range(5):
                        tasks.create_task(talk(runtime, agent, owner))
        assert 1 < max(gauge.most.values()) <= 3
        await asyncio.sleep(0.3)
        left = await cast("Any", nodes[0].journal)._read(
            lambda c: c.execute("SELECT count(*) FROM permit").fetchone()
        )
        assert left == (0,)


class UntilOthersBegan(Gauge):
    """Answers once three requests were made of another model."""

    def __init__(self, other: Gauge) -> None:
        super().__init__(0)
        self._other = other

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        while self._other.requests < 3:  # noqa: ASYNC110 - a count of another model
            await asyncio.sleep(0.02)
        async for event in super().stream(request):
            yield event


async def test_a_full_node_hands_its_runs_to_one_with_room(url: str) -> None:
    other = Gauge(0.5)
    gauge = UntilOthersBegan(other)  # it stays full, however long that takes
    full, roomy = Agent(gauge, name="a"), Agent(other, name="a")
    async with (
        treadle.open(url, agents=[full], max_runs_per_node=1) as one,
        treadle.open(url, agents=[roomy], max_runs_per_node=3),
    ):
        await asyncio.sleep(1)  # until they know each other
        runs = [await begin(one, full, "ada", str(n)) for n in range(4)]
        async with asyncio.timeout(30):
            for run in runs:
                assert (await run.result()).text == "Done."
        assert (gauge.requests, other.requests) == (1, 3)
        assert gauge.most["ada"] == 1


async def test_what_waits_at_full_nodes_runs_when_a_run_ends(url: str) -> None:
    gauge = Gauge(0.3)
    agents = [Agent(Gauge(0.3, gauge), name="a") for _ in range(2)]
    async with (
        treadle.open(url, agents=[agents[0]], max_runs_per_node=1) as one,
        treadle.open(url, agents=[agents[1]], max_runs_per_node=1) as two,
    ):
        runs = [
            await begin(node, agent, owner, str(n))
            for n in range(3)
            for node, agent, owner in ((one, agents[0], "ada"), (two, agents[1], "ada"))
        ]
        cancelled = runs.pop()
        await cancelled.cancel()  # its entry is taken, although no node has room
        async with asyncio.timeout(20):
            result = await cancelled.result(raise_on_incomplete=False)
            assert result.status == "cancelled"
            for run in runs:
                await run.result()
        assert gauge.most["ada"] <= 2
        for run in runs:
            thread = await one.connect(run.thread_id)
            started = [e for e in await thread.events() if isinstance(e, RunStarted)]
            assert len(started) == 1


async def test_a_thread_that_waits_keeps_its_place_when_another_message_comes_to_it(
    url: str,
) -> None:
    agent = Agent(Gauge(1), name="a")
    ended: list[str] = []

    async def note_end(run: treadle.ThreadRun) -> None:
        await run.result()
        ended.append(run.id)

    async with (
        treadle.open(url, agents=[agent], max_runs_per_owner=1) as runtime,
        treadle.open(url, drive=False) as sender,
    ):
        runs = [await begin(runtime, agent, "ada", str(n)) for n in range(3)]
        await asyncio.sleep(0.2)
        await (await sender.connect(runs[1].thread_id)).send("more")
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            for run in runs:
                tasks.create_task(note_end(run))
        assert ended == [run.id for run in runs]


async def test_permits_of_a_node_that_is_replaced_go_to_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)
    slow, quick = Gauge(100), Gauge(0.1)
    agents = [Agent(slow, name="a"), Agent(quick, name="a")]
    async with treadle.open(url, agents=[agents[1]], max_runs_per_owner=1) as two:
        async with treadle.open(url, agents=[agents[0]], max_runs_per_owner=1) as one:
            first = await begin(one, agents[0], "ada")
            second = await begin(two, agents[1], "ada")
            await asyncio.sleep(0.5)
            assert (slow.requests, quick.requests) == (1, 0)
        async with asyncio.timeout(10):
            await second.result()
            resumed = await (await two.connect(first.thread_id)).run(first.id)
            await resumed.result()


async def test_a_node_that_was_taken_for_dead_keeps_the_permits_of_what_it_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)
    gauge = Gauge(1.5)
    agent = Agent(gauge, name="a")
    async with treadle.open(url, agents=[agent], max_runs_per_owner=1) as runtime:
        runs = [await begin(runtime, agent, "ada", str(n)) for n in range(3)]
        await asyncio.sleep(0.3)
        before = cast("Any", runtime.journal).nodes.id
        await cast("Any", runtime.journal)._write_with_node(lambda c: c.execute("DELETE FROM node"))
        async with asyncio.timeout(10):
            for run in runs:
                assert (await run.result()).text == "Done."
        assert cast("Any", runtime.journal).nodes.id != before
        assert gauge.most["ada"] == 1


async def test_permits_that_a_crash_of_the_server_loses_are_written_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)
    gauge = Gauge(1)
    agents = [Agent(Gauge(1, gauge), name="a") for _ in range(2)]
    async with (
        treadle.open(url, agents=[agents[0]], max_runs_per_owner=1) as one,
        treadle.open(url, agents=[agents[1]], max_runs_per_owner=1) as two,
    ):
        runs = [await begin(one, agents[0], "ada", str(n)) for n in range(2)]
        runs += [await begin(two, agents[1], "ada", str(n)) for n in range(2)]
        async with asyncio.timeout(10):
            while not gauge.now["ada"]:  # noqa: ASYNC110 - at a node
                await asyncio.sleep(0.01)
        # What is not on the disk yet is lost, and all connections are.
        await cast("Any", one.journal)._write_with_node(lambda c: c.execute("DELETE FROM permit"))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(20):
            for run in runs:
                assert (await run.result()).text == "Done."
        assert gauge.most["ada"] <= 2  # a node may begin before the other one has written again


async def test_spending_is_counted_over_all_nodes(url: str) -> None:
    spending = [treadle.SpendingLimit(max_tokens=1000, period="month")]
    gauge = Gauge(0.02)
    agents = [Agent(Gauge(0.02, gauge), name="a") for _ in range(3)]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                treadle.open(url, agents=[agent], spending=spending, max_runs_per_owner=2)
            )
            for agent in agents
        ]

        async def send(runtime: Runtime, agent: Agent) -> bool:
            run = await begin(runtime, agent, "ada")
            try:
                await run.result()
            except SpendingLimitReached:
                return False
            return True

        work = [
            send(runtime, agent)
            for _ in range(10)
            for runtime, agent in zip(nodes, agents, strict=True)
        ]
        async with asyncio.timeout(60):
            done = await asyncio.gather(*work)
        # 101 tokens each: ten reach the limit, and of two that run at a time one more may end.
        assert 10 <= sum(done) <= 11
