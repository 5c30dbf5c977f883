"""What it costs to watch threads at a node that does not drive them.

`python -m benchmarks.across_nodes` starts a PostgreSQL server, a node that drives threads, and a
process that watches them, and prints CPU and delays; it exits 1 if the target is missed.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.postgres import server

import treadle
from benchmarks.processes import asked, figures, read, say, started, write
from benchmarks.quantile import quantile
from treadle import Agent, TextDelta
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

SETTLE_SECONDS = 2.0
WINDOW_SECONDS = 6.0
TARGET = 15.0
"""Microseconds of CPU of both processes for a delta and watcher, 1,000 watchers on 50 threads."""


class Load(NamedTuple):
    """How many threads are written, `rate` deltas a second each, and how many readers watch."""

    threads: int
    watchers: int
    rate: float


LOADS = (Load(50, 1000, 20), Load(50, 50, 20), Load(1000, 1000, 10))


class Stamps:
    """A model that writes the time, `rate` times a second, until it is stopped."""

    name = provider = "stamps"

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.written = 0
        self.requests = 0
        self.is_stopped = False

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        self.requests += 1
        item_id, text = f"msg_{self.requests}", ""
        while not self.is_stopped:
            stamp = f"{time.monotonic():.6f} "
            text += stamp
            self.written += 1
            yield TextDelta(item_id, stamp)
            await asyncio.sleep(1 / self.rate)
        yield ItemFinished(0, Message("assistant", (OutputText(text),), item_id))
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


async def drive(url: str, load: Load) -> None:
    """Drives the threads in this process."""
    model = Stamps(load.rate)
    agent = Agent(model, name="bench")
    async with treadle.open(url, agents=[agent]) as runtime:
        ids: list[str] = []
        for _ in range(load.threads):
            thread = await runtime.create_thread(agent)
            await thread.send("Go.")
            ids.append(thread.id)
        say(ids)
        while await asked():
            say({"cpu": time.process_time(), "count": model.written})
        model.is_stopped = True
        await asyncio.sleep(1)


async def watch(url: str, load: Load) -> None:
    """Watches the threads, whose ids come as the first line, in this process."""
    ids: list[str] = json.loads(await asyncio.to_thread(sys.stdin.readline))
    seen = 0
    delays: list[float] = []

    async def follow(thread: treadle.Thread) -> None:
        nonlocal seen
        async with thread.subscribe() as subscription:
            async for event in subscription:
                if isinstance(event, TextDelta):
                    stamps = event.delta.split()
                    seen += len(stamps)
                    delays.append(time.monotonic() - float(stamps[-1]))

    async with treadle.open(url, agents=[], drive=False) as runtime:
        readers = [
            asyncio.create_task(follow(await runtime.connect(ids[number % len(ids)])))
            for number in range(load.watchers)
        ]
        await asyncio.sleep(SETTLE_SECONDS)
        say("ready")
        while await asked():
            now = {"cpu": time.process_time(), "count": seen}
            say(now | {f"p{part}": quantile(delays, part / 100) for part in (50, 95)})
            delays.clear()
        for reader in readers:
            reader.cancel()


def measure(load: Load) -> float:
    """Prints the figures of one load; returns the CPU for a delta and watcher, in µs."""
    url = server().url()
    with started(__spec__.name, "drive", url, load) as driving:
        ids = read(driving)
        alone = _window(driving)[0]
        with started(__spec__.name, "watch", url, load) as watching:
            write(watching, ids)
            read(watching)
            driven, watched = _window(driving, watching)
            write(watching, "end")
            watching.wait(30)
        write(driving, "end")
        driving.wait(30)
    unwatched = alone["cpu"] / alone["count"]
    added = driven["cpu"] - unwatched * driven["count"]
    cost = (added + watched["cpu"]) / watched["count"] * 1e6
    print(
        f"{load.threads} threads, {load.watchers} watchers, {load.rate:g} deltas/s each: "
        f"{cost:.1f} µs a delta and watcher; the driving node {unwatched * 1e6:.1f} µs a delta "
        f"unwatched, {driven['cpu'] / driven['count'] * 1e6:.1f} watched; delay p50 "
        f"{watched['p50'] * 1e3:.1f} ms, p95 {watched['p95'] * 1e3:.1f} ms"
    )
    return cost


def main() -> int:
    """Measures all loads, or is one of the processes; returns the exit status."""
    if len(sys.argv) > 1:
        role, url, load = sys.argv[1], sys.argv[2], Load(*json.loads(sys.argv[3]))
        asyncio.run(drive(url, load) if role == "drive" else watch(url, load))
        return 0
    costs = [measure(load) for load in LOADS]
    print(f"Target: {TARGET:g} µs for the first.")
    return int(costs[0] > TARGET)


def _window(*processes: "subprocess.Popen[str]") -> list[dict[str, float]]:
    """Returns what each process did within a time; delays as they are at its end."""
    before = [figures(process) for process in processes]
    time.sleep(WINDOW_SECONDS)
    after = [figures(process) for process in processes]
    return [
        now | {name: now[name] - then[name] for name in ("cpu", "count")}
        for then, now in zip(before, after, strict=True)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
