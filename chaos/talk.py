"""A client in the process that is killed: it talks on one thread, answers, cancels, watches."""

import asyncio
import random
import time
from collections.abc import Sequence

import treadle
from chaos.evidence import Evidence
from chaos.files import message_of
from chaos.options import options_of
from chaos.outputs import agent_of
from chaos.records import (
    Acknowledged,
    Answer,
    AnswerAcknowledged,
    CancelAcknowledged,
    CancelIntent,
    Intent,
    JobCancelled,
)
from treadle.domain.entries import OnBusy
from treadle.errors import Conflict, RunNotInProgress, UnknownToolCall

MOST_WAITING = 3
KINDS: Sequence[OnBusy] = ("queue", "queue", "queue", "steer", "cancel")
AGAIN = 0.3
PAUSE = 0.8


class Talk:
    """What a client does on one thread."""

    def __init__(self, thread: treadle.Thread, evidence: Evidence, chance: random.Random) -> None:
        self._thread = thread
        self._evidence = evidence
        self._chance = chance

    async def repeat(self, unanswered: Sequence[Intent], last: Intent | None) -> None:
        """Sends again what was not acknowledged, and sometimes the last that was."""
        for intent in unanswered:
            await self._send(intent)
        if last is not None and self._chance.random() < AGAIN:
            await self._send(last)

    async def say(self) -> None:
        """Sends message after message, until it is cancelled; some runs it cancels."""
        runs: list[treadle.ThreadRun] = []
        while True:
            while len((await self._thread.state()).queue) >= MOST_WAITING:
                await asyncio.sleep(0.05)  # the lives before have left enough to do
            key = f"m-{self._chance.getrandbits(64):x}"
            intent = Intent(self._thread.id, key, self._chance.choice(KINDS), "inside")
            self._evidence.add(intent)
            runs.append(await self._send(intent))
            if self._chance.random() < 0.1:
                await self._cancel(self._chance.choice(runs))
            if self._chance.random() < 0.1:
                await cancel_job(self._thread, self._evidence, self._chance)
            if len(runs) > MOST_WAITING:
                await runs.pop(0).result(raise_on_incomplete=False)
            if self._chance.random() < 0.2:
                await runs[-1].result(raise_on_incomplete=False)
                await asyncio.sleep(PAUSE)  # a job that announces its end finds no run in progress
            await asyncio.sleep(self._chance.random() * 0.1)

    async def _send(self, intent: Intent) -> treadle.ThreadRun:
        run = await sent(self._thread, intent.key, intent.on_busy)
        self._evidence.add(Acknowledged(self._thread.id, intent.key, run.id))
        return run

    async def _cancel(self, run: treadle.ThreadRun) -> None:
        self._evidence.add(CancelIntent(self._thread.id, run.id))
        await run.cancel()
        self._evidence.add(CancelAcknowledged(self._thread.id, run.id, time.time(), "inside"))

    async def answer(self) -> None:
        """Answers what waits for somebody outside, until it is cancelled."""
        while True:
            for call, awaits in await self._thread.pending_calls():
                try:
                    answer = await answered(self._thread, call.call_id, awaits, self._chance)
                except (Conflict, UnknownToolCall, RunNotInProgress):
                    continue  # somebody else was quicker, or the run has ended
                self._evidence.add(
                    AnswerAcknowledged(self._thread.id, call.call_id, answer, "inside")
                )
            await asyncio.sleep(0.02)


async def sent(thread: treadle.Thread, key: str, on_busy: OnBusy) -> treadle.ThreadRun:
    """Sends the message of a key: each time with the same file, agent and options."""
    return await thread.send(
        message_of(key),
        on_busy=on_busy,
        key=key,
        agent=agent_of(key, on_busy),
        **options_of(key, on_busy),
    )


async def answered(
    thread: treadle.Thread, call_id: str, awaits: str, chance: random.Random
) -> Answer:
    """Answers a call one way or another; returns which. Raises `ThreadError`."""
    if awaits == "output":
        await thread.submit_tool_output(call_id, f"of {call_id}")
        return "output"
    if chance.random() < 0.8:
        await thread.approve(call_id)
        return "approve"
    await thread.deny(call_id, "no")
    return "deny"


async def cancel_job(thread: treadle.Thread, evidence: Evidence, chance: random.Random) -> None:
    """Cancels one of the jobs that are open, if there are any."""
    if jobs := await thread.jobs():
        job = chance.choice(jobs)
        evidence.add(JobCancelled(thread.id, job.id))
        await thread.cancel_job(job.id)
