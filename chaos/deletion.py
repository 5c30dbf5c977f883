"""Whether threads and owners that were deleted stay deleted, and nothing is left of their texts."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import treadle
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.outputs import MODES
from chaos.records import Deleted, Doomed
from chaos.stored import StoredThread
from treadle.domain.files import InputFile
from treadle.errors import JournalError, ThreadError, ThreadNotFound

PAUSE = 0.8
WHOLE = 0.3
"""How likely the owner is deleted, and not the thread."""
OURS = (".log", ".err")
"""The ends of the names of files that are not the runtime's."""


class Remover:
    """A client that makes threads, talks on them and deletes them, in the process that drives."""

    def __init__(self, runtime: treadle.Runtime, evidence: Evidence, chance: random.Random) -> None:
        self._runtime = runtime
        self._evidence = evidence
        self._chance = chance

    async def repeat(self, doomed: Sequence[Doomed]) -> None:
        """Deletes what was to be deleted."""
        for one in doomed:
            await self._delete(one)

    async def act_on(self) -> None:
        """Makes and deletes threads, until it is cancelled."""
        while True:
            name = f"d-{self._chance.getrandbits(64):x}"
            one = Doomed(name, f"owner-{name}", self._chance.random() < WHOLE)
            self._evidence.add(one)
            thread = await self._runtime.create_thread(
                f"form-{self._chance.choice(MODES)}",
                owner=one.owner,
                key=name,
                metadata={"name": name},
                history=[{"role": "user", "content": f"before {name}"}],
            )
            file = InputFile.from_bytes(f"the file of {name}\n".encode() * 400, f"{name}.txt")
            run = await thread.send([f"delete {name}", file], key=name)
            await thread.schedule(f"never {name}", after=60)
            if self._chance.random() < 0.5:
                await run.result()
            else:
                await asyncio.sleep(self._chance.random() * 0.03)
            await self._delete(one)
            await asyncio.sleep(self._chance.random() * PAUSE)

    async def _delete(self, one: Doomed) -> None:
        thread_id = ""
        with suppress(ThreadNotFound):  # it was not made, or is deleted already
            thread = await self._runtime.connect(key=one.name, owner=one.owner)
            thread_id = thread.id
            if not one.whole:
                await thread.delete()
        if one.whole:
            await self._runtime.delete_owner(one.owner)
        self._evidence.add(Deleted(one.name, thread_id))


async def disturb(runtime: treadle.Runtime, evidence: Evidence, chance: random.Random) -> None:
    """Sends to a thread that is deleted, or is about to be, from another process."""
    doomed = list(evidence.read(Doomed))[-3:]
    if doomed:
        one = chance.choice(doomed)
        with suppress(ThreadError, JournalError):
            thread = await runtime.connect(key=one.name, owner=one.owner)
            await thread.send(f"late {one.name}")


def judge_deletion(findings: Findings, threads: Sequence[StoredThread], evidence: Evidence) -> None:
    """A thread that was deleted is gone, and so is every text of it in any file."""
    there = {thread.owner for thread in threads}
    left = b"".join(_contents(evidence.folder))
    owners = {one.name: one.owner for one in evidence.read(Doomed)}
    for deleted in evidence.read(Deleted):
        findings.counts["threads deleted"] += 1
        if owners[deleted.name] in there:
            findings.losses.append(f"{deleted.name} was deleted, and is there again")
        elif (at := left.find(deleted.name.encode())) >= 0:
            found = left[max(0, at - 60) : at + 60]
            findings.wrong.append(f"{deleted.name} was deleted, and its text is left: {found!r}")


def _contents(folder: Path) -> list[bytes]:
    files = [path for path in folder.iterdir() if path.suffix not in OURS and path.is_file()]
    return [path.read_bytes() for path in files]
