"""The tree of a conversation, with the threads of the agents that work for it."""

import re
from typing import Any

import pytest

from treadle import Agent, RunContext, Runtime, Thread, tool
from treadle.cli.conversation import PAGE, show_tree
from treadle.domain.events import JobDelegated
from treadle.errors import ConnectionFailed
from treadle.jobs.agent_job import AgentJob
from treadle.jobs.context import job_context
from treadle.jobs.job import Job
from treadle.journal.memory import MemoryJournal
from treadle.models.retry import RetryPolicy
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio


def worker(name: str, *script: Any, **options: Any) -> Agent[Any, str]:
    return Agent(ScriptedModel(list(script)), name=name, description="Works.", **options)


def starter(make: Any) -> Any:
    @tool
    async def start(ctx: RunContext[Any]) -> str:
        """Starts a job."""
        await ctx.jobs.submit(make())
        return "started"

    return start


async def drawn(runtime: Runtime, thread: Thread, width: int | None = None) -> list[str]:
    """The lines of the tree, in which everything took no time."""
    written: list[str] = []
    await show_tree(runtime, thread, written.append, width)
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)
    return [re.sub(r"  \d+\.\d s", "  0.0 s", line.rstrip("\n")) for line in written]


def without_ids(lines: list[str]) -> list[str]:
    return [
        "  ".join(
            part for part in line.split("  ") if not part.startswith(("run_", "job_", "thr", "c1"))
        )
        for line in lines
    ]


async def test_each_agent_is_shown_as_it_ended() -> None:
    """Its job says less: it has failed, and one of its agents has not."""
    good = worker("good", "Done.")
    bad = worker("bad", ConnectionFailed("No line."), retry=RetryPolicy(max_retries=0))

    class Both(Job[None]):
        async def task(self) -> None:
            for agent in (good, bad):
                await job_context(self).run_agent(agent, "go")

    script = [[Call("start", "{}", "c1")], "Done."]
    helper = worker("helper", *script, tools=[starter(Both)], on_job_failure="collect")
    async with Runtime(MemoryJournal(), agents=[helper]) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        lines = await drawn(runtime, thread)
        assert [re.sub(r"\d+\.\d s", "0.0 s", line) for line in without_ids(lines)] == [
            "run helper  completed  0.0 s",
            "├─ call start  completed  0.0 s  started",
            "└─ job Both  failed  0.0 s  No line.",
            "   ├─ agent good  completed  0.0 s",
            "   │  └─ run good  completed  0.0 s",
            "   └─ agent bad  failed  0.0 s",
            "      └─ run bad  failed  0.0 s  No line.",
        ]
        narrow = await drawn(runtime, thread, 30)
        assert narrow == [f"{line[:28]}…" if len(line) >= 30 else line for line in lines]
        assert max(map(len, narrow)) == 29


async def test_an_agent_whose_thread_is_gone() -> None:
    small = worker("small", "Done.")
    script = [[Call("start", "{}", "c1")], "Done."]
    helper = worker("helper", *script, tools=[starter(lambda: AgentJob(small, "go"))])
    async with Runtime(MemoryJournal(), agents=[helper]) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        (delegated,) = [e for e in await thread.events() if isinstance(e, JobDelegated)]
        await (await runtime.connect(delegated.thread_id)).delete()
        assert without_ids(await drawn(runtime, thread))[2:] == [
            "└─ job small  completed  0.0 s  Done.",
            "   └─ agent small  completed  0.0 s",
        ]


async def test_agents_of_agents() -> None:
    inner = worker("inner", "Deep.")
    middle = worker(
        "middle", [Call("inner", '{"message": "?"}', "c1")], "Done.", tools=[inner.as_tool()]
    )
    outer = worker(
        "outer", [Call("middle", '{"message": "?"}', "c1")], "Done.", tools=[middle.as_tool()]
    )
    async with Runtime(MemoryJournal(), agents=[outer]) as runtime:
        thread = await runtime.create_thread(outer)
        await (await thread.send("go")).result()
        lines = without_ids(await drawn(runtime, thread))
        assert [line.split("  completed")[0].lstrip(" └─") for line in lines] == [
            "run outer",
            "call middle",
            "agent middle",
            "run middle",
            "call inner",
            "agent inner",
            "run inner",
        ]


async def test_a_long_conversation() -> None:
    class Many(Job[None]):
        async def task(self) -> None:
            for _ in range(PAGE):
                await self.submit(nothing)

    async def nothing() -> None: ...

    script = [[Call("start", "{}", "c1")], "Done."]
    helper = worker("helper", *script, tools=[starter(Many)])
    async with Runtime(MemoryJournal(), agents=[helper]) as runtime:
        thread = await runtime.create_thread(helper)
        await (await thread.send("go")).result()
        assert len(await drawn(runtime, thread)) == PAGE + 3
