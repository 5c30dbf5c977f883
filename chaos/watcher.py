"""One subscriber: it leaves and comes back where it stood, and writes down all it sees."""

import asyncio
import random
from contextlib import suppress
from typing import NamedTuple

import treadle
from chaos.evidence import Evidence
from chaos.records import Seen, TextSeen
from treadle.bus.subscription import Subscription
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    Delta,
    DeltaKey,
    DurableEvent,
    MessageAdded,
    ReasoningAdded,
    ReasoningDelta,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToUserDelta,
    delta_key,
)
from treadle.errors import JournalError

LEAVING = 0.01


class _Growing(NamedTuple):
    """A text of an item so far, and the visit in which a delta of it came last."""

    text: str
    visit: int


class Watcher:
    """Watches a thread under a name."""

    def __init__(
        self,
        name: str,
        thread: treadle.Thread,
        evidence: Evidence,
        chance: random.Random,
        *,
        after: int = 0,
    ) -> None:
        self._name = name
        self._thread = thread
        self._evidence = evidence
        self._chance = chance
        self._position = str(after) if after else "0"
        self._growing: dict[DeltaKey, _Growing] = {}
        self._visit = 0
        self._step_visit = -1  # in which the step began

    async def watch(self) -> None:
        """Watches until it is cancelled, with breaks."""
        # To begin with it has seen nothing of the items in flight: a number asks for all of them.
        subscription = self._thread.subscribe(int(self._position))
        while True:
            async with subscription:
                with suppress(JournalError):  # the database was busy; it comes back
                    await self._listen(subscription)
            self._visit += 1
            await asyncio.sleep(self._chance.random() * 0.3)
            subscription = self._thread.subscribe(subscription.position)

    async def _listen(self, subscription: Subscription) -> None:
        async for envelope in subscription.envelopes():
            self._see(envelope)
            if self._chance.random() < LEAVING:
                return

    def _see(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, Delta):
            key = delta_key(event)
            text, _ = self._growing.get(key, ("", 0))
            self._growing[key] = _Growing(text + event.delta, self._visit)
        elif isinstance(event, DurableEvent):
            self._evidence.add(
                Seen(self._name, self._thread.id, envelope.seq, envelope.json.decode())
            )
            self._landed(event)

    def _landed(self, event: DurableEvent) -> None:
        match event:
            case StepStarted():
                self._step_visit = self._visit
            case StepInterrupted():
                self._growing.clear()  # as the event says
            case MessageAdded():
                self._text_landed((TextDelta, event.item.id, ""), event.item.text)
            case ReasoningAdded():
                self._text_landed((ReasoningDelta, event.item.id, ""), event.item.text)
            case ToolCallRequested():
                self._text_landed((ToolArgumentsDelta, event.item.id, ""), event.item.arguments)
                self._text_landed((ToUserDelta, event.item.id, ""), event.said)
            case _:
                pass

    def _text_landed(self, key: DeltaKey, final: str) -> None:
        seen = self._growing.pop(key, None)
        if seen is None:
            return  # it came when the item was finished: whole, and without deltas
        # A subscriber that stays since the start of the step misses nothing, even if the process
        # that drives is killed: what it had not sent follows from the event. Whether that process
        # lives is not asked: its last deltas may be read when the next one is there already.
        unbroken = seen.visit == self._step_visit == self._visit
        self._evidence.add(
            TextSeen(self._name, self._thread.id, key[1], seen.text, final, unbroken)
        )
