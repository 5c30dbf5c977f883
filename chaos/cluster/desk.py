"""The desk: what it shows of all threads, and the answers that are given to waiting calls."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from chaos.cluster.records import Answered
from chaos.evidence import Evidence
from chaos.findings import Findings
from treadle import Runtime
from treadle.domain.events import (
    RecordedEvent,
    RunStarted,
    TerminalEvent,
    ToolApproved,
    ToolOutputRecorded,
)
from treadle.errors import TreadleError

ANSWER_SECONDS = 0.3
"""How often it is looked for calls that wait."""

REASON = "no"


async def answer(runtime: Runtime, evidence: Evidence, name: str) -> None:
    """Answers the calls that wait, in parallel with all others that do, until it is cancelled."""
    chance = random.Random(name)
    while True:
        calls = []
        with suppress(TreadleError):
            calls = await runtime.calls(limit=100)
        for waiting in calls:
            id, approves = waiting.call.call_id, chance.random() < 0.6
            with suppress(TreadleError):  # another one was quicker, or the database is away
                thread = await runtime.connect(waiting.thread_id)
                await (thread.approve(id) if approves else thread.deny(id, REASON))
                evidence.add(Answered(waiting.thread_id, id, approves))
        await asyncio.sleep(ANSWER_SECONDS)


class Desk:
    """A reader of all threads, which comes back where it was cut off."""

    def __init__(self) -> None:
        self._told: dict[str, list[int]] = defaultdict(list)
        self.deleted: list[str] = []
        self.position = "start"

    async def watch(self, runtime: Runtime) -> None:
        """Reads until it is cancelled."""
        while True:
            with suppress(TreadleError):
                async with runtime.subscribe(after=self.position) as subscription:
                    async for one in subscription:
                        self.position = one.position
                        if one.type == "thread.deleted":
                            self.deleted.append(one.thread_id)
                        elif isinstance(one.event, RunStarted | TerminalEvent):
                            self._told[one.thread_id].append(one.event.seq)
            await asyncio.sleep(0.1)

    def judge(self, thread_id: str, events: Sequence[RecordedEvent], findings: Findings) -> None:
        """Looks whether it was told of each beginning and each end of a run once, in order."""
        due = [event.seq for event in events if isinstance(event, RunStarted | TerminalEvent)]
        findings.counts["told to the desk"] += len(self._told[thread_id])
        if self._told[thread_id] != due:
            findings.wrong.append(f"{thread_id}: the desk has {self._told[thread_id]} of {due}")


def judge_answers(
    answers: Sequence[Answered], events: Sequence[RecordedEvent], findings: Findings
) -> None:
    """Looks whether the answers that were acknowledged on a thread are those that counted."""
    approved = {event.call_id for event in events if isinstance(event, ToolApproved)}
    outputs = {
        event.item.call_id: event.item.text
        for event in events
        if isinstance(event, ToolOutputRecorded)
    }
    for one in answers:
        findings.counts["answers"] += 1
        text = outputs.get(one.call_id, "")
        counted = one.call_id in approved if one.approves else text.endswith(f"denied: {REASON}")
        if not counted:
            findings.losses.append(f"{one} did not count: {text!r}")
