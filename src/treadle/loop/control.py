"""What the holder of a run tells the loop that drives it, and lends it."""

import asyncio

from treadle.jobs.run_jobs import RunJobs
from treadle.memory.compaction.compactor import Compactor
from treadle.ports import Delegation, RunMemory


class RunControl:
    """The ways into a run that is being driven: end it now, or look at its state again.

    What was asked is recorded on the thread by who asks; this only makes the loop notice.
    `delegation` is how other agents are had to work for the run, `jobs` are its jobs, and `memory`
    is what it remembers; `compactor` keeps its requests inside the window of the model.
    """

    def __init__(self, delegation: Delegation | None = None) -> None:
        self.delegation = delegation
        self.jobs: RunJobs | None = None
        self.compactor: Compactor | None = None
        self.memory: RunMemory | None = None
        self._cause: tuple[str, BaseException] | None = None
        self._lap = 0.0
        self._kept = 0.0
        self._scope: asyncio.Timeout | None = None
        self._changed = asyncio.Event()

    def cancel(self) -> None:
        """Interrupts what the run is doing."""
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def interrupt(self, run_id: str, cause: BaseException) -> None:
        """Interrupts what the run is doing, because a job of it failed with `cause`."""
        self._cause = (run_id, cause)
        self.cancel()
        self.notify()

    def cause_of(self, run_id: str) -> BaseException | None:
        """Returns what a job of the run failed with, where that was in this process."""
        return self._cause[1] if self._cause is not None and self._cause[0] == run_id else None

    def lap(self) -> float:
        """Returns the seconds since it was called last: no work is counted twice."""
        self.keep()
        return self.kept()

    def skip(self) -> None:
        """Leaves the time since the last lap out."""
        self._lap = asyncio.get_running_loop().time()

    def keep(self) -> None:
        """Keeps the time since the last lap, to be counted with the next."""
        began, self._lap = self._lap, asyncio.get_running_loop().time()
        self._kept += self._lap - began

    def kept(self) -> float:
        """Returns the time that was kept, once."""
        seconds, self._kept = self._kept, 0.0
        return seconds

    def limit(self, seconds: float | None) -> None:
        """Lets the run work so long from now on; None is for ever."""
        if self._scope is None or self._scope.expired():
            return
        when = self._scope.when()
        now = asyncio.get_running_loop().time()
        if when is None or when > now:  # else it is about to be interrupted
            self._scope.reschedule(None if seconds is None else now + seconds)

    def attach(self, scope: asyncio.Timeout | None) -> None:
        """The run works inside `scope` from now on, or no longer."""
        self._scope = scope

    def notify(self) -> None:
        """Something came that the step in progress may be waiting for."""
        self._changed.set()

    async def change(self) -> None:
        """Waits for the next `notify`, or returns at once for one that nobody waited for yet."""
        await self._changed.wait()
        self._changed.clear()
