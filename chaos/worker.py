"""The process that is killed: it drives the threads, and clients in it talk on each of them.

python -m chaos.worker FOLDER SIMULATOR_URL SEED MODE POINT N

MODE is `talk`, or `settle`: then nothing new is said, and the process ends when all is at rest.
It kills itself at the N-th time at POINT, if one is named, and when its standard input ends: it
never outlives who started it.
"""

import asyncio
import random
import sys
from collections import defaultdict
from pathlib import Path

import treadle
import treadle.actors.actor
from chaos import points
from chaos.agents import NOTES_BEHIND, OTHER, SHARED, chaos_agent, chaos_worker, other_model
from chaos.continuing import QUIET, Continuer
from chaos.database import url_of
from chaos.deletion import Remover
from chaos.evidence import Evidence
from chaos.outputs import MODES, form_agents
from chaos.records import (
    Acknowledged,
    Continued,
    ContinueIntent,
    Deleted,
    Doomed,
    EditAcknowledged,
    EditIntent,
    Intent,
    PointReached,
    Refused,
    Seen,
    ThreadMade,
)
from chaos.scribe import Scribe
from chaos.talk import Talk
from chaos.tasks import Desk
from chaos.watcher import Watcher

THREADS = 8
OWNERS = ("ada", "bob")


async def main(folder: Path, url: str, seed: str, mode: str) -> None:
    """Opens the database and talks until it is killed, or until all is at rest."""
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), points.kill_self)
    evidence = Evidence(folder)
    desk = Desk(evidence, chaos_worker(url, evidence))
    agent = chaos_agent(url, desk)
    unanswered, last, seen = _remembered(evidence)
    async with treadle.open(
        url_of(folder / "treadle.db"),
        agents=[agent, *form_agents(NOTES_BEHIND)],
        models={OTHER: other_model(url)},
        deps=lambda info: desk,
        idle_seconds=0.3,
    ) as runtime:
        known = {made.thread_id for made in evidence.read(ThreadMade)}
        threads: list[treadle.Thread] = []
        for n in range(THREADS):  # both owners use the same keys
            owner, key = OWNERS[n % len(OWNERS)], f"talk {n // len(OWNERS)}"
            threads.append(await runtime.create_thread(agent, owner=owner, key=key))
            if threads[-1].id not in known:
                evidence.add(ThreadMade(threads[-1].id, owner, key))
        quiet: list[treadle.Thread] = []
        for owner in OWNERS:
            quiet.append(await runtime.create_thread(f"form-{MODES[0]}", owner=owner, key=QUIET))
            if quiet[-1].id not in known:
                evidence.add(ThreadMade(quiet[-1].id, owner, QUIET))
        boards = {owner: await runtime.memory(SHARED, owner=owner) for owner in OWNERS}
        unmade = _unacknowledged_edits(evidence)
        undecided = _undecided(evidence)
        remover = Remover(runtime, evidence, random.Random(f"{seed} d"))
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            talks: dict[str, Talk] = {}
            scribes: list[Scribe] = []
            continuers: list[Continuer] = []
            repeating: list[asyncio.Task[None]] = []
            others: list[asyncio.Task[None]] = []
            for n, thread in enumerate(threads):
                id, chance = thread.id, random.Random(f"{seed} {n}")
                talk = talks[id] = Talk(thread, evidence, chance)
                watcher = Watcher("inside", thread, evidence, chance, after=seen.get(id, 0))
                board = boards[OWNERS[n % len(OWNERS)]]
                scribe = Scribe(thread, board, evidence, random.Random(f"{seed} e{n}"), "inside")
                scribes.append(scribe)
                continuer = Continuer(thread, evidence, random.Random(f"{seed} c{n}"), "inside")
                continuers.append(continuer)
                edits = [*unmade[id], *(unmade[board.thread_id] if n < len(OWNERS) else ())]
                repeating.append(tasks.create_task(talk.repeat(unanswered[id], last.get(id))))
                repeating.append(tasks.create_task(scribe.repeat(edits)))
                repeating.append(tasks.create_task(continuer.repeat(undecided[id])))
                others.append(tasks.create_task(talk.answer()))
                others.append(tasks.create_task(watcher.watch()))
            for n, thread in enumerate(quiet):
                chance = random.Random(f"{seed} q{n}")
                continuers.append(Continuer(thread, evidence, chance, "inside"))
                repeating.append(tasks.create_task(continuers[-1].repeat(undecided[thread.id])))
            repeating.append(tasks.create_task(remover.repeat(_undeleted(evidence))))
            await asyncio.wait(repeating)
            if mode == "talk":
                others += [tasks.create_task(talk.say()) for talk in talks.values()]
                others += [tasks.create_task(scribe.act_on()) for scribe in scribes]
                others += [tasks.create_task(one.act_on()) for one in continuers]
                others.append(tasks.create_task(remover.act_on()))
                return
            while not await _at_rest(runtime):
                await asyncio.sleep(0.1)
            for task in others:
                task.cancel()


def _remembered(
    evidence: Evidence,
) -> tuple[defaultdict[str, list[Intent]], dict[str, Intent], dict[str, int]]:
    """What the clients of the lives before knew, by thread.

    The messages that were not acknowledged, the last that was, and the last event that was seen.
    """
    acknowledged = {ack.key for ack in evidence.read(Acknowledged)}
    unanswered = defaultdict[str, list[Intent]](list)
    last: dict[str, Intent] = {}
    for intent in evidence.read(Intent):
        if intent.key not in acknowledged:
            unanswered[intent.thread_id].append(intent)
        else:
            last[intent.thread_id] = intent
    seen = {one.thread_id: one.seq for one in evidence.read(Seen) if one.watcher == "inside"}
    return unanswered, last, seen


def _unacknowledged_edits(evidence: Evidence) -> defaultdict[str, list[EditIntent]]:
    """The edits that the lives before did not hear of, by the thread of the block."""
    acknowledged = {one.key for one in evidence.read(EditAcknowledged)}
    unmade = defaultdict[str, list[EditIntent]](list)
    for intent in evidence.read(EditIntent):
        if intent.key not in acknowledged:
            unmade[intent.memory_id].append(intent)
    return unmade


def _undecided(evidence: Evidence) -> defaultdict[str, list[ContinueIntent]]:
    """What continued a thread, and was neither accepted nor refused in the lives before."""
    decided = {one.key for kind in (Continued, Refused) for one in evidence.read(kind)}
    undecided = defaultdict[str, list[ContinueIntent]](list)
    for intent in evidence.read(ContinueIntent):
        if intent.key not in decided and intent.party == "inside":
            undecided[intent.thread_id].append(intent)
    return undecided


def _undeleted(evidence: Evidence) -> list[Doomed]:
    """The threads that the lives before have not deleted."""
    deleted = {one.name for one in evidence.read(Deleted)}
    return [one for one in evidence.read(Doomed) if one.name not in deleted]


async def _at_rest(runtime: treadle.Runtime) -> bool:
    """Whether nothing is left to do or is due later, and no inbox has an entry of an onlooker."""
    journal = runtime.journal
    waiting = await journal.waiting_threads()
    return not waiting and not await journal.unfinished() and not await journal.due(limit=1)


if __name__ == "__main__":
    folder, url, seed, mode, point, n = sys.argv[1:]
    treadle.actors.actor.SNAPSHOT_EVERY = 40  # so that snapshots happen within a short run
    if point:
        points.arm(point, int(n), lambda: Evidence(Path(folder)).add(PointReached(point)))
    asyncio.run(main(Path(folder), url, seed, mode))
