"""One round: a runtime under attack, then peace, then the verdict."""

import asyncio
import logging
from collections import Counter

from chaos.cluster.brief import BriefThreads, shorten
from chaos.cluster.desk import Desk
from chaos.findings import Findings
from chaos.inside.callers import Callers
from chaos.inside.cast import CALM_TEXT, cast_of
from chaos.inside.faults import Faults, FaultyJournal
from treadle import Runtime
from treadle.domain.events import (
    MessageAdded,
    RunStarted,
    TerminalEvent,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.fold import apply
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCallOutput
from treadle.domain.state import ThreadState
from treadle.errors import TreadleError

THREADS = 2
MESSAGES = 6
READERS = 2
CALM_MESSAGES = 8
REST_SECONDS = 3600.0


class _Defects(logging.Handler):
    """Collects what the engine could not explain."""

    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.ERROR)
        self._findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.name.startswith("treadle.engine"):
            self._findings.wrong.append(f"a drive met a defect: {record.exc_info[1]!r}")


async def play(seed: int, *, rate: float = 0.02) -> Findings:
    """Plays a round on the event loop that is running, which should have a virtual clock."""
    faults, findings = Faults(seed, rate), Findings()
    journal, (attacked, calm) = FaultyJournal(faults), cast_of(faults)
    defects, logger = _Defects(findings), logging.getLogger("treadle")
    logger.addHandler(defects)
    try:
        agents, desk, brief = [attacked, calm], Desk(), BriefThreads()
        shorten()
        async with (
            Runtime(journal, agents=agents, idle_seconds=3) as runtime,
            Runtime(journal, agents=agents, drive=False) as other,
        ):
            innocent = await runtime.create_thread(calm)
            journal.spared.add(innocent.id)
            parties = [
                Callers(await runtime.create_thread(attacked), faults, findings)
                for _ in range(THREADS)
            ]
            elsewhere = [
                Callers(await other.connect(party.thread.id), faults, findings) for party in parties
            ]
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(desk.watch(other))
                coming = tasks.create_task(brief.come(runtime, f"brief {seed}", "calm"))
                company = [
                    tasks.create_task(live())
                    for party in parties
                    for live in (party.answer, party.disturb, *[party.read] * READERS)
                ]
                company += [
                    tasks.create_task(live())
                    for party in elsewhere
                    for live in (party.answer, party.read)
                ]
                quiet = tasks.create_task(_converse(innocent, findings))
                sending = [
                    tasks.create_task(party.send(number))
                    for party in parties
                    for number in range(MESSAGES)
                ]
                await asyncio.wait([quiet, *sending])
                faults.is_active = False
                coming.cancel()
                for party in parties:
                    await _rest(party, findings)
                await asyncio.sleep(60)  # readers come to the end
                await brief.judge(runtime, findings)
                for task in (*company, watching):
                    task.cancel()
            for party in parties:
                await _judge(journal, party, findings)
                events = await journal.read(party.thread.id, after=0, limit=1 << 30)
                desk.judge(party.thread.id, events, findings)
            last = await runtime.create_thread(calm)
            if (await (await last.send("Hello.")).result()).text != CALM_TEXT:
                findings.wrong.append("a new thread does not work")
    finally:
        logger.removeHandler(defects)
    await asyncio.sleep(0)
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        findings.wrong.append(f"tasks are left: {left[:5]}")
    findings.counts.update(faults.counts)
    return findings


async def _converse(thread: object, findings: Findings) -> None:
    """The innocent conversation; nothing may happen to it."""
    for number in range(CALM_MESSAGES):
        try:
            async with asyncio.timeout(600):
                result = await (await thread.send(f"message {number}")).result()  # type: ignore[attr-defined]
        except (TreadleError, TimeoutError) as error:
            findings.wrong.append(f"the innocent run failed: {error!r}")
            return
        if (result.status, result.text) != ("completed", CALM_TEXT):
            findings.wrong.append(f"the innocent run came to {result.status}, {result.text!r}")
        await asyncio.sleep(2)


async def _rest(party: Callers, findings: Findings) -> None:
    try:
        async with asyncio.timeout(REST_SECONDS):
            while True:
                state = await party.thread.state()
                if state.active_run is None and not state.queue:
                    return
                await asyncio.sleep(1)
    except TimeoutError:
        findings.losses.append(f"{party.thread.id} did not come to rest")


async def _judge(journal: FaultyJournal, party: Callers, findings: Findings) -> None:
    """What was acknowledged is there once, every call is answered once, the fold is the state."""
    id, state = party.thread.id, ThreadState()
    events = await journal.read(id, after=0, limit=1 << 30)
    for event in events:
        state = apply(state, event)
    findings.counts["events"] += len(events)
    loaded = await party.thread.state()
    if (loaded.seq, list(loaded.history)) != (state.seq, list(state.history)):
        findings.wrong.append(f"{id}: the state in use is not the fold of the events")
    try:
        require_valid(state.history)
    except TreadleError as error:
        findings.wrong.append(f"{id}: {error.message}")
    said = Counter(
        event.item.text
        for event in events
        if isinstance(event, MessageAdded) and event.origin == "user"
    )
    ends = Counter(event.run_id for event in events if isinstance(event, TerminalEvent))
    begun = {event.run_id for event in events if isinstance(event, RunStarted)}
    for key in party.sent:
        findings.counts["messages"] += 1
        run_id = party.acknowledged.get(key, "")
        if said[key] > 1:
            findings.duplicates.append(f"{id}: {key!r} is there {said[key]} times")
        elif not said[key] and run_id in begun | {""}:
            findings.losses.append(f"{id}: {key!r} is gone")
    for run_id in begun:
        if ends[run_id] != 1:
            findings.wrong.append(f"{id}: {run_id} ended {ends[run_id]} times")
    asked = Counter(e.item.call_id for e in events if isinstance(e, ToolCallRequested))
    outputs = [e.item for e in events if isinstance(e, ToolOutputRecorded)]
    told = Counter(one.call_id for one in outputs if isinstance(one, FunctionCallOutput))
    for call_id in asked | told:
        if (asked[call_id], told[call_id]) != (1, 1):
            findings.wrong.append(f"{id}: {call_id} has {told[call_id]} outputs")
    findings.counts["tool calls"] += len(asked)
