"""Messages that are sent later: once, again and again, after a crash, from other processes."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from treadle import (
    Agent,
    MessageAdded,
    RunContext,
    RunQueued,
    RunStarted,
    Runtime,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    Thread,
    schedule_tools,
    tool,
)
from treadle.clock import now
from treadle.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    TooManySchedules,
    UnknownAgent,
    UnknownOption,
)
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, Pause, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
WHILE = 300.0
"""Short, because a SQLite journal is polled ten times a second."""


def agent_of(*answers: Any, **fields: Any) -> Agent[Any, Any]:
    return Agent(ScriptedModel(list(answers)), name="assistant", **fields)


async def events_of(thread: Thread, *kinds: type[Any]) -> list[Any]:
    return [event for event in await thread.events() if isinstance(event, kinds)]


async def asked(thread: Thread) -> list[str]:
    """The messages that schedules have sent."""
    added = await events_of(thread, MessageAdded)
    return [event.item.text for event in added if event.origin == "schedule"]


async def test_a_message_is_sent_when_it_is_due(open_runtime: Open) -> None:
    agent = agent_of("Good morning.")
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        schedule = await thread.schedule("Say good morning.", after=WHILE)
        assert (schedule.text, schedule.thread_id) == ("Say good morning.", thread.id)
        assert schedule.due_at == pytest.approx(now() + WHILE, abs=1)
        assert await thread.schedules() == (schedule,)
        assert await runtime.schedules() == [schedule]
        assert await runtime.schedules(owner="bob") == []
        await asyncio.sleep(WHILE - 100)  # the time of day also has what really passes meanwhile
        assert await thread.runs() == []
        await asyncio.sleep(110)
        (run,) = await thread.runs()
        assert (await (await thread.run(run.id)).result()).text == "Good morning."
        (started,) = await events_of(thread, RunStarted)
        (fired,) = await events_of(thread, ScheduleFired)
        assert started.schedule_id == fired.schedule_id == schedule.id
        assert (fired.run_id, fired.due_at, fired.next_at) == (run.id, schedule.due_at, None)
        assert await asked(thread) == ["Say good morning."]
        assert (await thread.info()).title == "Say good morning."
        assert await thread.schedules() == ()
        assert await runtime.schedules() == []


async def test_a_message_is_sent_again_and_again(open_runtime: Open) -> None:
    agent = agent_of(*["Done."] * 5)
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent)
        schedule = await thread.schedule("Report.", cron="* * * * *", tz="Europe/Berlin")
        await asyncio.sleep(schedule.due_at - now() + 121)
        assert len(await asked(thread)) == 3
        fired = await events_of(thread, ScheduleFired)
        times = [event.due_at for event in fired]
        assert times == [schedule.due_at + n * 60 for n in range(3)]
        ids = [event.item.id for event in await events_of(thread, MessageAdded)]
        assert len(set(ids)) == len(ids)
        await thread.cancel_schedule(schedule.id)
        await thread.cancel_schedule(schedule.id)
        assert len(await events_of(thread, ScheduleCancelled)) == 1
        await asyncio.sleep(100)
        assert len(await asked(thread)) == 3


async def test_however_many_times_were_missed_one_run_is_started(open_runtime: Open) -> None:
    agent = agent_of(*["Done."] * 5)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.schedule("Every minute.", cron="* * * * *")
        await thread.schedule("Once.", after=60)
    # No process runs, until ten seconds after a minute, so that no other one begins meanwhile.
    await asyncio.sleep(2 * WHILE + 70 - (now() + 2 * WHILE) % 60)
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(1)
        assert sorted(await asked(thread)) == ["Every minute.", "Once."]
        (left,) = await thread.schedules()
        assert now() < left.due_at <= now() + 60


async def test_a_schedule_does_not_fill_the_queue_of_a_busy_thread(open_runtime: Open) -> None:
    agent = agent_of([Pause(2 * WHILE), "Slow."], *["Done."] * 3)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("Take your time.")
        await thread.schedule("Every minute.", cron="* * * * *")
        await asyncio.sleep(301)
        assert len((await thread.state()).queue) == 1
        (queued,) = await events_of(thread, RunQueued)
        fired = await events_of(thread, ScheduleFired)
        assert len(fired) in {5, 6}
        assert [event.run_id for event in fired if event.run_id] == [queued.run_id]
        assert queued.schedule_id == fired[0].schedule_id


async def test_a_key_makes_one_schedule(open_runtime: Open) -> None:
    agent = agent_of("One.", "Two.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.schedule("Report.", after=60, key="report")
        assert await thread.schedule("Report.", after=90, key="report") == first
        for other in ({"message": "Other."}, {"cron": "* * * * *", "after": None}):
            fields: Any = {"message": "Report.", "after": 60, "key": "report", **other}
            with pytest.raises(Conflict):
                await thread.schedule(**fields)
        await thread.cancel_schedule(first.id)
        again = await thread.schedule("Report.", after=60, key="report")
        assert again.id == first.id
        await asyncio.sleep(100)
        await thread.schedule("Report.", after=60, key="report")  # it was sent
        assert await thread.schedules() == ()
        await asyncio.sleep(100)
        assert await asked(thread) == ["Report."]


async def test_what_is_refused(open_runtime: Open) -> None:
    agent = agent_of()
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput):
            await thread.schedule("", after=1)
        with pytest.raises(InvalidInput):
            await thread.schedule("x")
        with pytest.raises(UnknownAgent):
            await thread.schedule("x", after=1, agent="nobody")
        with pytest.raises(InvalidInput):
            await runtime.schedules(after="x")
        assert await thread.schedules() == ()
        for n in range(100):
            await thread.schedule(f"{n}", after=WHILE + n)
        with pytest.raises(TooManySchedules):
            await thread.schedule("one more", after=1)
        pages: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await runtime.schedules(limit=30, after=after)
            pages += [schedule.text for schedule in page]
            after = page.next or None
        assert pages == [f"{n}" for n in range(100)]


async def test_a_time_in_the_past_is_due_now(open_runtime: Open) -> None:
    agent = agent_of("Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.schedule("x", at=datetime.now(UTC) - timedelta(days=1))
        await asyncio.sleep(1)
        assert await asked(thread) == ["x"]


async def test_a_fork_does_not_repeat_what_is_scheduled(open_runtime: Open) -> None:
    agent = agent_of("Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.schedule("x", after=60)
        copy = await thread.fork()
        assert await copy.schedules() == ()
        await asyncio.sleep(100)
        assert (await asked(copy), await asked(thread)) == ([], ["x"])


async def test_another_process_schedules_and_cancels() -> None:
    journal, agent = MemoryJournal(), agent_of("Done.")
    async with Runtime(journal, agents=[agent], idle_seconds=1000) as runtime:
        thread = await runtime.create_thread(agent)
        async with Runtime(journal, drive=False) as outside:
            other = await outside.connect(thread.id)
            kept = await other.schedule("kept", after=60, key="k")
            dropped = await other.schedule("dropped", after=60)
            with pytest.raises(Conflict):
                await other.schedule("another", after=60, key="k")
            await asyncio.sleep(1)
            assert {one.id for one in await other.schedules()} == {kept.id, dropped.id}
            await other.cancel_schedule(dropped.id)
            await asyncio.sleep(100)
            assert await asked(other) == ["kept"]
            await other.schedule("kept", after=60, key="k")
            await asyncio.sleep(100)
            assert await asked(other) == ["kept"]


async def test_a_schedule_is_handed_over_to_the_runtime_that_is_left() -> None:
    journal, agent = MemoryJournal(), agent_of("Done.")
    async with Runtime(journal, agents=[agent]) as two:
        async with Runtime(journal, agents=[agent], idle_seconds=1) as one:
            thread = await one.create_thread(agent)
            await thread.schedule("x", after=60)
            await asyncio.sleep(10)
        await asyncio.sleep(100)
        assert await asked(await two.connect(thread.id)) == ["x"]


async def test_a_schedule_waits_for_an_agent_that_is_not_known() -> None:
    journal, agent = MemoryJournal(), agent_of("Done.")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.schedule("x", after=60)
    async with Runtime(journal) as runtime:
        await asyncio.sleep(100)
        thread = await runtime.connect(thread.id)
        assert len((await thread.state()).queue) == 1
    async with Runtime(journal, agents=[agent]) as runtime:
        await asyncio.sleep(1)
        thread = await runtime.connect(thread.id)
        assert await asked(thread) == ["x"]
        (started,) = await events_of(thread, RunStarted)
        assert started.schedule_id


async def test_the_text_of_a_schedule_can_be_removed(open_runtime: Open) -> None:
    agent = agent_of("Done.", "Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.schedule("secret", after=60)
        rule = await thread.schedule("secret rule", cron="0 0 1 1 *")
        created = await events_of(thread, ScheduleCreated)
        with pytest.raises(Conflict):
            await thread.remove_event(created[0].seq)
        await asyncio.sleep(100)
        (added,) = [e for e in await events_of(thread, MessageAdded) if e.origin == "schedule"]
        await thread.remove_event(added.seq)
        await thread.cancel_schedule(rule.id)
        await thread.remove_event(created[1].seq)
        await thread.remove_event(created[1].seq)
        assert b"secret" not in b"".join(await thread.export())
    async with open_runtime(agent) as runtime:
        assert (await (await runtime.connect(thread.id)).state()).schedules == {}


async def test_many_threads_are_due_at_once(open_runtime: Open) -> None:
    agent = agent_of(*["Done."] * 150)
    async with open_runtime(agent, idle_seconds=5) as runtime:
        threads = [await runtime.create_thread(agent) for _ in range(150)]
        for thread in threads:
            await thread.schedule("x", at=datetime.fromtimestamp(now() // 60 * 60 + 600, UTC))
        await asyncio.sleep(700)
        assert [await asked(thread) for thread in threads] == [["x"]] * 150


# The tools


def call(name: str, id: str, /, **arguments: Any) -> Call:
    return Call(name, json.dumps(arguments), id)


def outputs(history: Any) -> list[str]:
    return [item.text for item in history if type(item).__name__ == "FunctionCallOutput"]


async def test_an_agent_wakes_itself_later(open_runtime: Open) -> None:
    agent = agent_of(
        [call("schedule_wakeup", "c1", message="Look again.", after_seconds=600)],
        [call("list_wakeups", "c2")],
        "I will look again.",
        "I have looked again.",
        tools=schedule_tools(tz="Europe/Berlin"),
    )
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent)
        result = await (await thread.send("Watch it.")).result()
        scheduled, listed = outputs(result.history)
        (schedule,) = await thread.schedules()
        assert schedule.author == "model"
        assert schedule.id in scheduled
        assert schedule.id in listed
        assert "Look again." in listed
        await asyncio.sleep(700)
        assert await asked(thread) == ["Look again."]
        assert (await thread.history())[-1].text == "I have looked again."  # type: ignore[union-attr]


async def test_a_model_cancels_what_it_scheduled_and_no_more(open_runtime: Open) -> None:
    agent = agent_of(
        [call("schedule_wakeup", "c1", message="a", cron="0 9 * * *")],
        [call("schedule_wakeup", "c2", message="b", at="2000-13-01")],
        [call("schedule_wakeup", "c3", message="b")],
        [call("schedule_wakeup", "c4", message="b", at="2999-01-01T09:00")],
        [call("cancel_wakeup", "c5", id="nothing")],
        "Done.",
        tools=schedule_tools(limit=1),
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        by_user = await thread.schedule("mine", after=WHILE)
        result = await (await thread.send("go")).result()
        first, second, third, fourth, fifth = outputs(result.history)
        assert first.startswith("Scheduled: ")
        assert "is not a time" in second
        assert "exactly one of" in third
        assert "cancel one first" in fourth
        assert "scheduled nothing" in fifth
        (mine, model) = await thread.schedules()
        assert mine.id == by_user.id
        agent = agent_of(
            [call("cancel_wakeup", "d1", id=by_user.id), call("cancel_wakeup", "d2", id=model.id)],
            "Done.",
            tools=schedule_tools(),
        )
        runtime.register(agent)
        result = await (await thread.send("go")).result()
        not_mine, cancelled = outputs(result.history)[-2:]
        assert "scheduled nothing" in not_mine
        assert "is cancelled" in cancelled
        assert [one.id for one in await thread.schedules()] == [by_user.id]


async def test_a_run_that_is_not_kept_cannot_be_continued_later() -> None:
    @tool
    async def later(ctx: RunContext[None]) -> str:
        """Tries."""
        try:
            await ctx.schedules.add("x", after=1)
        except ConfigurationError as error:
            return error.message
        raise AssertionError

    agent = agent_of([call("later", "c1")], "Done.", tools=[later])
    result = await agent.run("go")
    assert "treadle.open" in outputs(result.history)[0]


async def test_an_agent_that_works_for_another_cannot_wake_itself(open_runtime: Open) -> None:
    helper = Agent(
        ScriptedModel([[call("schedule_wakeup", "h1", message="x", after_seconds=1)], "Failed."]),
        name="helper",
        tools=schedule_tools(),
    )

    @tool
    async def ask(ctx: RunContext[None]) -> str:
        """Asks the helper."""
        result = await ctx.run_agent(helper, "go")
        return "".join(outputs(result.history))

    agent = agent_of([call("ask", "c1")], "Done.", tools=[ask])
    async with open_runtime(agent, helper) as runtime:
        thread = await runtime.create_thread(agent)
        result = await (await thread.send("go")).result()
        assert "not continued" in outputs(result.history)[0]


async def test_options_are_those_of_each_run(open_runtime: Open) -> None:
    model = ScriptedModel(["Done."] * 9)
    agent = Agent(model, name="assistant", instructions="Be kind.")
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.create_thread(agent)
        made = await thread.schedule(
            "x", cron="* * * * *", key="k", extra_instructions="Be short.", metadata={"n": 1}
        )
        assert made.options is not None
        with pytest.raises(Conflict):
            await thread.schedule("x", cron="* * * * *", key="k", extra_instructions="Be long.")
    async with open_runtime(agent, idle_seconds=5) as runtime:
        thread = await runtime.connect(thread.id)
        await asyncio.sleep(125)
        await thread.cancel_schedule(made.id)
        runs = await thread.runs()
        assert len(runs) >= 2
        assert all(run.metadata == {"n": 1} for run in runs)
        assert all("Be short." in request.instructions for request in model.requests)
        last = await (await thread.send("y")).result()
        assert last.is_complete
        assert "Be short." not in model.requests[-1].instructions


async def test_options_that_no_run_could_have(open_runtime: Open) -> None:
    agent = agent_of("Done.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(UnknownOption):
            await thread.schedule("x", after=60, tools=["missing"])
        with pytest.raises(InvalidInput, match="metadata"):
            await thread.schedule("x", after=60, metadata=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Did you mean 'model'"):
            await thread.schedule("x", after=60, modell="m")  # type: ignore[call-arg]
        assert await thread.schedules() == ()
