"""Whether what continues a thread is there once where it was accepted, and nowhere if refused.

Messages with the event that they follow, several at once, items without a run, and messages after
an event, which may go to a copy of the thread.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import treadle
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.outputs import MODES
from chaos.records import (
    Continuation,
    Continued,
    ContinueIntent,
    Party,
    Refused,
    ScheduleCancelIntent,
)
from chaos.stored import StoredThread
from treadle.domain.events import (
    ItemsAdded,
    MessageAdded,
    MessageQueued,
    RunCancelled,
    RunCancelling,
    RunQueued,
)
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.domain.state import ThreadState
from treadle.errors import Conflict, NotDriven, RunInProgress

KINDS: Sequence[Continuation] = ("expect", "expect", "add", "several", "schedule", "schedule")
FORK = 0.06
"""How likely a message is to be sent after an event, which copies the thread in most cases."""
AGAIN = 0.3
CANCEL = 0.2
PAUSE = 2.0
QUIET = "quiet"
"""The key of the threads on which only this client acts, so that more of it is accepted."""
LOOKS = 50
SEVERAL = 3
LATEST = 1.0
"""In how many seconds a schedule is due, at most."""


class Continuer:
    """A client that continues a thread in all these ways."""

    def __init__(
        self, thread: treadle.Thread, evidence: Evidence, chance: random.Random, party: Party
    ) -> None:
        self._thread = thread
        self._evidence = evidence
        self._chance = chance
        self._party: Party = party

    async def repeat(self, unanswered: Sequence[ContinueIntent]) -> None:
        """Sends again what was neither accepted nor refused."""
        for intent in unanswered:
            await self._continue(intent)

    async def act_on(self) -> None:
        """Continues the thread again and again, until it is cancelled."""
        while True:
            await self.act()
            await asyncio.sleep(self._chance.random() * PAUSE)

    async def act(self) -> None:
        """Continues the thread in one way, and sometimes says it again."""
        kind = "after" if self._chance.random() < FORK else self._chance.choice(KINDS)
        key = f"c-{self._chance.getrandbits(64):x}"
        state = await self._thread.state()
        if kind == "add":
            state = await self._idle(state)
        seq = max(0, state.seq - self._chance.choice([0, 0, 0, 3]))
        intent = ContinueIntent(self._thread.id, key, kind, seq, self._party)
        self._evidence.add(intent)
        await self._continue(intent)
        if self._chance.random() < AGAIN:  # as if the acknowledgement had been lost
            await self._continue(intent)
        if kind == "schedule" and self._chance.random() < CANCEL:
            for schedule in await self._thread.schedules():
                if schedule.text == key:
                    self._evidence.add(ScheduleCancelIntent(schedule.id))
                    await self._thread.cancel_schedule(schedule.id)

    async def _idle(self, state: ThreadState) -> ThreadState:
        """Waits a while for a moment in which items can be added."""
        for _ in range(LOOKS):
            if state.active_run is None and not state.queue:
                break
            await asyncio.sleep(0.02)
            state = await self._thread.state()
        return state

    async def _continue(self, intent: ContinueIntent) -> None:
        try:
            thread_id, run_id = await self._sent(intent)
        except (Conflict, RunInProgress):
            self._evidence.add(Refused(intent.key))
        except NotDriven:
            return  # the process that drives the threads was killed: nothing is known
        else:
            self._evidence.add(Continued(intent.key, thread_id, run_id))

    async def _sent(self, intent: ContinueIntent) -> tuple[str, str]:
        """Returns the thread and the run of what was accepted."""
        thread, key, seq = self._thread, intent.key, intent.seq
        match intent.kind:
            case "expect":
                run = await thread.send(key, key=key, expect=seq)
            case "several":
                run = await thread.send([treadle.user_message(t) for t in texts_of(key)], key=key)
            case "after":  # its agent has no tools, so that a copy does nothing twice
                run = await thread.send_after(seq, key, key=key, agent=f"form-{MODES[0]}")
            case "schedule":
                schedule = await thread.schedule(key, after=seq % 10 / 10 * LATEST, key=key)
                return thread.id, schedule.id
            case "add":
                call_id = f"call_{key}"
                call = FunctionCall(call_id, "effect", '{"to_user": "", "text": ""}')
                output = FunctionCallOutput(call_id, "done")
                await thread.add([treadle.user_message(key), call, output], key=key)
                return thread.id, ""
        return run.thread_id, run.id


def texts_of(key: str) -> list[str]:
    """Returns the texts of the messages that are sent at once."""
    return [f"{key} {number}" for number in range(SEVERAL)]


class _Said:
    """What a thread contains: the texts, the number that each of them followed, and the order."""

    def __init__(self, thread: StoredThread) -> None:
        self.texts: list[str] = []
        self.follows: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.dropped = {e.run_id for e in thread.events if isinstance(e, RunCancelled)}
        state, said = ThreadState(), 0
        for event in thread.events:
            match event:
                case MessageAdded(item=item):
                    self.texts.append(item.text)
                    self.follows.setdefault(item.text, said)
                case RunQueued(item=item) | MessageQueued(item=item):
                    self.follows.setdefault(item.text, said)
                case ItemsAdded(items=items):
                    self.calls += Counter(
                        item.call_id for item in items if isinstance(item, FunctionCallOutput)
                    )
                case _:
                    pass
            state = apply(state, event)
            if not isinstance(event, RunCancelling):  # which a message with "cancel" brings along
                said = state.said
        self.count = Counter(self.texts)

    def forget(self, original: "_Said") -> None:
        """Leaves out the texts that the original has as well."""
        for text in original.count:
            self.count.pop(text, None)


def judge_continuing(
    findings: Findings, threads: Sequence[StoredThread], evidence: Evidence
) -> None:
    """What was accepted is there once, and followed its event; what was refused is nowhere."""
    said = {thread.id: _Said(thread) for thread in threads if not thread.memory}
    originals = {thread.id: thread.forked_from for thread in threads if thread.forked_from}
    for id, original in originals.items():  # what a copy has from there is not a second one
        said[id].forget(said[original])
    accepted = {one.key: one for one in evidence.read(Continued)}
    refused = {one.key for one in evidence.read(Refused)}
    for intent in evidence.read(ContinueIntent):
        if intent.kind == "schedule":
            continue  # see `chaos.schedules`
        key = intent.key
        what = f"{intent.thread_id}: the message {key} ({intent.kind}, {intent.party})"
        text = texts_of(key)[0] if intent.kind == "several" else key
        found = Counter({id: one.count[text] for id, one in said.items() if one.count[text]})
        if found.total() > 1:
            findings.duplicates.append(f"{what} is there {found.total()} times")
        if key in accepted:
            findings.counts[f"continued: {intent.kind}"] += 1
            _judge_accepted(findings, what, intent, accepted[key], said)
        elif key in refused:
            findings.counts[f"refused: {intent.kind}"] += 1
            if found:
                findings.wrong.append(f"{what} was refused, and is there")
        elif intent.party == "inside":
            findings.wrong.append(f"{what} was neither accepted nor refused")


def _judge_accepted(
    findings: Findings,
    what: str,
    intent: ContinueIntent,
    accepted: Continued,
    said: dict[str, _Said],
) -> None:
    where, key = said.get(accepted.thread_id), intent.key
    texts = texts_of(key) if intent.kind == "several" else [key]
    if where is None:
        findings.losses.append(f"{what} went to {accepted.thread_id}, which is gone")
        return
    if not where.count[texts[0]]:
        if accepted.run_id not in where.dropped:
            findings.losses.append(f"{what} was accepted, and is gone")
        return
    start = where.texts.index(texts[0])
    if where.texts[start : start + len(texts)] != texts:
        findings.losses.append(f"{what}: the texts sent with it are gone")
    if intent.kind == "add" and where.calls[f"call_{key}"] != 1:
        findings.losses.append(f"{what}: its call was added {where.calls[f'call_{key}']} times")
    follows = where.follows[key] if intent.kind in {"expect", "after"} else 0
    if follows > intent.seq and accepted.thread_id == intent.thread_id:
        findings.wrong.append(f"{what} followed {follows}, not {intent.seq}")
