"""Sleep-time on a thread: what left its window is read by an agent that tends its memory."""

from collections.abc import Callable

from treadle.actors.thread_jobs import ThreadJobs
from treadle.domain.events import MemoryTended
from treadle.jobs.context import job_context
from treadle.jobs.job import Job
from treadle.memory.compaction.transcript import mark_of, marked, portion
from treadle.memory.sleep import SleepAgent, untended
from treadle.ports import ThreadWriter


class Tending(Job[None], announces="never"):
    """A sleep agent at work on a part of a history."""

    def __init__(self, sleeper: SleepAgent, text: str, on_tended: Callable[[str], None]) -> None:
        self.name = "sleep"
        self.sleeper = sleeper
        self.text = text
        self.on_tended = on_tended

    async def task(self) -> None:
        """Has the agent read and tend."""
        context = job_context(self)
        mark = mark_of(self.text)
        read = marked(mark, "conversation", self.text)
        task = f"{self.sleeper.task}\n\nIt stands between the marks {mark}.\n\n{read}"
        result = await context.run_agent(
            self.sleeper.agent, task, lends_memory=True, raise_on_incomplete=False
        )
        if result.status == "completed":
            self.on_tended(context.job_id)


class Sleeping:
    """Starts the sleep agent of a thread when there is something for it to read.

    One works at a time, once for each end of a run, and again as long as it gets on and something
    is left: so one that fails is not tried forever. `wake` asks for the thread to be driven.
    """

    def __init__(self, thread: ThreadWriter, jobs: ThreadJobs, wake: Callable[[], None]) -> None:
        self._thread = thread
        self._jobs = jobs
        self._wake = wake
        self._job: Tending | None = None
        self._tried = ""

    def look(self, sleeper: SleepAgent) -> None:
        """Starts the agent, unless it works, has nothing to do, or was started for this run."""
        if self._job is not None and not self._job.is_settled:
            return
        state = self._thread.state
        part = untended(state, sleeper)
        if part is None or state.run is None or state.run.id == self._tried:
            return
        self._tried = state.run.id
        text, count = portion(state.history[part.first : part.end], sleeper.max_chars)

        def tended(job_id: str) -> None:
            self._tried = ""
            if self._thread.state.edited == state.edited:  # else it is another history by now
                self._thread.record(MemoryTended(until=part.first + count, job_id=job_id))
            self._wake()

        self._job = Tending(sleeper, text, tended)
        self._jobs.begin(self._job)
