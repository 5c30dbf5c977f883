"""A node: drives what it takes, and watches threads of all nodes, until SIGTERM or EOF.

With SIGINT it drains before it ends.
"""

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import treadle
from chaos.cluster.agent import agent_on
from chaos.cluster.brief import shorten
from chaos.cluster.desk import answer
from chaos.cluster.records import Heard, Refused
from chaos.evidence import Evidence
from treadle.actors import postgres_engine
from treadle.domain.events import MessageAdded, StepInterrupted, StepStarted, TextDelta
from treadle.errors import StaleWriter, ThreadNotFound, TreadleError
from treadle.journal import postgres_nodes
from treadle.journal.base import Batch

LOOK_SECONDS = 0.5
"""How often a node looks for new threads to watch."""

WATCHED = 0.5
"""The part of the threads that a node watches."""


Part = Callable[[treadle.Runtime, Evidence, str], Awaitable[None]]
"""What a node does as well, with its evidence and its name."""

DRAIN_SECONDS = 30.0


async def run(*parts: Part) -> None:
    """Runs the node of the command line, which also does the `parts`, until it is told to end."""
    url, logs, name, every, stale, *restate = sys.argv[1:]
    postgres_nodes.STALE_SECONDS = float(stale)
    postgres_engine.BEAT_SECONDS = float(stale) / 5  # as many heartbeats as outside
    shorten()
    engine = None
    if restate:
        ingress, admin, balancer, port = restate
        engine = treadle.Restate(ingress, admin, balancer, port=int(port))
    evidence = Evidence(Path(logs))
    ended, drains = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, lambda: (drains.set(), ended.set()))
    loop.add_reader(sys.stdin.fileno(), _parent_ended, loop, ended)
    agent = agent_on(evidence, float(every))
    async with treadle.open(url, agents=[agent], engine=engine) as runtime:
        _note_refusals(runtime, evidence, name)
        tasks = [
            asyncio.ensure_future(part(runtime, evidence, name))
            for part in (_watch, answer, *parts)
        ]
        print("ready", flush=True)
        await ended.wait()
        if drains.is_set():
            await runtime.drain(DRAIN_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _parent_ended(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    loop.remove_reader(sys.stdin.fileno())  # its end can be read again and again
    ended.set()


def _note_refusals(runtime: treadle.Runtime, evidence: Evidence, name: str) -> None:
    """Writes down each append that is refused, because another node has the thread."""
    journal = runtime.journal
    append = journal.append

    def noted(batch: Batch) -> asyncio.Future[None]:
        def note(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and isinstance(done.exception(), StaleWriter):
                evidence.add(Refused(name, batch.claim.number))

        done = append(batch)
        done.add_done_callback(note)
        return done

    setattr(journal, "append", noted)  # noqa: B010 - of this journal only


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
    asyncio.run(run())
