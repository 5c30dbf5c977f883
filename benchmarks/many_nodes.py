"""How many turns more nodes do, and what a turn costs that came to another node.

`python -m benchmarks.many_nodes` starts a PostgreSQL server and 1, 2 and 4 nodes that each have
conversations which mostly wait for a model, and prints turns, CPU, and how far they are from
linear: with few conversations, and with more than the cores of a small machine can do. It exits 1
if the turns are not linear although the cores are not full.

Then two nodes hold each other's conversations, so that every message goes through the inbox of a
thread and every answer over the bus.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from tests.postgres import server

import treadle
from benchmarks.processes import asked, figures, read, say, started, write
from treadle import Agent, TextDelta
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

SETTLE_SECONDS = 3.0
WINDOW_SECONDS = 10.0
DELTAS = 10
LEAST_SHARE = 0.85
"""How much of linear is reached while the cores are not full."""


class Load(NamedTuple):
    """The conversations of a node, and how long a model takes for an answer."""

    conversations: int = 10
    seconds: float = 0.5


class Waiting:
    """A model that answers with ten deltas, and takes its time."""

    name = provider = "waiting"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.requests = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        self.requests += 1
        item_id = f"msg_{id(self)}_{self.requests}"
        for _ in range(DELTAS):
            await asyncio.sleep(self.seconds / DELTAS)
            yield TextDelta(item_id, "some words ")
        message = Message("assistant", (OutputText("some words " * DELTAS),), item_id)
        yield ItemFinished(0, message)
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


async def node(url: str, load: Load) -> None:
    """Is a node that drives threads, and holds the conversations whose ids come as a line."""
    agent = Agent(Waiting(load.seconds), name="bench")
    turns = 0

    async def talk(thread: treadle.Thread) -> None:
        nonlocal turns
        while True:
            run = await thread.send("Go on.")
            async for _ in await run.subscribe():
                pass
            turns += 1

    async with treadle.open(url, agents=[agent]) as runtime:
        threads = [await runtime.create_thread(agent) for _ in range(load.conversations)]
        runs = [await thread.send("Begin.") for thread in threads]
        for run in runs:
            await run.result()  # its thread stays where it is driven
        say([thread.id for thread in threads])
        ids: list[str] = json.loads(await asyncio.to_thread(sys.stdin.readline))
        talks = [asyncio.create_task(talk(await runtime.connect(id))) for id in ids]
        while await asked():
            say({"cpu": time.process_time(), "turns": turns})
        for one in talks:
            one.cancel()
        await asyncio.wait(talks)


class Measured(NamedTuple):
    """Turns a second, CPU of the nodes for a turn in ms, and the part of all cores that worked."""

    turns: float
    cpu: float
    busy: float


def measure(count: int, load: Load, *, elsewhere: bool = False) -> Measured:
    """Has nodes hold conversations: their own, or those of the next node."""
    url = server().url()
    nodes = [started(__spec__.name, "node", url, load) for _ in range(count)]
    try:
        ids = [read(one) for one in nodes]
        for number, one in enumerate(nodes):
            write(one, ids[(number + 1) % count] if elsewhere else ids[number])
        time.sleep(SETTLE_SECONDS)
        before, cores = [figures(one) for one in nodes], _cores()
        begun = time.monotonic()
        time.sleep(WINDOW_SECONDS)
        after = [figures(one) for one in nodes]
        seconds = time.monotonic() - begun
        worked, rested = (now - then for then, now in zip(cores, _cores(), strict=True))
    finally:
        for one in nodes:
            _end(one)
    pairs = list(zip(before, after, strict=True))
    turns = sum(now["turns"] - then["turns"] for then, now in pairs)
    cpu = sum(now["cpu"] - then["cpu"] for then, now in pairs)
    return Measured(turns / seconds, cpu / turns * 1e3, worked / (worked + rested))


def _end(process: "subprocess.Popen[str]") -> None:
    write(process, "end")
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


def _cores() -> tuple[int, int]:
    """Returns how long all cores of this machine worked and rested so far, in ticks."""
    times = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    rested = times[3] + times[4]
    return sum(times) - rested, rested


def _scale(load: Load) -> bool:
    """Prints the turns of 1, 2 and 4 nodes; returns whether they are linear if there is room."""
    first, is_linear = 0.0, True
    for count in (1, 2, 4):
        found = measure(count, load)
        first = first or found.turns
        share = found.turns / first / count
        is_linear = is_linear and (share >= LEAST_SHARE or found.busy > 0.9)
        print(
            f"{count} nodes, {load.conversations} conversations each: {found.turns:.1f} turns/s "
            f"({share:.0%} of linear), {found.cpu:.2f} ms of CPU a turn, cores {found.busy:.0%} "
            "full"
        )
    return is_linear


def main() -> int:
    """Measures all numbers of nodes, or is one of the processes; returns the exit status."""
    if len(sys.argv) > 1:
        asyncio.run(node(sys.argv[2], Load(*json.loads(sys.argv[3]))))
        return 0
    is_linear = _scale(Load()) & _scale(Load(conversations=80))
    load = Load()
    here, there = measure(2, load).cpu, measure(2, load, elsewhere=True).cpu
    print(
        f"a turn sent at another node: {there:.2f} ms of CPU at both nodes, {there / here:.2f} x "
        f"one that is sent where it is driven ({here:.2f} ms)"
    )
    return int(not is_linear)


if __name__ == "__main__":
    raise SystemExit(main())
