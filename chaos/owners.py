"""Whether one owner sees anything of another."""

import random
from collections.abc import Sequence
from contextlib import suppress

import treadle
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import Peeked, ThreadMade
from treadle.errors import RunNotFound, ThreadNotFound, UnknownFile


def secret_of(owner: str) -> bytes:
    """Returns a file of an owner."""
    return f"a secret of {owner}\n".encode() * 500


async def peek(
    runtime: treadle.Runtime,
    made: Sequence[ThreadMade],
    evidence: Evidence,
    chance: random.Random,
) -> None:
    """Looks for a thread of one owner, and all that belongs to it, as another owner."""
    hidden = chance.choice(made)
    others = [one.owner for one in made if one.owner != hidden.owner]
    if not others:
        return
    view = runtime.for_owner(chance.choice(others))
    seen: list[str] = []
    with suppress(ThreadNotFound):
        await view.connect(hidden.thread_id)
        seen.append("connect")
    with suppress(ThreadNotFound):
        if (await view.connect(key=hidden.key)).id == hidden.thread_id:  # its own has that key too
            seen.append("connect by key")
    for run in await (await runtime.connect(hidden.thread_id)).runs(limit=1, order="desc"):
        with suppress(RunNotFound):
            await view.run(run.id)
            seen.append("run")
    with suppress(UnknownFile):
        mine = await runtime.for_owner(hidden.owner).files.put(secret_of(hidden.owner))
        await view.files.get(mine.id)
        seen.append("file")
    listed = [one.id for one in await view.threads(limit=1000)]
    called = [one.thread_id for one in await view.calls(limit=1000)]
    planned = [one.thread_id for one in await view.schedules(limit=1000)]
    theirs = {one.thread_id for one in made if one.owner == hidden.owner}
    for name, ids in (("threads", listed), ("calls", called), ("schedules", planned)):
        if theirs & set(ids):
            seen.append(name)
    evidence.add(Peeked(hidden.thread_id, seen))


def judge_owners(findings: Findings, evidence: Evidence) -> None:
    """Nothing of one owner was visible to the other."""
    for one in evidence.read(Peeked):
        findings.counts["looks at another owner"] += 1
        for what in one.seen:
            findings.wrong.append(f"{one.thread_id} was visible to another owner: {what}")
