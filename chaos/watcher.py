"""One subscriber: it leaves and comes back where it stood, and writes down all it sees."""

import asyncio
import random
from collections.abc import Callable
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
    TextDelta,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToUserDelta,
    delta_key,
)
from treadle.errors import JournalError

LEAVING = 0.01


class _Growing(NamedTuple):
    """A text of an item so far, and since when: the life of the process, the visit last seen."""

    text: str
    life: float
    visit: int


class Watcher:
    """Watches a thread under a name; `life` tells the lives of the driving process apart."""

    def __init__(
        self,
        name: str,
        thread: treadle.Thread,
        evidence: Evidence,
        chance: random.Random,
        *,
        after: int = 0,
        life: Callable[[], float],
    ) -> None:
        self._name = name
        self._thread = thread
        self._evidence = evidence
        self._chance = chance
        self._position = str(after) if after else "0"
        self._life = life
        self._growing: dict[DeltaKey, _Growing] = {}
        self._visit = 0

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
            # Pieces that count together have no position to come back to before the last.
            if envelope.n >= 0 and self._chance.random() < LEAVING:
                return

    def _see(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, Delta):
            key = delta_key(event)
            text, life, _ = self._growing.get(key, ("", self._life(), 0))
            self._growing[key] = _Growing(text + event.delta, life, self._visit)
        elif isinstance(event, DurableEvent):
            self._evidence.add(
                Seen(self._name, self._thread.id, envelope.seq, envelope.json.decode())
            )
            self._landed(event)

    def _landed(self, event: DurableEvent) -> None:
        match event:
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
        # An item that was finished while nobody was here comes as its durable event alone.
        unbroken = seen.life == self._life() and seen.visit == self._visit
        self._evidence.add(
            TextSeen(self._name, self._thread.id, key[1], seen.text, final, unbroken)
        )
