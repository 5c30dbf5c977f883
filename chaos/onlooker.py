"""Whoever watches from outside over all the kills, and sends a message now and then."""

import asyncio
import os
import random
from pathlib import Path

import weft
from chaos.evidence import Evidence
from weft.errors import JournalError
from weft.events import DurableEvent, MessageAdded, StepInterrupted, TextDelta


class Watched:
    """What one subscriber saw of a thread: durable events as JSON, and the text of its items."""

    def __init__(self) -> None:
        self.durable: list[bytes] = []
        self.seqs: list[int] = []
        self.growing: dict[str, str] = {}
        self.torn: list[str] = []

    async def watch(self, thread: weft.Thread) -> None:
        """Watches until it is cancelled."""
        async for envelope in thread.subscribe().envelopes():
            event = envelope.event
            if isinstance(event, TextDelta):
                self.growing[event.item_id] = self.growing.get(event.item_id, "") + event.delta
            elif isinstance(event, DurableEvent):
                self.durable.append(envelope.json)
                self.seqs.append(envelope.seq)
                self._landed(event)

    def _landed(self, event: DurableEvent) -> None:
        if isinstance(event, StepInterrupted):
            self.growing.clear()  # as the event says
        elif isinstance(event, MessageAdded) and event.origin == "model":
            seen = self.growing.pop(event.item.id, event.item.text)
            # Who watches through kills may have got the beginning only, never anything else.
            if not event.item.text.startswith(seen):
                self.torn.append(f"{seen!r} is not {event.item.text!r}")


class Onlooker:
    """Watches all threads of a database, and says something on them now and then."""

    def __init__(self, database: Path, evidence: Evidence, seed: int) -> None:
        self.watched: dict[str, Watched] = {}
        self.is_quiet = False
        self._database = database
        self._evidence = evidence
        self._random = random.Random(seed)

    async def look_on(self) -> None:
        """Looks on until it is cancelled."""
        async with (
            weft.open(f"sqlite:///{self._database}", drive=False) as runtime,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                for (thread_id,) in list(self._evidence.read("threads")):
                    thread = await runtime.connect(thread_id)
                    if thread_id not in self.watched:
                        self.watched[thread_id] = Watched()
                        tasks.create_task(self.watched[thread_id].watch(thread))
                    if self._random.random() < 0.02 and not self.is_quiet:
                        await self._say(thread)
                await asyncio.sleep(0.1)

    async def _say(self, thread: weft.Thread) -> None:
        key = f"o-{os.urandom(8).hex()}"
        try:
            run = await thread.send(key, key=key)
        except JournalError:
            return  # it was not acknowledged
        self._evidence.add("acks", thread.id, key, run.id)
