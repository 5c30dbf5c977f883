"""Whether the database and the logs agree: nothing lost, nothing doubled, everything at rest."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.announcements import judge_announcements
from chaos.blocks import judge_blocks
from chaos.calls import judge_calls, judge_ran, judge_workers
from chaos.continuing import judge_continuing
from chaos.database import damage
from chaos.deletion import judge_deletion
from chaos.evidence import Evidence
from chaos.files import judge_files
from chaos.findings import Findings
from chaos.jobs import judge_agents, judge_bodies, judge_jobs, judge_submitted
from chaos.messages import judge_messages
from chaos.notes import judge_notes
from chaos.options import judge_options
from chaos.outputs import judge_outputs
from chaos.owners import judge_owners
from chaos.records import ThreadMade
from chaos.schedules import judge_schedules
from chaos.seen import judge_seen
from chaos.states import judge_state
from chaos.stored import stored_threads


@dataclass
class Verdict(Findings):
    """What the campaign was, and what it found."""

    kills: int = 0
    rounds: int = 0
    threads: int = 0
    points: Counter[str] = field(default_factory=Counter[str])

    def add(self, other: "Verdict") -> None:
        """Adds the verdict of the next round."""
        self.rounds += 1
        self.kills += other.kills
        self.threads += other.threads
        self.points += other.points
        self.counts += other.counts
        for name in ("losses", "duplicates", "wrong"):
            found: list[str] = getattr(other, name)
            getattr(self, name).extend(f"round {self.rounds}: {finding}" for finding in found)

    def judge_log(self, log: str) -> None:
        """A defect that a worker met and outlived is a finding as well."""
        if "Traceback" in log:
            start = log.index("Traceback")
            self.wrong.append(f"a worker met a defect: {log[max(0, start - 200) : start + 3000]}")


def verdict_of(folder: Path) -> Verdict:
    """Compares the database in `folder` with the logs beside it."""
    evidence, verdict = Evidence(folder), Verdict()
    database = folder / "treadle.db"
    if found := damage(database):
        verdict.wrong.append(f"the database is damaged: {found}")
    stored = list(stored_threads(database))
    verdict.threads = len(stored)
    for thread in stored:
        verdict.counts["events"] += len(thread.events)
        judge_state(verdict, thread, database)
    # What a copy has from its original happened there; all else in it is that of its message.
    threads = [thread for thread in stored if not thread.forked_from]
    verdict.counts["copies"] += len(stored) - len(threads)
    for thread in threads:
        judge_outputs(verdict, thread)
        judge_options(verdict, thread)
        judge_calls(verdict, thread, evidence)
        judge_messages(verdict, thread, evidence)
        judge_notes(verdict, thread)
        judge_jobs(verdict, thread, evidence)
        judge_announcements(verdict, thread)
        if not thread.parent:  # nobody but its parent looks on where an agent works
            judge_seen(verdict, thread, evidence)
    judge_ran(verdict, threads, evidence)
    judge_workers(verdict, threads)
    judge_submitted(verdict, threads, evidence)
    judge_bodies(verdict, threads, evidence)
    judge_agents(verdict, threads)
    judge_blocks(verdict, threads, evidence)
    judge_files(verdict, stored, database)
    judge_continuing(verdict, stored, evidence)
    judge_schedules(verdict, threads, evidence)
    judge_owners(verdict, evidence)
    judge_deletion(verdict, stored, evidence)
    known = {thread.id for thread in threads}
    keys = Counter((one.owner, one.key) for one in evidence.read(ThreadMade))
    for (owner, key), times in keys.items():
        if times > 1:
            verdict.duplicates.append(f"{owner} has {times} threads with the key {key}")
    for made in evidence.read(ThreadMade):
        if made.thread_id not in known:
            verdict.losses.append(f"{made.thread_id} is gone")
    return verdict
