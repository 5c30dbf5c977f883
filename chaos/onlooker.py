"""A client in another process, which lives on while the driving one is killed.

It watches all threads over all the kills, and now and then sends, answers and cancels.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import treadle
from chaos.agents import SHARED
from chaos.continuing import QUIET, Continuer
from chaos.database import url_of
from chaos.deletion import disturb
from chaos.evidence import Evidence
from chaos.owners import peek
from chaos.records import (
    Acknowledged,
    AnswerAcknowledged,
    CancelAcknowledged,
    CancelIntent,
    Intent,
    ThreadMade,
)
from chaos.scribe import Scribe
from chaos.talk import AGAIN, MOST_WAITING, answered, cancel_job, sent
from chaos.watcher import Watcher
from treadle.domain.entries import OnBusy
from treadle.errors import JournalError, ThreadError


class Onlooker:
    """Looks on with `drive=False`."""

    def __init__(self, database: Path, evidence: Evidence, seed: str) -> None:
        self.is_quiet = False
        self._database = database
        self._evidence = evidence
        self._chance = random.Random(seed)

    async def look_on(self) -> None:
        """Looks on until it is cancelled."""
        watched: set[str] = set()
        async with (
            treadle.open(url_of(self._database), drive=False) as runtime,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                made_so_far = list(self._evidence.read(ThreadMade))
                if made_so_far and not self.is_quiet:
                    await self._look_around(runtime, made_so_far)
                for made in made_so_far:
                    thread = await runtime.connect(made.thread_id)
                    if thread.id not in watched:
                        watched.add(thread.id)
                        tasks.create_task(self._watcher(thread).watch())
                    if not self.is_quiet and self._chance.random() < 0.1:
                        await self._act(runtime, thread, made)
                await asyncio.sleep(0.1)

    async def _look_around(self, runtime: treadle.Runtime, made: Sequence[ThreadMade]) -> None:
        """Looks for threads of other owners, and for those that are deleted."""
        with suppress(JournalError):  # the database was busy
            if self._chance.random() < 0.2:
                await peek(runtime, made, self._evidence, self._chance)
            if self._chance.random() < 0.2:
                await disturb(runtime, self._evidence, self._chance)

    def _watcher(self, thread: treadle.Thread) -> Watcher:
        return Watcher("outside", thread, self._evidence, self._chance)

    async def _act(
        self, runtime: treadle.Runtime, thread: treadle.Thread, made: ThreadMade
    ) -> None:
        """Says something, answers, cancels or edits, unless the database is held too long."""
        try:
            choice = self._chance.random()
            if made.key == QUIET:
                await Continuer(thread, self._evidence, self._chance, "outside").act()
            elif choice < 0.2:
                await self._say(thread)
            elif choice < 0.25:
                await Continuer(thread, self._evidence, self._chance, "outside").act()
            elif choice < 0.3:
                await cancel_job(thread, self._evidence, self._chance)
            elif choice < 0.6:
                board = await runtime.memory(SHARED, owner=made.owner)
                await Scribe(thread, board, self._evidence, self._chance, "outside").act()
            else:
                await self._answer(thread)
        except JournalError:
            return  # it was not acknowledged

    async def _say(self, thread: treadle.Thread) -> None:
        if len((await thread.state()).queue) >= MOST_WAITING:
            return
        on_busy: OnBusy = self._chance.choice(["queue", "queue", "cancel"])
        key = f"o-{self._chance.getrandbits(64):x}"
        self._evidence.add(Intent(thread.id, key, on_busy, "outside"))
        run = await sent(thread, key, on_busy)
        self._evidence.add(Acknowledged(thread.id, key, run.id))
        if self._chance.random() < AGAIN:  # as if the acknowledgement had been lost
            run = await sent(thread, key, on_busy)
            self._evidence.add(Acknowledged(thread.id, key, run.id))
        if self._chance.random() < 0.1:
            self._evidence.add(CancelIntent(thread.id, run.id))
            await run.cancel()
            self._evidence.add(CancelAcknowledged(thread.id, run.id, time.time(), "outside"))

    async def _answer(self, thread: treadle.Thread) -> None:
        for call, awaits in await thread.pending_calls():
            try:
                answer = await answered(thread, call.call_id, awaits, self._chance)
            except ThreadError:
                continue  # somebody else was quicker, or the run has ended
            self._evidence.add(AnswerAcknowledged(thread.id, call.call_id, answer, "outside"))
