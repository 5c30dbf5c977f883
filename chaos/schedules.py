"""Whether every schedule was due once, and its message is in the history once."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import Continued, ContinueIntent, ScheduleCancelIntent
from chaos.stored import StoredThread
from treadle.domain.events import (
    MessageAdded,
    RunCancelled,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
)


def judge_schedules(
    findings: Findings, threads: Sequence[StoredThread], evidence: Evidence
) -> None:
    """What was acknowledged was made once, and then done or, if that was asked for, cancelled."""
    made = Counter[str]()
    cancelled = set[str]()
    fired = defaultdict[str, list[str]](list)
    said = Counter[str]()
    dropped = set[str]()
    for thread in threads:
        for event in thread.events:
            match event:
                case ScheduleCreated():
                    made[event.schedule.text] += 1
                case ScheduleFired():
                    fired[event.schedule_id].append(event.run_id)
                case ScheduleCancelled():
                    cancelled.add(event.schedule_id)
                case MessageAdded(origin="schedule"):
                    said[event.item.text] += 1
                case RunCancelled():
                    dropped.add(event.run_id)
                case _:
                    pass
    asked = {one.schedule_id for one in evidence.read(ScheduleCancelIntent)}
    accepted = {one.key: one.run_id for one in evidence.read(Continued)}
    for intent in evidence.read(ContinueIntent):
        if intent.kind != "schedule":
            continue
        findings.counts["schedules"] += 1
        key, id = intent.key, accepted.get(intent.key, "")
        what = f"{intent.thread_id}: the schedule {key} ({intent.party})"
        if not id and intent.party == "inside":
            findings.wrong.append(f"{what} was never acknowledged")
        runs = fired[id]
        if made[key] > 1 or len(runs) > 1 or said[key] > 1:
            findings.duplicates.append(f"{what} made {made[key]}, due {runs}, said {said[key]}")
        if id and not made[key]:
            findings.losses.append(f"{what} was acknowledged, and is gone")
        elif id and not runs and (id not in cancelled or id not in asked):
            findings.losses.append(f"{what} was never due")
        elif runs and not said[key] and runs[0] not in dropped:
            findings.losses.append(f"{what} was due, and its message is gone")
