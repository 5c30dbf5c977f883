"""Those who use a thread from outside its runs, are cancelled at any turn, and come back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chaos.findings import Findings
from chaos.inside.faults import Faults
from treadle import Thread, ThreadRun
from treadle.domain.entries import OnBusy
from treadle.domain.events import (
    AgentEvent,
    MessageAdded,
    StepInterrupted,
    TextDelta,
)
from treadle.domain.items import Message
from treadle.errors import JournalError, RunError, RunInProgress, ThreadError, TreadleError

T = TypeVar("T")

MOST_TURNS = 40
PATIENCE = 1800.0
"""The longest wait of a caller, in seconds of the virtual clock."""


class Callers:
    """Sends, waits, answers, cancels and reads on one thread; each call may be cut off."""

    def __init__(self, thread: Thread, faults: Faults, findings: Findings) -> None:
        self.thread = thread
        self.acknowledged: dict[str, str] = {}
        self.sent: set[str] = set()
        self._faults = faults
        self._findings = findings
        self._turns = 0
        self._late: set[str] = set()

    async def impatiently(self, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Makes a call until it returns; cancels the caller after one more turn each time.

        Returns None for a typed error that another try cannot help.
        """
        loop = asyncio.get_running_loop()
        last = loop.time() + PATIENCE
        while True:
            if loop.time() > last:
                self._findings.losses.append(f"{self.thread.id}: {what} never succeeded")
                return None
            task = asyncio.ensure_future(call())
            is_cut_off = self._faults.strikes("cancelled caller", 0.5)
            if is_cut_off:
                self._turns = (self._turns + 1) % MOST_TURNS
                for _ in range(self._turns):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.wait([task])
            except TimeoutError:
                self._findings.losses.append(f"{self.thread.id}: {what} did not return")
                task.cancel()
                await asyncio.wait([task])
                return None
            if task.cancelled():
                if is_cut_off:
                    continue
                self._findings.wrong.append(f"{self.thread.id}: {what} was cancelled by itself")
                return None
            error = task.exception()
            if error is None:
                return task.result()
            if isinstance(error, RunInProgress | JournalError) and not _is_final(error):
                await asyncio.sleep(self._faults.chance.random())
                continue
            if not isinstance(error, TreadleError) and not what.startswith("result"):
                self._findings.wrong.append(f"{self.thread.id}: {what} raised {type(error)}")
            return None

    async def send(self, number: int) -> None:
        """Sends a message until it is acknowledged, then waits for the result."""
        chance = self._faults.chance
        key = f"{self.thread.id} {number}"
        policies: list[OnBusy] = ["queue", "steer", "cancel", "reject"]
        on_busy = chance.choice(policies)
        await asyncio.sleep(chance.random() * 20)
        self.sent.add(key)
        run = await self.impatiently(
            f"send {on_busy}", lambda: self.thread.send(key, key=key, on_busy=on_busy)
        )
        if run is not None:
            self.acknowledged[key] = run.id
            await self._result(run)

    async def _result(self, run: ThreadRun) -> None:
        result = await self.impatiently("result", lambda: run.result(raise_on_incomplete=False))
        if result is None:
            self._findings.counts["runs that failed"] += 1
        else:
            self._findings.counts[f"runs {result.status}"] += 1

    async def answer(self) -> None:
        """Answers what waits, again and again, until it is cancelled."""
        chance = self._faults.chance
        while True:
            await asyncio.sleep(chance.random() * 5)
            for call in await self.impatiently("pending_calls", self.thread.pending_calls) or ():
                id = call.call.call_id
                if call.awaits == "output":
                    await self.impatiently(
                        "submit", lambda id=id: self.thread.submit_tool_output(id, "answer")
                    )
                elif chance.random() < 0.6:
                    await self.impatiently("approve", lambda id=id: self.thread.approve(id))
                else:
                    await self.impatiently("deny", lambda id=id: self.thread.deny(id, "no"))
                self._findings.counts["answers"] += 1

    async def disturb(self) -> None:
        """Cancels or finishes the active run now and then, until it is cancelled."""
        chance = self._faults.chance
        while True:
            await asyncio.sleep(chance.random() * 60)
            run = await self.impatiently("active_run", self.thread.active_run)
            if run is not None and self._faults.is_active:
                end = run.cancel if chance.random() < 0.5 else run.finish
                await self.impatiently("cancel", end)

    async def read(self) -> None:
        """Reads with pauses and breaks, until it is cancelled; what it puts together is exact."""
        chance, position, slept = self._faults.chance, "0", False
        grown: dict[str, str] = {}
        while True:
            if slept:  # the runs of these texts may have left the memory: only the rest is exact
                self._late.update(grown)
                slept = False
            subscription = self.thread.subscribe(position)
            leaves = chance.randint(1, 80)
            try:
                async with subscription:
                    async for event in subscription:
                        inner = event.event if isinstance(event, AgentEvent) else event
                        where = event.thread_id if isinstance(event, AgentEvent) else ""
                        self._take(inner, where, grown)
                        position = subscription.position
                        leaves -= 1
                        if self._faults.strikes("reader pauses", 0.05):
                            slept = True
                            await asyncio.sleep(chance.choice([0.01, 0.5, 5]))
                        if leaves <= 0 and self._faults.is_active:
                            break
            except (JournalError, ThreadError, RunError):
                slept = True
                await asyncio.sleep(1)

    def _take(self, event: object, where: str, grown: dict[str, str]) -> None:
        match event:
            case TextDelta():
                id = f"{where} {event.item_id}"
                grown[id] = grown.get(id, "") + event.delta
            case StepInterrupted():
                for id in [id for id in grown if id.startswith(f"{where} ")]:
                    del grown[id]
            case MessageAdded(origin="model", item=Message() as item):
                seen = grown.pop(f"{where} {item.id}", None)
                self._findings.counts["texts read"] += seen is not None
                is_late = f"{where} {item.id}" in self._late
                if seen is not None and seen != (item.text[: len(seen)] if is_late else item.text):
                    self._findings.wrong.append(
                        f"{self.thread.id}: a reader saw {seen!r} of {item.text!r}"
                    )
            case _:
                pass


def _is_final(error: TreadleError) -> bool:
    return isinstance(error, JournalError) and not error.retryable
