"""The process that is killed: it drives the threads, and talks on each of them.

python -m chaos.worker FOLDER SIMULATOR_URL SEED MODE POINT N

MODE is `talk`, or `settle`: then nothing new is said, and the process ends when all is at rest.
"""

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import cast

import weft
import weft.runtime.actor
from chaos import points
from chaos.agents import chaos_agent
from chaos.evidence import Evidence
from weft import Thread, ThreadRun
from weft.bus.position import Position
from weft.errors import Conflict, RunNotInProgress, UnknownToolCall
from weft.events import DurableEvent
from weft.inputs import OnBusy

THREADS = 8
MOST_WAITING = 3
AT_WORK = {"queued", "in_progress", "requires_action", "cancelling"}


class Talk:
    """What happens on one thread: messages, answers, cancels, and somebody who watches."""

    def __init__(self, thread: Thread, evidence: Evidence, seed: str) -> None:
        self._thread = thread
        self._evidence = evidence
        self._random = random.Random(f"{seed} {thread.id}")

    async def say(self, *, more: bool) -> None:
        """Sends again what was not acknowledged; with `more`, goes on with new messages."""
        acknowledged = {key for _, key, *_ in self._evidence.read("acks")}
        for thread_id, key, wish in list(self._evidence.read("intents")):
            if thread_id == self._thread.id and key not in acknowledged:
                await self._send(key, cast("OnBusy", wish))
        runs: list[ThreadRun] = []
        while more:
            while len((await self._thread.state()).queue) >= MOST_WAITING:
                await asyncio.sleep(0.05)  # the lives before have left enough to do
            key = f"m-{os.urandom(8).hex()}"
            on_busy: OnBusy = self._random.choice(["queue", "queue", "steer", "cancel"])
            self._evidence.add("intents", self._thread.id, key, on_busy)
            runs.append(await self._send(key, on_busy))
            if self._random.random() < 0.1:
                await self._random.choice(runs).cancel()
            if len(runs) > MOST_WAITING:
                await runs.pop(0).result()
            await asyncio.sleep(self._random.random() * 0.1)

    async def _send(self, key: str, on_busy: OnBusy) -> ThreadRun:
        run = await self._thread.send(key, on_busy=on_busy, key=key)
        self._evidence.add("acks", self._thread.id, key, run.id)
        return run

    async def answer(self) -> None:
        """Answers what waits for somebody outside."""
        while True:
            for call, awaits in await self._thread.pending_calls():
                try:
                    if awaits == "output":
                        await self._thread.submit_tool_output(call.call_id, f"of {call.call_id}")
                    elif self._random.random() < 0.8:
                        await self._thread.approve(call.call_id)
                    else:
                        await self._thread.deny(call.call_id, "no")
                except (Conflict, UnknownToolCall, RunNotInProgress):
                    pass  # somebody else was quicker, or the run has ended
            await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Writes down every durable event, from where the process before was killed."""
        after = 0
        for thread_id, seq, _ in self._evidence.read("seen"):
            if thread_id == self._thread.id:
                after = max(after, int(seq))
        subscription = self._thread.subscribe(Position(after))
        async for envelope in subscription.envelopes():
            if isinstance(envelope.event, DurableEvent):
                self._evidence.add(
                    "seen", self._thread.id, str(envelope.seq), envelope.json.decode()
                )


async def main(folder: Path, url: str, seed: str, mode: str) -> None:
    """Opens the database and talks until it is killed, or until all is at rest."""
    evidence = Evidence(folder)
    agent = chaos_agent(url, evidence)
    database = f"sqlite:///{folder / 'weft.db'}"
    async with weft.open(database, agents=[agent], idle_seconds=0.3) as runtime:
        known = [thread_id for (thread_id,) in evidence.read("threads")]
        threads = [await runtime.connect(thread_id) for thread_id in known]
        while len(threads) < THREADS:
            threads.append(await runtime.create_thread(agent))
            evidence.add("threads", threads[-1].id)
        print("ready", flush=True)
        talks = [Talk(thread, evidence, seed) for thread in threads]
        async with asyncio.TaskGroup() as tasks:
            saying = [tasks.create_task(talk.say(more=mode == "talk")) for talk in talks]
            others = [tasks.create_task(talk.answer()) for talk in talks]
            others += [tasks.create_task(talk.watch()) for talk in talks]
            if mode == "settle":
                await asyncio.wait(saying)
                while not await _at_rest(runtime):
                    await asyncio.sleep(0.1)
                for task in others:
                    task.cancel()


async def _at_rest(runtime: weft.Runtime) -> bool:
    """Whether nothing is left to do, and nothing that onlookers said is left in an inbox."""
    if await runtime.journal.waiting_threads():
        return False
    return not any(info.status in AT_WORK for info in await runtime.threads())


if __name__ == "__main__":
    folder, url, seed, mode, point, n = sys.argv[1:]
    weft.runtime.actor.SNAPSHOT_EVERY = 40  # so that snapshots happen within a short run
    if point:
        points.arm(point, int(n))
    asyncio.run(main(Path(folder), url, seed, mode))
