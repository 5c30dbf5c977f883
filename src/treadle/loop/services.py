"""The services that a run may use."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from treadle.jobs.run_jobs import RunJobs
from treadle.journal.base import ThreadInfo
from treadle.memory.compaction.compactor import Compactor
from treadle.ports import Delegation, LoopMemory, RunFiles, RunSchedules


class Services(Struct, frozen=True):
    """What the process that drives a thread lends to its runs.

    - `delegation`: runs other agents for it. `jobs`: the jobs of the run in progress.
    - `memory`: the memory blocks and the archive.
    - `compactor`: keeps requests within the window of the model.
    - `files`: the contents of the files in its items.
    - `is_kept`: whether the thread outlives the process. `info`: returns what is known of it.
    - `schedules`: the schedules of a thread that is kept.
    - `require_budget`: raises `SpendingLimitReached` if the owner may not spend more; None if
      nothing limits it.
    - `is_draining`: whether the run is left to another process before its next request.
    """

    delegation: Delegation
    jobs: RunJobs
    memory: LoopMemory
    compactor: Compactor
    is_kept: bool
    info: Callable[[], ThreadInfo]
    files: RunFiles
    schedules: RunSchedules | None = None
    require_budget: Callable[[], Awaitable[None]] | None = None
    is_draining: Callable[[], bool] | None = None
