"""Events over HTTP, with provider, server and client in three processes.

- `added`: from the provider's write to the client, 200 streams at a time of 10 deltas a second,
  next to a bare Starlette relay in the same run. What is added is the difference.
- `burst` and `paced`: CPU of the server for each delta and subscriber beyond a run without any; a
  burst of deltas, and 100 a second next to plain ASGI `send`.
- `idle`: memory of an idle connection, 5,000 on 50 threads.
- `first_delta`: from the `POST` of a message to its first delta, demo model, SQLite.
"""

import asyncio
import os
import re
import resource
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import aiohttp

from benchmarks.bench import Bench
from benchmarks.plan import STAMP_WIDTH, Plan
from benchmarks.provider import listening
from benchmarks.quantile import quantile
from benchmarks.row import Row, Target
from benchmarks.work import Figures

STREAMS = 200
ROUNDS = 1
STREAM_PLAN = Plan(deltas=100, every=100, stamped=1)
BURST_PLAN = Plan(deltas=2000)
PACED_PLAN = Plan(deltas=300, every=10)
SUBSCRIBERS = 50
IDLE = 5_000
IDLE_THREADS = 50
MESSAGES = 200
REPEATS = 2
_STAMP = re.compile(rb'"delta":"(\d{%d})' % STAMP_WIDTH)
_HZ = os.sysconf("SC_CLK_TCK")


class Served(NamedTuple):
    """A server process, and a session of a client of it."""

    url: str
    pid: int
    http: aiohttp.ClientSession

    def cpu(self) -> float:
        """Returns the CPU seconds it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _HZ

    def resident(self) -> int:
        """Returns its resident memory in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def post(self, path: str, body: object) -> Any:
        async with self.http.post(f"{self.url}/api/v1{path}", json=body) as response:
            response.raise_for_status()
            return await response.json()

    async def thread(self, agent: str = "bench") -> str:
        return (await self.post("/threads", {"agent": agent}))["id"]


@asynccontextmanager
async def served(kind: str, provider: str, plan: Plan) -> AsyncGenerator[Served]:
    with listening("benchmarks.served", kind, provider, plan.model) as process:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield Served(process["url"], process["pid"], http)


def rows(bench: Bench) -> list[Row]:
    """Measures all; the parties of a row in turn."""
    return [
        _added(bench.url),
        _burst(bench.url),
        _paced(bench.url),
        _idle(bench.url),
        _first_delta(bench.url),
    ]


def _repeated(work: Callable[[], Awaitable[Figures]]) -> Figures:
    """Returns the median of each figure."""
    taken = [asyncio.run(_gathered(work)) for _ in range(REPEATS)]
    return {name: median(one[name] for one in taken) for name in taken[0]}


async def _gathered(work: Callable[[], Awaitable[Figures]]) -> Figures:
    return await work()


def _added(url: str) -> Row:
    async def work() -> Figures:
        figures: Figures = {}
        for kind in ("relay", "treadle"):
            async with served(kind, url, STREAM_PLAN) as server:
                delays = await _crowd(server, kind)
            figures |= {f"{kind}_p50": median(delays), f"{kind}_p99": quantile(delays, 0.99)}
        return figures

    taken = _repeated(work)
    added = taken["treadle_p50"] - taken["relay_p50"]
    text = f"p50 {added:+.2f} ms; p99 {taken['treadle_p99'] / taken['relay_p99']:.2f} x relay"
    return Row(
        "served_events.added",
        "ms p99",
        {"treadle": taken["treadle_p99"], "relay": taken["relay_p99"]},
        text,
        (
            Target("p50 <= relay + 2 ms", added, 2.0),
            Target("p99 <= 1.5 x relay", taken["treadle_p99"] / taken["relay_p99"], 1.5),
        ),
    )


async def _crowd(server: Served, kind: str) -> list[float]:
    """Returns the delays of the first deltas in ms, of streams that follow one another."""
    spread = STREAM_PLAN.deltas * STREAM_PLAN.every / 1000 / STREAMS

    async def rounds(number: int) -> list[float]:
        await asyncio.sleep(number * spread)
        delays: list[float] = []
        for _ in range(1 + ROUNDS):
            path = "/relay"
            if kind == "treadle":
                path = f"/api/v1/threads/{await server.thread()}/messages?stream=true"
            async with server.http.post(server.url + path, json={"message": "Hi."}) as response:
                delays.append(await _first_stamp(response))
        return delays[1:]

    return [one for delays in await asyncio.gather(*map(rounds, range(STREAMS))) for one in delays]


async def _first_stamp(response: aiohttp.ClientResponse) -> float:
    """Reads a response to its end; returns how long its first delta was under way, in ms."""
    delay, buffer = 0.0, b""
    async for chunk in response.content.iter_any():
        if delay:
            continue
        buffer += chunk
        if match := _STAMP.search(buffer):
            delay = (time.monotonic_ns() - int(match[1])) / 1e6
    if not delay:
        raise RuntimeError(f"There was no delta in {buffer[:200]!r}.")
    return delay


def _burst(url: str) -> Row:
    async def work() -> Figures:
        async with served("treadle", url, BURST_PLAN) as server:
            await _cpu_of_run(server, SUBSCRIBERS)
            alone = await _cpu_of_run(server, 0)
            watched = await _cpu_of_run(server, SUBSCRIBERS)
        return {"us": (watched - alone) / (BURST_PLAN.deltas * SUBSCRIBERS) * 1e6}

    cpu = _repeated(work)["us"]
    text = f"{SUBSCRIBERS} subscribers, beyond a run without"
    target = Target("<= 6 us", cpu, 6.0)
    return Row("served_events.burst", "us CPU/delta", {"treadle": cpu}, text, (target,))


def _paced(url: str) -> Row:
    async def work() -> Figures:
        frames = PACED_PLAN.deltas * SUBSCRIBERS
        async with served("relay", url, PACED_PLAN) as server:
            query = f"/paced?wait=2&frames={PACED_PLAN.deltas}&every={PACED_PLAN.every}"
            raw = await _cpu_of(server, lambda: _read_all(server, query))
            query = f"/paced?wait=2&frames=0&every={PACED_PLAN.every}"
            raw -= await _cpu_of(server, lambda: _read_all(server, query))
        async with served("treadle", url, PACED_PLAN) as server:
            await _cpu_of_run(server, 1)
            alone = await _cpu_of_run(server, 0)
            watched = await _cpu_of_run(server, SUBSCRIBERS)
        return {"treadle": (watched - alone) / frames * 1e6, "raw": raw / frames * 1e6}

    taken = _repeated(work)
    share = taken["treadle"] / taken["raw"]
    return Row(
        "served_events.paced",
        "us CPU/delta",
        {"treadle": taken["treadle"], "raw_asgi": taken["raw"]},
        f"{share:.2f} x raw_asgi",
        (Target("<= 1.5 x raw ASGI send", share, 1.5),),
    )


async def _read_all(server: Served, query: str) -> None:
    async def read() -> None:
        async with server.http.get(server.url + query) as response:
            async for _ in response.content.iter_any():
                pass

    await asyncio.gather(*(read() for _ in range(SUBSCRIBERS)))


async def _cpu_of(server: Served, work: Callable[[], Awaitable[None]]) -> float:
    before = server.cpu()
    await work()
    return server.cpu() - before


async def _cpu_of_run(server: Served, subscribers: int) -> float:
    """Returns the CPU seconds of the server for one run that so many clients watch."""
    thread_id = await server.thread()
    open_now = asyncio.Semaphore(0)

    async def watch() -> None:
        url = f"{server.url}/api/v1/threads/{thread_id}/events"
        async with server.http.get(url) as response:
            open_now.release()
            tail = b""
            async for chunk in response.content.iter_any():
                tail = (tail + chunk)[-20_000:]
                if b"event: run.completed" in tail:
                    return

    watching = [asyncio.create_task(watch()) for _ in range(subscribers)]
    for _ in range(subscribers):
        await open_now.acquire()

    async def run() -> None:
        await server.post(f"/threads/{thread_id}/messages?wait=60", {"message": "Hi."})
        await asyncio.gather(*watching)

    return await _cpu_of(server, run)


def _idle(url: str) -> Row:
    async def work() -> Figures:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        async with served("treadle", url, STREAM_PLAN) as server:
            threads = [await server.thread() for _ in range(IDLE_THREADS)]
            await _connected(server, threads, IDLE_THREADS)
            before = server.resident()
            writers = await _connected(server, threads, IDLE)
            used = server.resident() - before
            for writer in writers:
                writer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return {"kb": used / 1024 / IDLE}

    used = _repeated(work)["kb"]
    text = f"{IDLE:,} on {IDLE_THREADS} threads"
    target = Target("<= 20 KB", used, 20.0)
    return Row("served_events.idle", "KB/connection", {"treadle": used}, text, (target,))


async def _connected(server: Served, threads: list[str], count: int) -> list[asyncio.StreamWriter]:
    """Opens that many streams, and waits until each has got its beginning."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    writers: list[asyncio.StreamWriter] = []
    for number in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        path = f"/api/v1/threads/{threads[number % len(threads)]}/events?from=now"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await reader.readuntil(b"retry: ")
        writers.append(writer)
    return writers


def _first_delta(url: str) -> Row:
    async def work() -> Figures:
        delays: list[float] = []
        async with served("treadle", url, STREAM_PLAN) as server:
            for _ in range(MESSAGES):
                path = f"/api/v1/threads/{await server.thread('demo')}/messages?stream=true"
                began = time.perf_counter()
                async with server.http.post(server.url + path, json={"message": "Hi."}) as answer:
                    buffer = b""
                    async for chunk in answer.content.iter_any():
                        buffer += chunk
                        if b"event: text.delta" in buffer:
                            delays.append((time.perf_counter() - began) * 1e3)
                            break
        return {"p50": median(delays), "p99": quantile(delays, 0.99)}

    taken = _repeated(work)
    return Row(
        "served_events.first_delta",
        "ms p50",
        {"treadle": taken["p50"]},
        f"p99 {taken['p99']:.1f}",
        (Target("<= 10 ms", taken["p50"], 10.0),),
    )
