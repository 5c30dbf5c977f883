"""The kills: workers that are started, killed and started again, and one that may finish.

A campaign has rounds, each with a database of its own, so that it may go on for long: what a life
costs grows with what the lives before it have left.
"""

import asyncio
import random
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from pathlib import Path
from signal import SIGKILL

from chaos.evidence import Evidence
from chaos.onlooker import Onlooker
from chaos.points import POINTS
from chaos.records import PointReached
from chaos.verdict import Verdict, verdict_of
from treadle.testing import SimulatorProcess

KILLS_A_ROUND = 40
NAMED = 0.75
STARTED = 30.0
REACHED = 4.0
SETTLED = 180.0
READ = 1.5
ERRORS = "worker.err"


class WorkerFailed(Exception):
    """A worker ended by itself, or did not come to rest."""


async def campaign(kills: int, seed: int, folder: Path) -> Verdict:
    """Kills workers in rounds, each in a folder within `folder`, and judges every round.

    Raises `WorkerFailed`.
    """
    chance = random.Random(seed)
    total = Verdict()
    names: list[str] = []
    async with SimulatorProcess() as simulator:
        while total.kills < kills:
            number = total.rounds + 1
            here = folder / str(number)
            await asyncio.to_thread(here.mkdir)
            kills_now = min(KILLS_A_ROUND, kills - total.kills)
            points: list[str] = []
            for _ in range(kills_now):
                names = names or chance.sample(list(POINTS), len(POINTS))
                points.append(names.pop() if chance.random() < NAMED else "")
            lives = Round(here, simulator.base_url, random.Random(f"{seed} {number}"))
            total.add(await lives.judged(points))
    return total


class Round:
    """The lives and deaths on one database."""

    def __init__(self, folder: Path, url: str, chance: random.Random) -> None:
        self._folder = folder
        self._url = url
        self._chance = chance
        self._evidence = Evidence(folder)
        self._onlooker = Onlooker(folder / "treadle.db", self._evidence, f"{chance.random()}")
        self._kills = 0

    async def judged(self, points: list[str]) -> Verdict:
        """Kills a worker for each of `points`, "" being any instant, and lets one finish."""
        looking: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            for point in points:
                ready = await self._kill_one(point)
                if ready and looking is None:
                    looking = tasks.create_task(self._onlooker.look_on())
            self._onlooker.is_quiet = True
            await self._settle()
            if looking is not None:
                await asyncio.sleep(READ)  # the onlooker reads the last events
                looking.cancel()
        self._evidence.close()
        verdict = await asyncio.to_thread(verdict_of, self._folder)
        verdict.kills = self._kills
        verdict.points = Counter(reached.name for reached in self._evidence.read(PointReached))
        verdict.judge_log((self._folder / ERRORS).read_text(errors="replace"))
        return verdict

    async def _kill_one(self, point: str) -> bool:
        """Has a worker killed: by itself at a point, or from here at any moment.

        Returns whether it had opened the database before.
        """
        n = self._chance.randint(1, POINTS[point].often) if point else 0
        worker = await self._start("talk", point, n)
        ready = False
        try:
            if self._chance.random() < 0.85:
                ready = await self._ready(worker)
            delay = REACHED if point else self._chance.random() * 0.8
            await asyncio.wait_for(worker.wait(), delay)
        except TimeoutError:
            pass  # the point was not reached, or none was named
        finally:
            await self._end(worker)
        if worker.returncode != -SIGKILL:
            raise WorkerFailed(f"A worker ended with {worker.returncode}:\n{self._errors()}")
        self._kills += 1
        return ready

    async def _settle(self) -> None:
        worker = await self._start("settle", "", 0)
        try:
            code = await asyncio.wait_for(worker.wait(), SETTLED)
        except TimeoutError:
            raise WorkerFailed(f"Threads did not come to rest:\n{self._errors()}") from None
        finally:
            await self._end(worker)
        if code:
            raise WorkerFailed(f"The last worker failed:\n{self._errors()}")

    async def _start(self, mode: str, point: str, n: int) -> Process:
        seed = str(self._chance.getrandbits(32))
        arguments = (str(self._folder), self._url, seed, mode, point, str(n))
        with (self._folder / ERRORS).open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chaos.worker",
                *arguments,
                stdin=PIPE,  # it ends when this process does
                stdout=PIPE if mode == "talk" else DEVNULL,
                stderr=errors,
                cwd=Path(__file__).parent.parent,
            )

    async def _ready(self, worker: Process) -> bool:
        """Waits until the worker has opened the database, or was killed before."""
        assert worker.stdout is not None
        try:
            return bool(await asyncio.wait_for(worker.stdout.readline(), STARTED))
        except TimeoutError:
            raise WorkerFailed(f"A worker did not start:\n{self._errors()}") from None

    async def _end(self, worker: Process) -> None:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()

    def _errors(self) -> str:
        return (self._folder / ERRORS).read_text(errors="replace")[-4000:]
