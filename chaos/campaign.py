"""The kills: workers that are started, killed and started again, and one that may finish."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from chaos.evidence import Evidence
from chaos.onlooker import Onlooker
from chaos.points import POINTS
from chaos.verdict import Verdict, verdict_of
from weft.testing import SimulatorProcess

STARTED = 20.0
KILLED = 6.0
SETTLED = 180.0


class WorkerFailed(Exception):
    """A worker ended by itself, or did not come to rest."""


async def campaign(kills: int, seed: int, folder: Path) -> Verdict:
    """Kills workers on the database in `folder`, lets the last one finish, and judges.

    Raises `WorkerFailed`.
    """
    chance = random.Random(seed)
    evidence = Evidence(folder)
    async with SimulatorProcess() as simulator, asyncio.TaskGroup() as tasks:
        await _kill_one(folder, simulator.base_url, chance, "")
        onlooker = Onlooker(folder / "weft.db", evidence, seed)
        looking = tasks.create_task(onlooker.look_on())
        for number in range(1, kills):
            named = chance.random() < 0.7
            await _kill_one(
                folder,
                simulator.base_url,
                chance,
                list(POINTS)[number % len(POINTS)] if named else "",
            )
        onlooker.is_quiet = True
        await _settle(folder, simulator.base_url, seed)
        await asyncio.sleep(1.0)  # the onlooker reads the last events
        looking.cancel()
    return await asyncio.to_thread(verdict_of, folder, kills, onlooker.watched)


async def _kill_one(folder: Path, url: str, chance: random.Random, point: str) -> None:
    """Starts a worker and has it killed: by itself at a point, or from here at any moment."""
    n = chance.choice([1, 2, 3, 5, 8, 13, 21])
    worker = await _start(folder, url, chance.randrange(2**32), "talk", point, n)
    try:
        if chance.random() < 0.85:
            await _ready(worker)
        delay = KILLED if point else chance.random() * 0.8
        try:
            await asyncio.wait_for(worker.wait(), delay)
        except TimeoutError:
            pass  # the point was not reached, or none was named
        else:
            await _require_killed(worker)
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


async def _settle(folder: Path, url: str, seed: int) -> None:
    worker = await _start(folder, url, seed, "settle", "", 0)
    try:
        code = await asyncio.wait_for(worker.wait(), SETTLED)
    except TimeoutError:
        raise WorkerFailed("The threads did not come to rest.") from None
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    if code:
        raise WorkerFailed(f"The last worker failed:\n{await _errors(worker)}")


async def _start(folder: Path, url: str, seed: int, mode: str, point: str, n: int) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chaos.worker",
        str(folder),
        url,
        str(seed),
        mode,
        point,
        str(n),
        stdout=PIPE,
        stderr=PIPE,
        cwd=Path(__file__).parent.parent,
    )


async def _ready(worker: Process) -> None:
    """Waits until the worker has opened the database, or was killed before."""
    assert worker.stdout is not None
    await asyncio.wait_for(worker.stdout.readline(), STARTED)


async def _require_killed(worker: Process) -> None:
    if worker.returncode is not None and worker.returncode >= 0:
        raise WorkerFailed(f"A worker ended with {worker.returncode}:\n{await _errors(worker)}")


async def _errors(worker: Process) -> str:
    assert worker.stderr is not None
    return (await worker.stderr.read()).decode(errors="replace")[-4000:]
