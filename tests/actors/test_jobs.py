"""Jobs under a thread: they end before their run does, outlive it, and come back after a crash."""

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.actors.test_failures import FailingJournal

from treadle import (
    Agent,
    Completion,
    CompletionContext,
    Hooks,
    Limits,
    RunContext,
    Runtime,
    Thread,
    tool,
)
from treadle.domain.entries import CancelJobEntry
from treadle.domain.events import (
    DurableEvent,
    JobDelegated,
    JobSettled,
    JobStarted,
    MessageAdded,
    RecordedEvent,
    RunStarted,
    StepCompleted,
    TerminalEvent,
    ToolOutputRecorded,
)
from treadle.domain.items import FunctionCallOutput, Message
from treadle.domain.thread_tree import ThreadTree
from treadle.domain.usage import Usage
from treadle.errors import ConfigurationError, JobFailed, JournalError, NodeClosed, NodeDeadlock
from treadle.jobs.agent_job import AgentJob
from treadle.jobs.context import job_context
from treadle.jobs.job import Job
from treadle.journal.base import ThreadInfo
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


@dataclass
class Deps:
    """What the jobs of a test did, in their order."""

    log: list[str] = field(default_factory=list[str])
    worker: Agent[Any, str] | None = None


@dataclass
class Nap(Job[str]):
    """Takes its time; says what it does."""

    name: str
    seconds: float = 1.0
    error: str = ""

    async def task(self) -> str:
        log = _log(self)
        log.append(f"{self.name} began")
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            log.append(f"{self.name} cleaned up")
            raise
        if self.error:
            raise ValueError(self.error)
        log.append(f"{self.name} done")
        return f"{self.name} rested"


@dataclass
class Night(Job[str]):
    """Has others take their time."""

    naps: int

    async def task(self) -> str:
        naps = [await self.submit(Nap(f"nap {n}", n + 1.0)) for n in range(self.naps)]
        return ", ".join([await nap for nap in naps])


@dataclass
class Index(Job[str], restartable=True):
    """May be started again after a crash, with what it has below it."""

    path: str
    seconds: float = 10.0
    below: bool = False

    async def task(self) -> str:
        context = job_context(self)
        log = _log(self)
        log.append(f"{self.path} attempt {context.attempt}")
        if self.below:
            await self.submit(Index(f"{self.path}/below", self.seconds))
        await asyncio.sleep(self.seconds)
        return f"{self.path} indexed"


@dataclass
class QuietIndex(Index, restartable=True, announces="quiet"):
    """Tells of its end without asking for an answer."""


@dataclass
class SilentNap(Nap, announces="never"):
    """Tells nothing of its end."""


@dataclass
class Helped(Job[str], restartable=True):
    """Has an agent work, after a while."""

    seconds: float

    async def task(self) -> str:
        context = job_context(self)
        await asyncio.sleep(self.seconds)
        assert isinstance(context.deps, Deps)
        assert context.deps.worker is not None
        return (await context.run_agent(context.deps.worker, "?")).text


@dataclass
class Leaving(Job[None], restartable=True):
    """Takes its time, also to leave."""

    async def task(self) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(5)


def _log(job: Job[Any]) -> list[str]:
    deps = job_context(job).deps
    assert isinstance(deps, Deps)
    return deps.log


def fresh(info: ThreadInfo) -> Deps:
    """What a test does not look at."""
    return Deps()


def starter(
    *jobs: Callable[[], Job[Any]],
    name: str = "start",
    background: bool = False,
    wait: bool = False,
) -> Any:
    """A tool that starts jobs."""

    @tool(name=name)
    async def start(ctx: RunContext[Any]) -> str:
        """Starts the jobs."""
        parent = ctx.jobs.root if background else None
        nodes = [await ctx.jobs.submit(job(), parent=parent) for job in jobs]
        return ", ".join([await node for node in nodes]) if wait else "started"

    return start


def agent(script: Sequence[Any], *jobs: Callable[[], Job[Any]], **options: Any) -> Agent[Any, str]:
    chosen = {name: options.pop(name) for name in ("background", "wait") if name in options}
    return Agent(ScriptedModel(list(script)), tools=[starter(*jobs, **chosen)], **options)


START = [Call("start", "{}", "c1")]


def jobs_of(events: Sequence[RecordedEvent]) -> list[str]:
    """What became of the jobs, and where runs began and ended, in their order."""
    names: dict[str, str] = {}
    told: list[str] = []
    for event in events:
        if isinstance(event, JobStarted):
            names[event.job_id] = event.name
            told.append(
                f"+{event.name}" if event.attempt == 1 else f"+{event.name}*{event.attempt}"
            )
        elif isinstance(event, JobSettled):
            told.append(f"{event.outcome} {names[event.job_id]}")
        elif isinstance(event, RunStarted):
            told.append("run")
        elif isinstance(event, TerminalEvent):
            told.append(type(event).__name__)
    return told


def texts(thread_history: Sequence[Any]) -> list[str]:
    return [item.text for item in thread_history if isinstance(item, Message)]


async def first(thread: Thread, kind: type, count: int = 1) -> Any:
    async for event in thread.subscribe():
        if isinstance(event, kind):
            count -= 1
            if not count:
                return event
    raise AssertionError


# Under a run


async def test_a_run_ends_when_its_jobs_have(open_runtime: Open) -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Nap("a", 5), lambda: Nap("b", 3))
    async with open_runtime(helper, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert (result.text, result.status) == ("Done.", "completed")
        assert jobs_of(await thread.events()) == [
            "run", "+a", "+b", "completed b", "completed a", "RunCompleted",
        ]  # fmt: skip
        assert await thread.jobs() == ()
        settled = [event for event in await thread.events() if isinstance(event, JobSettled)]
        assert [(event.output, round(event.seconds)) for event in settled] == [
            ("b rested", 3), ("a rested", 5),
        ]  # fmt: skip
    assert deps.log == ["a began", "b began", "b done", "a done"]


async def test_the_tree_of_jobs_is_told(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Night(2), wait=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        events = await thread.events()
        assert jobs_of(events) == [
            "run", "+Night", "+nap 0", "+nap 1",
            "completed nap 0", "completed nap 1", "completed Night", "RunCompleted",
        ]  # fmt: skip
        started = {e.name: e for e in events if isinstance(e, JobStarted)}
        assert started["nap 0"].parent == started["Night"].job_id
        assert started["Night"].parent == ""
        (output,) = [e for e in events if isinstance(e, ToolOutputRecorded)]
        assert output.item.text == "nap 0 rested, nap 1 rested"


async def test_a_job_that_fails_fails_the_run(open_runtime: Open) -> None:
    deps = Deps()
    helper = agent(
        [START, [Pause(60), Text("Never.")], "Still here."],
        lambda: Nap("a", 2, "broken"),
        lambda: Nap("b", 9),
    )
    async with open_runtime(helper, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        with pytest.raises(JobFailed, match="ValueError: broken") as raised:
            await (await thread.send("go")).result()
        assert isinstance(raised.value.__cause__, ValueError)
        assert jobs_of(await thread.events()) == [
            "run", "+a", "+b", "failed a", "cancelled b", "RunFailed",
        ]  # fmt: skip
        assert "b cleaned up" in deps.log
        # and the thread is whole
        assert (await (await thread.send("and now?")).result()).text == "Still here."


async def test_failures_may_be_collected(open_runtime: Open) -> None:
    helper = agent(
        [START, "Done."], lambda: Nap("a", 2, "broken"), lambda: Nap("b", 9),
        on_job_failure="collect",
    )  # fmt: skip
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        assert jobs_of(await thread.events()) == [
            "run", "+a", "+b", "failed a", "completed b", "RunCompleted",
        ]  # fmt: skip
        (failed,) = [e for e in await thread.events() if isinstance(e, JobSettled) and e.code]
        assert (failed.code, failed.message) == ("job_failed", "ValueError: broken")


async def test_a_failure_that_is_awaited_is_the_awaiters(open_runtime: Open) -> None:
    helper = agent([START, "I see."], lambda: Nap("a", 2, "broken"), wait=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert result.text == "I see."
        (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
        assert output.is_error
        assert "broken" in output.text


async def test_cancelling_a_run_cancels_its_jobs_and_waits(open_runtime: Open) -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Night(3))
    async with open_runtime(helper, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await first(thread, JobStarted, 4)
        await asyncio.sleep(0.5)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        told = jobs_of(await thread.events())
        assert sorted(told[-5:-2]) == ["cancelled nap 0", "cancelled nap 1", "cancelled nap 2"]
        assert told[-2:] == ["cancelled Night", "RunCancelled"]
        assert sorted(line for line in deps.log if "cleaned" in line) == [
            f"nap {n} cleaned up" for n in range(3)
        ]


async def test_time_runs_out_for_jobs_too(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Nap("a", 100), limits=Limits(max_seconds=10))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result(raise_on_incomplete=False)
        assert (result.status, result.stop_reason) == ("incomplete", "max_seconds")
        assert jobs_of(await thread.events())[-2:] == ["cancelled a", "RunIncomplete"]


async def test_a_message_that_steers_is_answered_before_the_jobs_end(open_runtime: Open) -> None:
    helper = agent([START, "One.", "Two."], lambda: Nap("a", 60))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await asyncio.sleep(10)
        assert texts(await thread.history()) == ["go", "One."]
        await thread.send("more", on_busy="steer")
        await asyncio.sleep(10)
        assert texts(await thread.history()) == ["go", "One.", "more", "Two."]
        assert (await thread.active_run()) is not None
        assert (await run.result()).text == "Two."
        assert jobs_of(await thread.events())[-2:] == ["completed a", "RunCompleted"]


async def test_jobs_go_on_while_a_run_waits_for_someone(open_runtime: Open) -> None:
    @tool(external=True)
    async def ask_person(question: str) -> str:
        """Asks."""
        raise NotImplementedError

    for error, expected in (("", "RunCompleted"), ("broken", "RunFailed")):
        model = ScriptedModel([[*START, Call("ask_person", '{"question": "?"}', "c2")], "Done."])
        nap = lambda error=error: Nap("a", 5, error)  # noqa: E731
        helper = Agent(model, tools=[starter(nap), ask_person])
        async with open_runtime(helper, deps=fresh, idle_seconds=1) as runtime:
            thread = await runtime.create_thread(helper)
            await thread.send("go")
            await asyncio.sleep(30)
            if not error:
                await thread.submit_tool_output("c2", "yes")
            ended = await first(thread, TerminalEvent)
            assert type(ended).__name__ == expected
            assert jobs_of(await thread.events())[:3] == [
                "run",
                "+a",
                f"{'failed' if error else 'completed'} a",
            ]


async def test_a_run_that_expires_takes_its_jobs_along(open_runtime: Open) -> None:
    @tool(external=True)
    async def ask_person(question: str) -> str:
        """Asks."""
        raise NotImplementedError

    model = ScriptedModel([[*START, Call("ask_person", '{"question": "?"}', "c2")]])
    helper = Agent(model, tools=[starter(lambda: Nap("a", 500)), ask_person], action_timeout=20)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        assert (await run.result(raise_on_incomplete=False)).status == "expired"
        assert jobs_of(await thread.events())[-2:] == ["cancelled a", "RunExpired"]


async def test_a_hook_may_start_jobs(open_runtime: Open) -> None:
    kept: list[CompletionContext[Any]] = []

    async def reflect(ctx: CompletionContext[Any], done: Completion) -> None:
        kept.append(ctx)
        await ctx.jobs.submit(Nap("reflection", 5))

    helper = Agent(ScriptedModel(["Done."]), hooks=Hooks(after_completion=reflect))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        assert jobs_of(await thread.events()) == [
            "run", "+reflection", "completed reflection", "RunCompleted",
        ]  # fmt: skip
        with pytest.raises(NodeClosed):
            _ = kept[0].jobs


async def test_a_plain_function_and_a_coroutine_function(open_runtime: Open) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(1)
        return 2 * number

    @tool
    def plain(ctx: RunContext[Any]) -> str:
        """Has no event loop."""
        return str(ctx.jobs)

    @tool
    async def coroutine(ctx: RunContext[Any]) -> int:
        """Submits a coroutine function."""
        with pytest.raises(ConfigurationError, match="in no tree"):
            job_context(Nap("a"))
        return await (await ctx.jobs.submit(double, 21))

    model = ScriptedModel([[Call("plain", "{}", "c1"), Call("coroutine", "{}", "c2")], "Done."])
    helper = Agent(model, tools=[plain, coroutine])
    async with open_runtime(helper) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        outputs = {i.call_id: i.text for i in result.items if isinstance(i, FunctionCallOutput)}
        assert "make the tool async" in outputs["c1"]
        assert outputs["c2"] == "42"


# In the background


async def test_a_background_job_outlives_its_run_and_wakes_the_agent(open_runtime: Open) -> None:
    helper = agent([START, "Later.", "It is there."], lambda: Nap("a", 60), background=True)
    async with open_runtime(helper, deps=fresh, idle_seconds=1) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert result.text == "Later."
        (job,) = await thread.jobs()
        assert (job.name, job.background, job.run_id) == ("a", True, (await thread.runs())[0].id)
        await asyncio.sleep(100)
        assert jobs_of(await thread.events()) == [
            "run", "+a", "RunCompleted", "completed a", "run", "RunCompleted",
        ]  # fmt: skip
        told = [
            e for e in await thread.events() if isinstance(e, MessageAdded) and e.origin == "job"
        ]
        assert [event.item.text for event in told] == [
            "[The background job a has completed.] a rested"
        ]
        assert texts(await thread.history())[-1] == "It is there."


async def test_what_a_background_job_tells_enters_a_run_in_progress(open_runtime: Open) -> None:
    script = [START, [Pause(60), Text("Later.")], "It is there."]
    helper = agent(script, lambda: Nap("a", 10), background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert result.text == "It is there."
        assert jobs_of(await thread.events()) == ["run", "+a", "completed a", "RunCompleted"]
        assert texts(await thread.history()) == [
            "go", "Later.", "[The background job a has completed.] a rested", "It is there.",
        ]  # fmt: skip


async def test_a_run_at_its_limit_leaves_what_is_told_to_the_next(open_runtime: Open) -> None:
    script = [START, [Pause(60), *START], "It is there."]
    helper = agent(script, lambda: Nap("a", 10), background=True, limits=Limits(max_steps=2))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (
            await (await thread.send("go")).result(raise_on_incomplete=False)
        ).stop_reason == "max_steps"
        await asyncio.sleep(5)
        assert jobs_of(await thread.events())[:6] == [
            "run", "+a", "completed a", "+a", "RunIncomplete", "run",
        ]  # fmt: skip
        assert texts(await thread.history())[-1] == "It is there."


async def test_a_quiet_one_waits_for_the_next_run_and_a_silent_one_says_nothing(
    open_runtime: Open,
) -> None:
    helper = agent(
        [START, "Later.", "I know."],
        lambda: QuietIndex("x", 10), lambda: SilentNap("b", 11), lambda: Nap("c", 10, "broken"),
        background=True,
    )  # fmt: skip
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        (wakes,) = [job for job in await thread.jobs() if job.name == "c"]
        await thread.cancel_job(wakes.id)
        await asyncio.sleep(100)
        assert jobs_of(await thread.events())[-4:] == [
            "RunCompleted", "cancelled c", "completed QuietIndex", "completed b",
        ]  # fmt: skip
        assert (await (await thread.send("and?")).result()).text == "I know."
        assert texts(await thread.history())[2:] == [
            "[The background job c was cancelled.]",
            "[The background job QuietIndex has completed.] x indexed",
            "and?",
            "I know.",
        ]


async def test_a_background_job_that_fails_tells_so(open_runtime: Open) -> None:
    helper = agent([START, "Later.", "Oh."], lambda: Nap("a", 10, "broken"), background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await asyncio.sleep(100)
        assert texts(await thread.history())[2:] == [
            "[The background job a has failed.] ValueError: broken", "Oh.",
        ]  # fmt: skip


async def test_a_job_may_place_another_under_the_thread(open_runtime: Open) -> None:
    @dataclass
    class Planner(Job[None]):
        async def task(self) -> None:
            await self.submit(SilentNap("later", 30), parent=self.root)
            await self.submit(SilentNap("below", 2))

    helper = agent([START, "Done."], Planner)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await run.result()
        await asyncio.sleep(60)
        assert jobs_of(await thread.events()) == [
            "run", "+Planner", "+later", "+below", "completed below", "completed Planner",
            "RunCompleted", "completed later",
        ]  # fmt: skip
        assert {e.run_id for e in await thread.events() if isinstance(e, JobStarted)} == {run.id}


async def test_deleting_a_thread_ends_its_jobs(open_runtime: Open) -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Nap("a", 60), background=True)
    async with open_runtime(helper, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await thread.delete()
        assert deps.log == ["a began", "a cleaned up"]


# After a crash


async def test_restartable_jobs_are_started_again(open_runtime: Open) -> None:
    deps = Deps()

    def one(*script: Any) -> Agent[Any, str]:
        tools = [starter(lambda: Index("run", 10, below=True), lambda: Nap("nap", 10))]
        jobs = (lambda: Index("back", 60), lambda: Nap("slow", 60))
        tools.append(starter(*jobs, name="start_background", background=True))
        return Agent(ScriptedModel(list(script)), tools=tools)

    calls = [*START, Call("start_background", "{}", "c2")]
    async with open_runtime(one(calls, "Done."), deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread("agent")
        await thread.send("go")
        await first(thread, JobStarted, 5)
        await asyncio.sleep(5)
    async with open_runtime(one("Whole.", "Indexed.", "Oh."), deps=lambda info: deps) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(300)
        told = jobs_of(await thread.events())
        runs = await thread.runs()
        assert [run.status for run in runs] == ["completed"] * len(runs)
    assert sorted(told[1:6]) == ["+Index", "+Index", "+Index", "+nap", "+slow"]
    assert told.count("+Index*2") == 2
    assert told.count("completed Index") == 3
    assert told.count("failed Index") == 1  # what the other had started below it
    assert told.count("failed nap") == 1
    assert told.count("failed slow") == 1
    assert [line for line in deps.log if "attempt" in line].count("run attempt 2") == 1
    assert [line for line in deps.log if "attempt" in line].count("back attempt 2") == 1
    assert [line for line in deps.log if "attempt" in line].count("run/below attempt 1") == 2


async def test_a_run_that_a_job_failed_fails_after_a_crash_too(open_runtime: Open) -> None:
    script = [START, [Pause(60), Text("Never.")]]
    helper = agent(script, lambda: Nap("a", 2, "broken"), lambda: Nap("b", 9))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await first(thread, JobSettled)  # and b cleans up for a second
    await asyncio.sleep(1000)
    helper = agent([])
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        with pytest.raises(JobFailed, match="ValueError: broken"):
            await (await thread.run(run.id)).result()
        told = jobs_of(await thread.events())
        assert told[3:] == ["failed a", "failed b", "RunFailed"]
        assert (await thread.state()).ended.seconds < 10  # nobody worked while it was left


async def test_a_job_that_cannot_be_made_again_settles_visibly(
    open_runtime: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = agent([START, "Later."], lambda: Index("x", 60), background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
    monkeypatch.setattr(Index, "restartable", False)
    monkeypatch.setattr(QuietIndex, "restartable", False)
    helper = agent(["I see."])
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(10)
        (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
        assert (settled.outcome, settled.code) == ("failed", "interrupted")
        assert "import its module" in settled.message
        assert texts(await thread.history())[-2:] == [
            f"[The background job Index has failed.] {settled.message}",
            "I see.",
        ]


async def test_what_a_job_told_is_answered_after_a_crash(open_runtime: Open) -> None:
    helper = agent(
        [START, "Later.", [Pause(60), Text("Never.")]], lambda: Nap("a"), background=True
    )
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await first(thread, JobSettled)
    helper = agent(["It is there."])
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(10)
        assert texts(await thread.history())[2:] == [
            "[The background job a has completed.] a rested",
            "It is there.",
        ]
        assert [run.status for run in await thread.runs()] == ["completed", "completed"]


async def test_a_wish_to_cancel_a_job_outlives_a_crash(open_runtime: Open) -> None:
    helper = agent([START, "Later."], Leaving, background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        (job,) = await thread.jobs()
        await runtime.journal.enqueue(thread.id, CancelJobEntry(job.id))  # as another process does
        runtime._threads._driver._actors[thread.id].ring()  # type: ignore[attr-defined]
        await asyncio.sleep(2)
        assert await thread.jobs()  # it is leaving
    async with open_runtime(agent(["Never."]), deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await first(thread, JobStarted, 2)  # the wish is taken when the thread is loaded
        settled = await first(thread, JobSettled)
        assert settled.outcome == "cancelled"
        await runtime._threads._driver._actors[thread.id].settle()  # type: ignore[attr-defined]
        assert await runtime.journal.waiting_threads() == []


async def test_a_journal_that_fails_ends_the_jobs() -> None:
    deps = Deps()
    journal = FailingJournal()
    helper = agent([START, "Later."], lambda: Index("x", 60), lambda: Nap("a", 60), background=True)
    async with Runtime(journal, agents=[helper], deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        journal.failing = thread.id
        with pytest.raises(JournalError):
            await thread.send("lost")
        journal.failing = None
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(5)
        assert deps.log == ["x attempt 1", "a began", "a cleaned up", "x attempt 2"]


async def test_a_restartable_job_must_be_data(open_runtime: Open) -> None:
    @dataclass
    class Local(Job[None], restartable=True):
        async def task(self) -> None: ...

    for job, problem in (
        (Local, "a class of a module"),
        (Plain, "must be a dataclass"),
        (lambda: Opaque(object()), "valid JSON data"),
    ):
        helper = agent([START, "Done."], job)
        async with open_runtime(helper, deps=fresh) as runtime:
            thread = await runtime.create_thread(helper)
            result = await (await thread.send("go")).result()
            (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
            assert problem in output.text
            assert jobs_of(await thread.events()) == ["run", "RunCompleted"]


class Plain(Job[None], restartable=True):
    """No dataclass."""

    async def task(self) -> None:
        """Does nothing."""


@dataclass
class Opaque(Job[None], restartable=True):
    """Has a field that is no data."""

    what: object

    async def task(self) -> None:
        """Does nothing."""


# Agents as jobs


def small(*script: Any) -> Agent[Any, str]:
    return Agent(ScriptedModel(list(script), name="small"), name="small", description="Works.")


async def test_agents_are_jobs(open_runtime: Open) -> None:
    one = Turn((Pause(5), Text("Forty-two.")), usage=Usage(5, 3, requests=1))
    worker = small(one, one)
    helper = agent(
        [START, "Done."], lambda: AgentJob(worker, "6 * 7?"), lambda: AgentJob(worker, "again?")
    )
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert (result.usage.output_tokens, result.usage.requests) == (6, 4)
        events = await thread.events()
        assert jobs_of(events) == [
            "run", "+small", "+small", "completed small", "completed small", "RunCompleted",
        ]  # fmt: skip
        delegated = [event for event in events if isinstance(event, JobDelegated)]
        listed = await runtime.threads(parent=thread.id)
        assert {info.id for info in listed} == {event.thread_id for event in delegated}
        tree = ThreadTree()
        for event in events:
            tree.apply(event)
        (run,) = tree.roots
        assert [(job.kind, job.status, job.children[0].kind) for job in run.children] == [
            ("job", "completed", "agent")
        ] * 2


async def test_the_agent_of_a_job_is_cancelled_with_it(open_runtime: Open) -> None:
    worker = small([Pause(60), Text("Never.")])
    helper = agent([START, "Done."], lambda: AgentJob(worker, "?"))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        below = await runtime.connect(delegated.thread_id)
        assert [run.status for run in await below.runs()] == ["cancelled"]


async def test_the_agent_of_an_interrupted_job_is_stopped(open_runtime: Open) -> None:
    slow = [Pause(60), Text("Never.")]
    helper = agent([START, "Done."], lambda: AgentJob(small(slow), "?"))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
    helper = agent(["Done."])
    async with open_runtime(helper, small(slow), deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await first(thread, TerminalEvent)
        assert jobs_of(await thread.events()) == ["run", "+small", "failed small", "RunCompleted"]
        await asyncio.sleep(5)
        below = await runtime.connect(delegated.thread_id)
        assert [run.status for run in await below.runs()] == ["cancelled"]


async def test_a_job_is_interrupted_once_its_agents_have_ended(open_runtime: Open) -> None:
    @tool(idempotent=True)
    async def dig() -> str:
        """Takes its time, also to leave."""
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(5)
        return "dug"

    def digger() -> Agent[Any, str]:
        model = ScriptedModel([[Call("dig", "{}", "d1")], "Never."], name="small")
        return Agent(model, name="small", tools=[dig])

    helper = agent([START, "Done."], lambda: AgentJob(digger(), "?"))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
    async with open_runtime(agent(["Done."]), digger(), deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        settled = await first(thread, JobSettled)
        assert settled.code == "interrupted"
        below = await runtime.connect(delegated.thread_id)
        assert [run.status for run in await below.runs()] == ["cancelled"]


async def test_a_job_whose_agent_was_deleted_is_interrupted(open_runtime: Open) -> None:
    slow = [Pause(60), Text("Never.")]
    helper = agent([START, "Done."], lambda: AgentJob(small(slow), "?"))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
    await runtime.journal.open()
    await runtime.journal.delete(delegated.thread_id)
    await runtime.journal.close()
    async with open_runtime(agent(["Done."]), deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await first(thread, TerminalEvent)
        assert jobs_of(await thread.events()) == ["run", "+small", "failed small", "RunCompleted"]


async def test_a_job_started_again_ends_its_agents_also_before_it_asks_them(
    open_runtime: Open,
) -> None:
    slow = [Pause(600), Text("Never.")]
    helper = agent([START, "Done."], lambda: Helped(1))
    async with open_runtime(helper, deps=lambda info: Deps(worker=small(slow))) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
    late = Deps(worker=small(slow))
    async with open_runtime(agent(["Done."]), small(slow), deps=lambda info: late) as runtime:
        thread = await runtime.connect(thread.id)
        run = await thread.run(run.id)
        await first(thread, JobStarted, 2)
        await run.cancel()
        settled = await first(thread, JobSettled)
        assert settled.outcome == "cancelled"
        below = await runtime.connect(delegated.thread_id)
        assert [run.status for run in await below.runs()] == ["cancelled"]


async def test_a_job_started_again_finds_the_work_of_its_agent(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Helped(1))
    worker = small([Pause(60), Text("Forty-two.")])
    async with open_runtime(helper, deps=lambda info: Deps(worker=worker)) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        delegated = await first(thread, JobDelegated)
        await asyncio.sleep(5)
    again = small("Forty-two.")
    helper = agent(["Done."])
    async with open_runtime(helper, again, deps=lambda info: Deps(worker=again)) as runtime:
        thread = await runtime.connect(thread.id)
        assert (await (await thread.run(run.id)).result()).status == "completed"
        assert jobs_of(await thread.events()) == [
            "run", "+Helped", "+Helped*2", "completed Helped", "RunCompleted",
        ]  # fmt: skip
        assert [info.id for info in await runtime.threads(parent=thread.id)] == [
            delegated.thread_id
        ]


async def test_an_agent_may_work_in_the_background(open_runtime: Open) -> None:
    worker = small(Turn((Pause(5), Text("Forty-two.")), usage=Usage(5, 3, requests=1)))
    helper = agent([START, "Later.", "I see."], lambda: AgentJob(worker, "?"), background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        assert result.usage.output_tokens == 0
        await asyncio.sleep(20)
        assert texts(await thread.history())[2:] == [
            "[The background job small has completed.] Forty-two.",
            "I see.",
        ]
        state = await thread.state()
        assert (state.ended.usage.output_tokens, state.ended.usage.requests) == (3, 4)
        tree = ThreadTree()
        for event in await thread.events():
            tree.apply(event)
        assert [root.kind for root in tree.roots] == ["run", "job", "run"]
        assert [node.status for node in tree.agents()] == ["completed"]


async def test_the_agent_of_a_background_job_goes_on_after_a_crash(open_runtime: Open) -> None:
    helper = agent([START, "Later.", "I see."], lambda: Research("?"), background=True)
    async with open_runtime(helper, RESEARCHER, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await first(thread, JobDelegated)
        await asyncio.sleep(5)
    helper = agent(["I see."])
    async with open_runtime(helper, RESEARCHER, deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(100)
        assert texts(await thread.history())[2:] == [
            "[The background job Research has completed.] Forty-two.",
            "I see.",
        ]
        assert len(await runtime.threads(parent=thread.id)) == 1
        assert (await thread.state()).ended.usage.output_tokens == 3


SLOW = Turn((Pause(60), Text("Forty-two.")), usage=Usage(5, 3, requests=1))
RESEARCHER = small(*[SLOW] * 8)


@dataclass
class Research(Job[str], restartable=True):
    """Has an agent work, which is found where it was after a crash."""

    question: str

    async def task(self) -> str:
        return (await job_context(self).run_agent(RESEARCHER, self.question)).text


# Other ways to a run


async def test_a_run_in_the_foreground_has_jobs() -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Nap("a", 5))
    events: list[Any] = []
    async with helper.stream("go", deps=deps) as run:
        async for event in run:
            events.append(event)
    durable = [event for event in events if isinstance(event, DurableEvent)]
    assert jobs_of(durable) == ["run", "+a", "completed a", "RunCompleted"]  # type: ignore[arg-type]
    assert deps.log == ["a began", "a done"]


async def test_leaving_a_run_in_the_foreground_ends_its_jobs() -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Nap("a", 50))
    async with helper.stream("go", deps=deps) as run:
        async for event in run:
            if isinstance(event, StepCompleted) and event.step == 2:
                break
    assert deps.log == ["a began", "a cleaned up"]


async def test_a_run_in_the_foreground_has_no_background() -> None:
    helper = agent([START, "I see."], lambda: Nap("a"), background=True)
    result = await helper.run("go", deps=Deps())
    (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
    assert "use a Runtime" in output.text


async def test_a_fork_takes_no_jobs_along(open_runtime: Open) -> None:
    helper = agent([START, "Later.", "Forked."], lambda: Night(1), background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await first(thread, JobStarted, 2)
        fork = await thread.fork()
        assert await fork.jobs() == ()
        assert len(await thread.jobs()) == 2
        assert jobs_of(await fork.events())[-2:] == ["cancelled nap 0", "cancelled Night"]
        assert (await (await fork.send("hi")).result()).text == "Forked."


async def test_a_name_that_cannot_be_written_is_told_all_the_same(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Nap("caf\udce9"), lambda: Nap("x" * 1000))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        started = [event for event in await thread.events() if isinstance(event, JobStarted)]
        assert [event.name for event in started] == ["caf?", "x" * 200]


async def test_a_job_cannot_end_the_thread(open_runtime: Open) -> None:
    @tool
    async def end(ctx: RunContext[Any]) -> str:
        """Tries."""
        ctx.jobs.exit()
        return "never"

    helper = Agent(ScriptedModel([[Call("end", "{}", "c1")], "Done."]), tools=[end])
    async with open_runtime(helper) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
        assert "cannot end it" in output.text


async def test_a_thousand_jobs_cost_as_much_each_as_ten(open_runtime: Open) -> None:
    @dataclass
    class Many(Job[int]):
        async def task(self) -> int:
            nodes = [await self.submit(Nap(str(n), 1)) for n in range(1000)]
            return len([await node for node in nodes])

    helper = agent([START, "Done."], Many)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        assert (await thread.state()).jobs == {}
        assert (await thread.state()).seq > 2002


# What reviews found


async def test_a_run_whose_last_job_fails_fails(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Nap("a", 0, "broken"))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        with pytest.raises(JobFailed, match="broken"):
            await (await thread.send("go")).result()
        assert jobs_of(await thread.events())[-2:] == ["failed a", "RunFailed"]
    helper = agent([START, "Done."], lambda: Nap("a", 5, "broken"))
    with pytest.raises(JobFailed, match="broken"):
        await helper.run("go", deps=Deps())


async def test_a_cancel_right_when_the_last_job_ends_cancels(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Nap("a", 5))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await first(thread, JobSettled)
        await run.cancel()
        told = [type(event).__name__ for event in await thread.events()]
        assert ("RunCancelling" in told) == (told[-1] == "RunCancelled")


class Unprintable(Exception):
    """Cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("background", [False, True])
async def test_errors_that_can_hardly_be_told(open_runtime: Open, background: bool) -> None:
    for error in (Unprintable(), ConfigurationError("\udc80"), ConfigurationError("x" * 10**6)):

        @dataclass
        class Bad(Job[None]):
            error: Exception

            async def task(self) -> None:
                raise self.error

        script = [START, "Done.", "Oh."]
        make = functools.partial(Bad, error)
        helper = agent(script, make, background=background, on_job_failure="collect")
        async with open_runtime(helper, deps=fresh) as runtime:
            thread = await runtime.create_thread(helper)
            await (await thread.send("go")).result()
            await asyncio.sleep(1)
            (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
            assert settled.outcome == "failed"
            assert len(settled.message) < 3000
            assert await thread.jobs() == ()


class Panic(BaseException):
    """As extensions in Rust raise it."""


def _exits() -> None:
    raise SystemExit(3)


async def _exits_later() -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@dataclass
class Exiting(Job[None]):
    """Raises what is not an `Exception`."""

    error: Callable[[], BaseException]

    async def task(self) -> None:
        await asyncio.sleep(0)
        raise self.error()


EXITS: dict[str, Callable[[], BaseException]] = {
    "SystemExit: 3": lambda: SystemExit(3),
    "Panic: no": lambda: Panic("no"),
    "GeneratorExit": GeneratorExit,
    "BaseExceptionGroup: both": lambda: BaseExceptionGroup("both", [SystemExit(1), Panic("no")]),
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("words", EXITS)
async def test_an_exit_in_a_job_fails_that_job_only(
    open_runtime: Open, words: str, background: bool
) -> None:
    script = [START, "Done.", "Oh."]
    make = functools.partial(Exiting, EXITS[words])
    helper = agent(script, make, background=background, on_job_failure="collect")
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        await asyncio.sleep(1)
        (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
        assert (settled.outcome, settled.code) == ("failed", "job_failed")
        assert words in settled.message
        assert await thread.jobs() == ()


async def test_an_exit_in_a_job_that_is_awaited_fails_the_call(open_runtime: Open) -> None:
    helper = agent([START, "Done."], lambda: Exiting(lambda: SystemExit(3)), wait=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        (output,) = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert "SystemExit: 3" in output.text


@pytest.mark.parametrize("function", [_exits, _exits_later])
@pytest.mark.parametrize("event", ["start", "settled"])
async def test_an_exit_in_a_callback_of_a_job_is_its_failure(
    open_runtime: Open, event: Any, function: Callable[[], object]
) -> None:
    helper = agent([START, "Done."], lambda: Nap("a").on(event, function))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        assert (await (await thread.send("go")).result()).text == "Done."
        (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
        assert settled.outcome == "completed"
        (problem,) = settled.problems
        assert "SystemExit: 3" in problem


async def test_a_large_result_of_a_job_is_encoded_in_a_thread(open_runtime: Open) -> None:
    encoding = set[int]()

    class Endless(Job[object]):
        async def task(self) -> object:
            return numbers()

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            encoding.add(threading.get_ident())
            yield number

    helper = agent([START, "Done."], Endless)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
        assert settled.output.startswith("[0,1,2,3")
        assert len(settled.output) < 10_100
    assert encoding
    assert threading.get_ident() not in encoding


async def test_a_job_that_goes_on_with_what_is_refused_fails(open_runtime: Open) -> None:
    @dataclass
    class Delegates(Job[None]):
        async def task(self) -> Job[None]:  # type: ignore[override]
            return Plain()

    helper = agent([START, "Done."], Delegates)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        with pytest.raises(JobFailed, match="must be a dataclass"):
            await (await thread.send("go")).result()


@pytest.mark.parametrize("what", ["delete", "shutdown"])
async def test_a_job_cannot_end_what_waits_for_it(open_runtime: Open, what: str) -> None:
    @dataclass
    class Ends(Job[None]):
        async def task(self) -> None:
            await asyncio.sleep(0.5)  # the run has ended
            await (thread.delete() if what == "delete" else runtime.shutdown())

    helper = agent([START, "Later.", "Oh.", "Still here."], Ends, background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await asyncio.sleep(1)
        (settled,) = [e for e in await thread.events() if isinstance(e, JobSettled)]
        assert settled.code == "configuration"
        assert (await (await thread.send("and now?")).result()).text == "Still here."


async def test_the_run_and_the_thread_are_not_cancelled_as_nodes(open_runtime: Open) -> None:
    @tool
    async def ends(ctx: RunContext[Any]) -> str:
        """Tries."""
        for node in (ctx.jobs, ctx.jobs.root):
            with pytest.raises(ConfigurationError, match="cancelled as a node"):
                node.cancel()
            with pytest.raises(NodeDeadlock, match="await its children"):
                await node.settling()
            with pytest.raises(NodeDeadlock, match="await its children"):
                await node
        return await (await ctx.jobs.submit(asyncio.sleep, 1, "fine"))

    helper = Agent(ScriptedModel([[Call("ends", "{}", "c1")], "Done."]), tools=[ends])
    async with open_runtime(helper) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
        assert output.text == "fine"


async def test_the_tree_of_a_thread_that_left_the_memory_takes_no_jobs(open_runtime: Open) -> None:
    kept: list[Any] = []

    @tool
    async def keep(ctx: RunContext[Any]) -> str:
        """Keeps the tree."""
        kept.append(ctx.jobs.root)
        return "kept"

    helper = Agent(ScriptedModel([[Call("keep", "{}", "c1")], "Done.", "Again."]), tools=[keep])
    async with open_runtime(helper, deps=fresh, idle_seconds=1) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        await asyncio.sleep(10)
        with pytest.raises(NodeClosed):
            await kept[0].submit(Nap("late"))
        assert (await (await thread.send("and now?")).result()).text == "Again."


async def test_the_time_a_run_waits_for_its_jobs_is_its_own(open_runtime: Open) -> None:
    script = [START, "One.", "Two."]
    helper = agent(
        script, lambda: Nap("a", 40), lambda: Nap("b", 70), limits=Limits(max_seconds=50)
    )
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        run = await thread.send("go")
        await asyncio.sleep(30)
        await thread.send("more", on_busy="steer")
        result = await run.result(raise_on_incomplete=False)
        assert result.stop_reason == "max_seconds"
        state = await thread.state()
        assert state.run is not None
        assert state.run.seconds == pytest.approx(50, abs=1)
    helper = agent([START, "Done."], lambda: Nap("a", 40))
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        assert (await thread.state()).ended.seconds == pytest.approx(40, abs=1)


def test_a_way_to_announce_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="wake, quiet or never"):

        class Loud(Job[None], announces="loud"):  # type: ignore[arg-type]
            pass


async def test_all_threads_are_left_at_the_same_time(open_runtime: Open) -> None:
    helper = agent([START, "Later."] * 5, lambda: Stubborn(10), background=True)
    loop = asyncio.get_running_loop()
    async with open_runtime(helper, deps=fresh) as runtime:
        for _ in range(5):
            thread = await runtime.create_thread(helper)
            await (await thread.send("go")).result()
        began = loop.time()
    assert loop.time() - began == pytest.approx(10, abs=1)


@dataclass
class Stubborn(Job[None]):
    """Takes its time to clean up."""

    seconds: float

    async def task(self) -> None:
        """Waits to be cancelled."""
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(self.seconds)


@dataclass
class QuietParent(Job[None], announces="quiet"):
    """Has a part that may be started again."""

    async def task(self) -> None:
        """Starts it."""
        await self.submit(Index("part", 60))


async def test_a_part_that_is_started_again_announces_nothing(open_runtime: Open) -> None:
    helper = agent([START, "Later."], QuietParent, background=True)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
    helper = agent([])
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(100)
        assert jobs_of(await thread.events())[-3:] == [
            "+Index*2", "failed QuietParent", "completed Index",
        ]  # fmt: skip


async def test_open_jobs_have_a_bound(open_runtime: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.actors.thread_jobs.MAX_OPEN", 3)
    helper = agent([START, "I see."], *[lambda: Nap("a")] * 4)
    async with open_runtime(helper, deps=fresh) as runtime:
        thread = await runtime.create_thread(helper)
        result = await (await thread.send("go")).result()
        (output,) = [item for item in result.items if isinstance(item, FunctionCallOutput)]
        assert "TooManyJobs" in output.text
        assert len([e for e in await thread.events() if isinstance(e, JobSettled)]) == 3


async def test_cancelling_a_job_twice_lets_it_clean_up(open_runtime: Open) -> None:
    deps = Deps()
    helper = agent([START, "Later."], lambda: Nap("a", 60), background=True)
    async with open_runtime(helper, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        (job,) = await thread.jobs()
        await thread.cancel_job(job.id)
        await asyncio.sleep(0.5)
        await thread.cancel_job(job.id)
        await thread.cancel_job("job_unknown")
        await first(thread, JobSettled)
        assert deps.log == ["a began", "a cleaned up"]
        await thread.cancel_job(job.id)


async def test_the_background_jobs_of_an_agent_end_when_it_is_abandoned(open_runtime: Open) -> None:
    deps = Deps()
    below = agent(
        [START, [Pause(100), Text("Never.")]], lambda: Nap("a", 60),
        background=True, name="below", description="Works.",
    )  # fmt: skip
    above = Agent(ScriptedModel([[Call("below", '{"message": "?"}')]]), tools=[below.as_tool()])
    async with open_runtime(above, deps=lambda info: deps) as runtime:
        thread = await runtime.create_thread(above)
        run = await thread.send("go")
        await asyncio.sleep(10)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        assert deps.log == ["a began", "a cleaned up"]


async def test_leaving_a_run_in_the_foreground_twice_still_ends_its_jobs() -> None:
    deps = Deps()
    helper = agent([START, "Done."], lambda: Nap("a", 50))
    running = asyncio.create_task(helper.run("go", deps=deps))
    await asyncio.sleep(10)
    running.cancel()
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert deps.log == ["a began"]
    assert "a" not in {task.get_name() for task in asyncio.all_tasks()}
