"""A person who edits what agents remember: on a thread, and in the memory that it shares."""

import asyncio
import random
from collections.abc import Sequence

import treadle
from chaos.agents import BOARD, DRAFT, NOTES
from chaos.evidence import Evidence
from chaos.records import (
    DeleteAcknowledged,
    EditAcknowledged,
    EditIntent,
    Party,
    UndoAcknowledged,
    UndoIntent,
)
from treadle.domain.block_undo import taken_back
from treadle.errors import ChangeNotUndoable, UnknownBlock

AGAIN = 0.3
PAUSE = 0.6


class Scribe:
    """Edits the blocks of a thread and of a shared memory, undoes edits, and deletes a block."""

    def __init__(
        self,
        thread: treadle.Thread,
        board: treadle.Memory,
        evidence: Evidence,
        chance: random.Random,
        party: Party,
    ) -> None:
        self._memories = {NOTES: thread.memory, BOARD: board}
        self._evidence = evidence
        self._chance = chance
        self._party: Party = party

    async def repeat(self, unanswered: Sequence[EditIntent]) -> None:
        """Makes the edits again that were not acknowledged."""
        for intent in unanswered:
            await self._edit(intent)

    async def act_on(self) -> None:
        """Does one thing after the other, until it is cancelled."""
        while True:
            await self.act()
            await asyncio.sleep(self._chance.random() * PAUSE)

    async def act(self) -> None:
        """Does one thing, or nothing where an agent has not made the block yet."""
        choice = self._chance.random()
        label = self._chance.choice([NOTES, BOARD])
        if choice < 0.7:
            key = f"e-{self._chance.getrandbits(64):x}"
            intent = EditIntent(self._memories[label].thread_id, label, key, self._party)
            self._evidence.add(intent)
            await self._edit(intent)
            if self._chance.random() < AGAIN:  # as if the acknowledgement had been lost
                await self._edit(intent)
        elif choice < 0.97:
            await self._undo(label)
        else:
            await self._delete()

    async def _edit(self, intent: EditIntent) -> None:
        memory = self._memories[intent.label]
        try:
            await memory.append(intent.label, intent.key, key=intent.key)
        except UnknownBlock:
            return  # no agent has declared it yet
        self._evidence.add(EditAcknowledged(memory.thread_id, intent.label, intent.key))

    async def _undo(self, label: str) -> None:
        memory = self._memories[label]
        changes = await memory.changes(label)
        undone = taken_back(changes)
        edits = [one for one in changes if one.operation == "append" and one.seq not in undone]
        if not edits:
            return
        seq = self._chance.choice(edits[-10:]).seq
        self._evidence.add(UndoIntent(memory.thread_id, label, seq))
        try:
            await memory.undo(label, seq)
        except ChangeNotUndoable:
            return  # somebody else was quicker
        self._evidence.add(UndoAcknowledged(memory.thread_id, label, seq))

    async def _delete(self) -> None:
        memory = self._memories[NOTES]
        try:
            await memory.delete(DRAFT)
        except UnknownBlock:
            return  # it was deleted before
        self._evidence.add(DeleteAcknowledged(memory.thread_id, DRAFT, self._party))
