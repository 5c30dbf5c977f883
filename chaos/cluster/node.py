"""A node: drives what it takes, and watches threads of all nodes, until SIGTERM or EOF."""

import asyncio
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

import treadle
from chaos.cluster.agent import agent_on
from chaos.cluster.brief import shorten
from chaos.cluster.desk import answer
from chaos.cluster.records import Heard
from chaos.evidence import Evidence
from treadle.domain.events import MessageAdded, StepInterrupted, StepStarted, TextDelta
from treadle.errors import ThreadNotFound, TreadleError
from treadle.journal import postgres_nodes

LOOK_SECONDS = 0.5
"""How often a node looks for new threads to watch."""

WATCHED = 0.5
"""The part of the threads that a node watches."""


async def main(
    url: str, folder: Path, name: str, seconds: float, engine: treadle.Restate | None
) -> None:
    """Runs a node until it is told to end."""
    evidence = Evidence(folder)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(sys.stdin.fileno(), ended.set)  # its parent has ended
    agent = agent_on(evidence, seconds)
    async with treadle.open(url, agents=[agent], engine=engine) as runtime:
        tasks = [
            asyncio.create_task(_watch(runtime, evidence, name)),
            asyncio.create_task(answer(runtime, evidence, name)),
        ]
        print("ready", flush=True)
        await ended.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _watch(runtime: treadle.Runtime, evidence: Evidence, name: str) -> None:
    chance = random.Random(name)
    seen: set[str] = set()
    async with asyncio.TaskGroup() as tasks:
        while True:
            with suppress(TreadleError):
                for info in await runtime.threads(limit=1000):
                    if info.id not in seen:
                        seen.add(info.id)
                        if chance.random() < WATCHED:
                            thread = await runtime.connect(info.id)
                            tasks.create_task(_listen(thread, evidence, name))
            await asyncio.sleep(LOOK_SECONDS)


async def _listen(thread: treadle.Thread, evidence: Evidence, name: str) -> None:
    """Writes down each text as a reader has it that was there from the start of its step."""
    with suppress(ThreadNotFound):  # it has expired
        await _note_texts(thread, evidence, name)


async def _note_texts(thread: treadle.Thread, evidence: Evidence, name: str) -> None:
    deltas: dict[str, str] = {}
    knows_step = False
    async for event in thread.subscribe():
        if isinstance(event, StepStarted):
            knows_step = True
            deltas.clear()
        elif isinstance(event, StepInterrupted):
            deltas.clear()
        elif isinstance(event, TextDelta):
            deltas[event.item_id] = deltas.get(event.item_id, "") + event.delta
        elif isinstance(event, MessageAdded) and event.origin == "model" and knows_step:
            text = deltas.pop(event.item.id, "")
            evidence.add(Heard(name, thread.id, event.item.text, text))


if __name__ == "__main__":
    database, logs, node, every, stale, *restate = sys.argv[1:]
    postgres_nodes.STALE_SECONDS = float(stale)
    shorten()
    called = None
    if restate:
        ingress, admin, balancer, port = restate
        called = treadle.Restate(ingress, admin, balancer, port=int(port))
    asyncio.run(main(database, Path(logs), node, float(every), called))
