"""Runtimes that a Restate server calls, and what ends them; see `test_engine` for the contract."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests import restate_server
from tests.actors.test_postgres_nodes import TEXT, execute, slow, until
from tests.postgres import server
from yarl import URL

import treadle
from treadle import Agent, Restate, Runtime
from treadle.actors import restate_endpoint, restate_engine
from treadle.actors.restate_endpoint import Ingress
from treadle.actors.restate_engine import RestateEngine
from treadle.journal import postgres_nodes

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.needs("postgres"),
    pytest.mark.needs("restate"),
]

NEVER = 10**6


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def without_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Restate finds what there is to do."""
    monkeypatch.setattr(restate_endpoint, "REGISTER_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(restate_engine, "SWEEP_SECONDS", NEVER)


class Cluster:
    """A database, a Restate server and a balancer in front of the nodes."""

    def __init__(
        self, url: str, server: restate_server.Server, balancer: restate_server.Balancer
    ) -> None:
        self.url = url
        self.server = server
        self.balancer = balancer
        self.settings = server.settings(balancer.url, restate_server.new_service())

    @asynccontextmanager
    async def node(self, agent: Agent) -> AsyncIterator[Runtime]:
        """Opens a node, which is behind the balancer as long as it is open."""
        async with treadle.open(self.url, agents=[agent], engine=self.settings) as runtime:
            port = engine_of(runtime).port
            self.balancer.ports.append(port)
            yield runtime
        self.balancer.ports.remove(port)

    async def registered(self) -> None:
        """Waits until a node has registered."""
        path = f"/services/{self.settings.service}"
        async with asyncio.timeout(10), aiohttp.ClientSession() as session:
            url = f"{self.server.admin}{path}"
            while await status_of(session.get(url)) != 200:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)

    async def has_invocations(self, count: int) -> None:
        """Waits until so many invocations have not ended."""
        async with asyncio.timeout(10):
            while await self._invocations() != count:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.1)

    async def _invocations(self) -> int:
        return await asyncio.to_thread(self.server.invocations, self.settings.service)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    balancer = restate_server.Balancer()
    await balancer.start()
    yield Cluster(server().url(), await asyncio.to_thread(restate_server.server), balancer)
    await balancer.stop()


async def status_of(request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> int:
    async with request as response:
        return response.status


def engine_of(runtime: Runtime) -> RestateEngine:
    return cast("Any", runtime)._threads._driver._engine


def held(*runtimes: Runtime) -> list[str]:
    return [id for runtime in runtimes for id in cast("Any", engine_of(runtime))._held]


async def test_a_message_of_another_process_is_driven_where_restate_calls(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Ingress.ask
    monkeypatch.setattr(
        Ingress, "ask", lambda self, thread_id: (asked.append(thread_id), ask(self, thread_id))
    )
    (agent, model), (other_agent, other_model) = slow(), slow()
    async with cluster.node(agent), cluster.node(other_agent):
        await cluster.registered()
        async with treadle.open(cluster.url, agents=[agent], drive=False) as sender:
            threads = [await sender.create_thread(agent) for _ in range(6)]
            runs = [await thread.send("go") for thread in threads]
            results = await asyncio.wait_for(asyncio.gather(*(r.result() for r in runs)), 20)
        assert [result.text for result in results] == [TEXT] * 6
        # Each has an invocation, for which Restate has chosen the node.
        assert set(asked) == {thread.id for thread in threads}
        assert model.requests + other_model.requests == 6
        assert model.requests
        assert other_model.requests
        await cluster.has_invocations(0)


async def test_a_message_to_a_node_is_driven_there(cluster: Cluster) -> None:
    (agent, model), (other_agent, other_model) = slow(), slow(0.1)
    async with cluster.node(agent) as one, cluster.node(other_agent) as two:
        await cluster.registered()
        threads = [await one.create_thread(agent) for _ in range(4)]
        runs = [await thread.send("go") for thread in threads]
        await until(lambda: len(held(one, two)) == 4)
        # Whichever node Restate has called, it waits for the one that has the thread.
        assert (await asyncio.wait_for(runs[0].result(), 10)).text == TEXT
        for run in runs:
            await run.result()
        assert (model.requests, other_model.requests) == (4, 0)
        await cluster.has_invocations(0)
        assert not held(one, two)


async def test_runs_of_any_length(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restate_endpoint, "HOLD_SECONDS", 0.3)
    monkeypatch.setattr(restate_endpoint, "AGAIN_SECONDS", 0.05)
    (agent, model), (other_agent, other_model) = slow(0.3), slow()
    async with cluster.node(agent) as one, cluster.node(other_agent):
        await cluster.registered()
        run = await (await one.create_thread(agent)).send("go")
        assert (await asyncio.wait_for(run.result(), 20)).text == TEXT
        assert (model.requests, other_model.requests) == (1, 0)
        await cluster.has_invocations(0)


async def test_a_node_that_drains_pins_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restate_endpoint, "AGAIN_SECONDS", 0.05)
    (agent, model), (other_agent, other_model) = slow(0.2), slow(0.1)
    async with cluster.node(other_agent) as two:
        async with cluster.node(agent) as one:
            await cluster.registered()
            thread = await one.create_thread(agent)
            await thread.send("go")
            second = await thread.send("again")
            ended = asyncio.create_task(
                (await (await two.connect(thread.id)).run(second.id)).result()
            )
            await until(lambda: held(one, two) == [thread.id])
            await one.drain(20)
            assert not held(one)
            assert model.requests == 1  # the response was not cut
            await until(lambda: held(two) == [thread.id])
        assert (await asyncio.wait_for(ended, 20)).text == TEXT
        assert other_model.requests == 1
        await cluster.has_invocations(0)


async def test_a_wake_that_is_lost_is_found_by_the_sweep(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restate_engine, "SWEEP_SECONDS", 0.3)
    monkeypatch.setattr(Ingress, "ask", lambda *_: None)
    agent, _ = slow()
    async with cluster.node(agent), treadle.open(cluster.url, drive=False) as sender:
        run = await (await sender.create_thread(agent)).send("go")
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT


async def test_without_restate_threads_are_driven(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    agent, model = slow()
    (port,) = restate_server.free_ports(1)
    cluster.settings = Restate(f"http://127.0.0.1:{port}", port=0)
    async with cluster.node(agent) as one:
        async with treadle.open(cluster.url, drive=False) as sender:
            run = await (await sender.create_thread(agent)).send("go")
            assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        run = await (await one.create_thread(agent)).send("go")
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
    assert model.requests == 2
    assert caplog.text.count("Restate does not accept invocations") == 1


async def test_restate_may_be_away_for_a_while(cluster: Cluster) -> None:
    cluster.server = await asyncio.to_thread(restate_server.new_server)
    try:
        cluster.settings = cluster.server.settings(cluster.balancer.url, "threads")
        (agent, model), (other_agent, other_model) = slow(0.4), slow()
        async with cluster.node(agent) as one, cluster.node(other_agent):
            await cluster.registered()
            run = await (await one.create_thread(agent)).send("go")
            await cluster.has_invocations(1)
            await asyncio.to_thread(cluster.server.stop)
            await asyncio.to_thread(cluster.server.start)
            assert (await asyncio.wait_for(run.result(), 20)).text == TEXT
            assert (model.requests, other_model.requests) == (1, 0)
            await cluster.has_invocations(0)
    finally:
        await asyncio.to_thread(cluster.server.remove)


async def test_requests_that_restate_has_not_signed(cluster: Cluster) -> None:
    key = Ed25519PrivateKey.generate()
    cluster.server = await asyncio.to_thread(restate_server.new_server, key)
    try:
        settings = cluster.server.settings(cluster.balancer.url, "threads")
        cluster.settings = replace(settings, identity_keys=[restate_server.name_of(key)])
        agent, model = slow()
        async with cluster.node(agent), aiohttp.ClientSession() as session:
            await cluster.registered()
            async with treadle.open(cluster.url, drive=False) as sender:
                run = await (await sender.create_thread(agent)).send("go")
                assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
            url = cluster.balancer.url
            for path in ("/invoke/threads/drive", "/discover", "/invoke/threads/other", "/x"):
                assert await status_of(session.post(f"{url}{path}", data=b"x" * 1000)) == 401
            assert await status_of(session.get(f"{url}/health")) == 200  # for balancers
        assert model.requests == 1
    finally:
        await asyncio.to_thread(cluster.server.remove)


async def test_requests_that_are_of_no_use(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    agent, _ = slow()
    async with cluster.node(agent) as runtime, aiohttp.ClientSession() as session:
        await cluster.registered()
        run = await (await runtime.create_thread(agent)).send("go")
        service = f"{cluster.server.ingress}/{cluster.settings.service}"
        for key in ("%00", "unknown", "%F0%9F%A6%80%2F..", "x" * 3000):
            url = URL(f"{service}/{key}/drive", encoded=True)
            request = session.post(url, skip_auto_headers=["Content-Type"])
            assert await status_of(request) == 200
        url = f"{cluster.balancer.url}/invoke/{cluster.settings.service}/drive"
        for body in (b"", b"x" * 100_000, b"\0" * 40):
            assert await status_of(session.post(url, data=body)) >= 400
        assert await status_of(session.get(f"{cluster.balancer.url}/{'x' * 100}")) == 404
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        assert "could not be looked at" not in caplog.text
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(ended.wait(), 5)  # the signal is still the program's


SCRIPT = """
import asyncio, sys
import treadle
from treadle.actors import postgres_engine
from tests.actors.test_postgres_nodes import slow

async def main():
    url, ingress, service, port = sys.argv[1:]
    postgres_engine.BEAT_SECONDS = 0.2
    agent, _ = slow(0.5)
    engine = treadle.Restate(ingress, port=int(port), service=service)
    async with treadle.open(url, agents=[agent], engine=engine) as runtime:
        for _ in range(8):
            thread = await runtime.create_thread(agent)
            run = await thread.send("go")
            print(thread.id, run.id, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@asynccontextmanager
async def process(
    cluster: Cluster,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """Starts a node in a process, with 8 runs of 4 seconds; yields it, and the runs by thread."""
    (port,) = restate_server.free_ports(1)
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, cluster.url, cluster.server.ingress),
        *(cluster.settings.service, str(port)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert node.stdout is not None
    cluster.balancer.ports.append(port)
    try:
        lines = [(await node.stdout.readline()).decode().split() for _ in range(8)]
        yield node, dict(lines)
    finally:
        cluster.balancer.ports.remove(port)
        if node.returncode is None:
            node.kill()
        await node.wait()


async def taken_over(cluster: Cluster, ids: Iterable[str]) -> list[float]:
    """Waits until each thread has another node; returns after how many seconds it had."""
    sql = "SELECT id, node FROM thread"
    begun, seconds = time.monotonic(), dict[str, float]()
    before = dict(await asyncio.to_thread(execute, cluster.url, sql))
    while set(seconds) != set(ids):
        assert time.monotonic() < begun + 20
        for id, node in await asyncio.to_thread(execute, cluster.url, sql):
            if node != before[id]:
                seconds.setdefault(id, time.monotonic() - begun)
        await asyncio.sleep(0.01)
    return sorted(seconds.values())


@pytest.mark.parametrize(("how", "most"), [(signal.SIGKILL, 2.0), (signal.SIGSTOP, 5.0)])
async def test_a_node_that_ends_or_stands_still_is_replaced(
    cluster: Cluster, how: signal.Signals, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_nodes, "STALE_SECONDS", 1.0)
    agent, model = slow()
    async with cluster.node(agent) as two:
        await cluster.registered()
        async with process(cluster) as (node, runs):
            await cluster.has_invocations(8)
            node.send_signal(how)
            seconds = await taken_over(cluster, runs)
            assert seconds[4] < most, seconds
            for thread_id, run_id in runs.items():
                run = await (await two.connect(thread_id)).run(run_id)
                assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        assert model.requests == 8
