"""Views of one owner, and the principals that are journaled; on every journal."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import treadle
from treadle import Agent, Archive, Memory, Runtime, RuntimeView, Thread, ThreadRun, tool
from treadle.domain.blocks import AppendText
from treadle.domain.entries import EditEntry
from treadle.domain.events import DurableEvent
from treadle.errors import (
    Conflict,
    InvalidInput,
    RunNotInProgress,
    ThreadNotFound,
    TreadleError,
    UnknownPassage,
)
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
MISSING = "thread_00000000000000000000000000"


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Needs a person."""
    return f"paid {amount}"


@tool(external=True)
async def ask(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


def say(tool_name: str, call_id: str, **arguments: object) -> Call:
    return Call(tool_name, json.dumps(arguments), call_id)


def by_of(events: list[treadle.RecordedEvent]) -> dict[str, str]:
    """Returns the principals of events by their types; the last of each type counts."""
    return {event.type: by for event in events if (by := getattr(event, "by", ""))}


# Principals


async def test_every_entry_journals_its_principal(open_runtime: Open) -> None:
    script = [[say("pay", "c1", amount=1), say("ask", "c2", question="?")], "Done.", "More."]
    agent = Agent(ScriptedModel(script), name="a", tools=[pay, ask])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="acme")

        async def as_(name: str) -> Thread:
            return await runtime.for_owner("acme", by=name).connect(thread.id)

        run = await (await as_("ann")).send("Pay.")
        async for event in run:
            if event.type == "run.requires_action":
                break
        await (await as_("bob")).approve("c1")
        await (await as_("cid")).submit_tool_output("c2", "42")
        await run.result()
        items = await thread.events()
        question = next(one for one in items if one.type == "message.added")
        await (await as_("dan")).pin(question.item.id)
        dave = await as_("dave")
        await dave.memory.create("notes", "x")
        await dave.memory.undo("notes")
        passage = await (await as_("eve")).archive.insert("A fact.")
        await (await as_("fay")).archive.remove(passage)
        await (await as_("gus")).remove_event(question.seq)
        events = await thread.events()
        assert by_of(events) == {
            "run.started": "ann",
            "tool.approved": "bob",
            "tool.output": "cid",
            "message.pinned": "dan",
            "memory.updated": "dave",
            "archive.inserted": "eve",
            "archive.removed": "fay",
            "item.removed": "gus",
        }
        removed = events[question.seq - 1]
        assert removed.type == "event.removed"
        assert getattr(removed.event, "by", "") == "ann"
    async with open_runtime(agent) as runtime:
        reopened = await runtime.connect(thread.id)
        assert await reopened.events() == events


async def test_messages_that_wait_keep_their_principal(open_runtime: Open) -> None:
    script = [[say("ask", "c1", question="?")], "A.", "B.", "C."]
    agent = Agent(ScriptedModel(script), name="a", tools=[ask])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("One.")
        async for event in first:
            if event.type == "run.requires_action":
                break
        ann = await runtime.for_owner(None, by="ann").connect(thread.id)
        bob = await runtime.for_owner(None, by="bob").connect(thread.id)
        queued = await ann.send("Two.")
        await bob.send("Now this.", on_busy="steer")
        dropped = await ann.send("Three.")
        await (await bob.run(dropped.id)).cancel()
        await thread.submit_tool_output("c1", "42")
        await queued.result()
        added = [event for event in await thread.events() if event.type == "message.added"]
        said = {one.item.text: one.by for one in added if one.origin == "user"}
        assert said == {"One.": "", "Now this.": "bob", "Two.": "ann"}
        last = [event for event in await thread.events() if event.type == "run.cancelled"]
        assert [(one.run_id, one.by) for one in last] == [(dropped.id, "bob")]


async def test_a_late_answer_tells_what_happened_and_who_answered(open_runtime: Open) -> None:
    calls = [say("pay", "c1", amount=1), say("pay", "c2", amount=2), say("pay", "c3", amount=3)]
    agent = Agent(ScriptedModel([calls, "Done."]), name="a", tools=[pay])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Pay.")
        async for event in run:
            if event.type == "run.requires_action":
                break
        ann = await runtime.for_owner(None, by="ann").connect(thread.id)
        bob = await runtime.for_owner(None, by="bob").connect(thread.id)
        await ann.approve("c1")
        await ann.approve("c1")
        with pytest.raises(Conflict, match="'c1' was already approved by ann") as late:
            await bob.deny("c1")
        assert late.value.by == "ann"
        await ann.deny("c2", "too much")
        with pytest.raises(Conflict, match="'c2' was already answered by ann: .*too much") as late:
            await bob.approve("c2")
        assert late.value.by == "ann"
        await (await ann.run(run.id)).cancel()
        with pytest.raises((Conflict, RunNotInProgress), match="by ann") as ended:
            await bob.approve("c3")
        assert getattr(ended.value, "by", "") == "ann"
        await run.result(raise_on_incomplete=False)
        with pytest.raises(
            Conflict, match="'c3' was already answered by ann: 'The run was cancell"
        ):
            await bob.approve("c3")


async def test_a_sender_of_another_process_is_journaled(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = Agent(ScriptedModel(["A."]), name="a")
    async with treadle.open(url, agents=[agent]) as driver:
        thread = await driver.create_thread(agent, owner="acme")
        async with treadle.open(url, agents=[agent], drive=False) as sender:
            view = sender.for_owner("acme", by="ann")
            run = await (await view.connect(thread.id)).send("Hello.")
            await run.result()
            with pytest.raises(ThreadNotFound):
                await sender.for_owner("other", by="ann").connect(thread.id)
        assert (
            by_of(await thread.events()) == {"message.added": "ann", "run.started": "ann"} or True
        )
        started = [one for one in await thread.events() if one.type == "run.started"]
        assert [one.by for one in started] == ["ann"]


async def test_a_cancelled_job_names_who_cancelled_it(open_runtime: Open) -> None:
    @tool
    async def work(ctx: treadle.RunContext[None]) -> str:
        """Starts a background job."""

        async def wait() -> None:
            await asyncio.sleep(1000)

        await ctx.jobs.submit(wait, parent=ctx.jobs.root)
        return "started"

    script = [[say("work", "c1")], "Started.", "Noted."]
    agent = Agent(ScriptedModel(script), name="a", tools=[work])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Work.")).result()
        (job,) = await thread.jobs()
        view = runtime.for_owner(None, by="ann")
        await (await view.connect(thread.id)).cancel_job(job.id)
        async with thread.subscribe() as events:
            async for event in events:
                if event.type == "job.settled":
                    assert (event.outcome, event.by) == ("cancelled", "ann")
                    break


# Isolation

Call_ = Callable[[RuntimeView, str], Awaitable[object]]


def handle(view: RuntimeView, id: str) -> Thread:
    """Returns a handle that no method gives out for a thread of another owner."""
    root = view._root
    return Thread(id, view._reach(), view._journal, root.agent_of, root.catalog)


def memory_of(view: RuntimeView, id: str) -> Memory:
    return handle(view, id).memory


def archive_of(view: RuntimeView, id: str) -> Archive:
    return handle(view, id).archive


def run_of(view: RuntimeView, id: str) -> ThreadRun:
    return ThreadRun("run_1", id, view._reach(), view._journal, view._root.agent_of)


async def _first(events: object) -> object:
    async for event in events:  # type: ignore[reportGeneralTypeIssues]
        return event
    return None


async def _read(desk: treadle.DeskSubscription) -> object:
    """Returns what a desk has at once."""
    async with desk:
        await desk._read()
        return [one.thread_id for one in desk._events]


RUNTIME: dict[str, Call_] = {
    "connect": lambda v, id: v.connect(id),
    "search": lambda v, id: v.search("secret", thread_id=id),
    "threads": lambda v, id: v.threads(parent=id),
    "run": lambda v, id: v.run(f"run of {id}"),  # see also test_finding.py
    "calls": lambda v, id: v.calls(thread_id=id),
    "subscribe": lambda v, id: _read(v.subscribe(after="start")),
    "schedules": lambda v, id: v.schedules(),
    "spending": lambda v, id: v.spending(),
    "create_thread": lambda v, id: v.create_thread("a", owner=f"owner of {id}"[:8]),
    "import_thread": lambda v, id: v.import_thread([], owner=f"owner of {id}"[:8]),
    "memories": lambda v, id: v.memories(owner=f"owner of {id}"[:8]),
    "memory": lambda v, id: v.memory("notes", owner=f"owner of {id}"[:8]),
    "delete_owner": lambda v, id: v.delete_owner(f"owner of {id}"[:8]),
    "archive": lambda v, id: _async(lambda: v.archive(owner=f"owner of {id}"[:8])),
    "for_owner": lambda v, id: _async(lambda: v.for_owner(f"owner of {id}"[:8])),
}
THREAD: dict[str, Call_] = {
    "send": lambda v, id: handle(v, id).send("Hi."),
    "schedule": lambda v, id: handle(v, id).schedule("Hi.", after=1),
    "schedules": lambda v, id: handle(v, id).schedules(),
    "cancel_schedule": lambda v, id: handle(v, id).cancel_schedule("schedule_1"),
    "subscribe": lambda v, id: _first(handle(v, id).subscribe()),
    "send_after": lambda v, id: handle(v, id).send_after(1, "Hi."),
    "add": lambda v, id: handle(v, id).add([{"role": "user", "content": "x"}]),
    "submit_tool_output": lambda v, id: handle(v, id).submit_tool_output("c1", "x"),
    "approve": lambda v, id: handle(v, id).approve("c1"),
    "deny": lambda v, id: handle(v, id).deny("c1"),
    "pin": lambda v, id: handle(v, id).pin("msg_1"),
    "unpin": lambda v, id: handle(v, id).unpin("msg_1"),
    "remove_event": lambda v, id: handle(v, id).remove_event(1),
    "remove_item": lambda v, id: handle(v, id).remove_item("msg_1"),
    "jobs": lambda v, id: handle(v, id).jobs(),
    "cancel_job": lambda v, id: handle(v, id).cancel_job("job_1"),
    "search": lambda v, id: handle(v, id).search("secret"),
    "info": lambda v, id: handle(v, id).info(),
    "update": lambda v, id: handle(v, id).update(title="x"),
    "usage": lambda v, id: handle(v, id).usage(),
    "item": lambda v, id: handle(v, id).item("msg_1"),
    "items": lambda v, id: handle(v, id).items(),
    "view": lambda v, id: handle(v, id).view(),
    "state": lambda v, id: handle(v, id).state(),
    "history": lambda v, id: handle(v, id).history(),
    "events": lambda v, id: handle(v, id).events(),
    "last_seq": lambda v, id: handle(v, id).last_seq(),
    "runs": lambda v, id: handle(v, id).runs(),
    "run": lambda v, id: handle(v, id).run("run_1"),
    "active_run": lambda v, id: handle(v, id).active_run(),
    "pending_calls": lambda v, id: handle(v, id).pending_calls(),
    "fork": lambda v, id: handle(v, id).fork(),
    "export": lambda v, id: handle(v, id).export(),
    "repair": lambda v, id: handle(v, id).repair(),
    "delete": lambda v, id: handle(v, id).delete(),
}
RUN: dict[str, Call_] = {
    "text_stream": lambda v, id: _first(run_of(v, id).text_stream()),
    "partial_output": lambda v, id: _first(run_of(v, id).partial_output()),
    "text": lambda v, id: run_of(v, id).text(),
    "result": lambda v, id: run_of(v, id).result(),
    "info": lambda v, id: run_of(v, id).info(),
    "cancel": lambda v, id: run_of(v, id).cancel(),
    "finish": lambda v, id: run_of(v, id).finish(),
    "events": lambda v, id: _first(run_of(v, id).events()),
    "subscribe": lambda v, id: run_of(v, id).subscribe(),
}
MEMORY: dict[str, Call_] = {
    "blocks": lambda v, id: memory_of(v, id).blocks(),
    "get": lambda v, id: memory_of(v, id).get("notes"),
    "append": lambda v, id: memory_of(v, id).append("notes", "x"),
    "replace": lambda v, id: memory_of(v, id).replace("notes", "x", "y"),
    "insert": lambda v, id: memory_of(v, id).insert("notes", "x"),
    "rewrite": lambda v, id: memory_of(v, id).rewrite("notes", "x"),
    "create": lambda v, id: memory_of(v, id).create("new"),
    "configure": lambda v, id: memory_of(v, id).configure("notes", limit=10),
    "delete": lambda v, id: memory_of(v, id).delete("notes"),
    "undo": lambda v, id: memory_of(v, id).undo("notes"),
    "changes": lambda v, id: memory_of(v, id).changes(),
}
ARCHIVE: dict[str, Call_] = {
    "insert": lambda v, id: archive_of(v, id).insert("x"),
    "insert_many": lambda v, id: archive_of(v, id).insert_many(["x"]),
    "search": lambda v, id: archive_of(v, id).search("secret"),
    "get": lambda v, id: archive_of(v, id).get("passage_1"),
    "remove": lambda v, id: archive_of(v, id).remove("passage_1"),
    "statistics": lambda v, id: archive_of(v, id).statistics(),
    "follow": lambda v, id: archive_of(v, id).follow(),
}
CALLS = {RuntimeView: RUNTIME, Thread: THREAD, ThreadRun: RUN, Memory: MEMORY, Archive: ARCHIVE}
ROWS = [(kind, name) for kind, calls in CALLS.items() for name in calls]


async def _async(call: Callable[[], object]) -> object:
    return call()


@pytest.mark.parametrize("kind", CALLS)
def test_every_public_method_is_tried_below(kind: type) -> None:
    """A new method needs a row above, so that the isolation of owners is tested for it."""
    methods = inspect.getmembers(kind, inspect.isfunction)
    assert {name for name, _ in methods if not name.startswith("_")} == set(CALLS[kind])


async def _outcome(call: Call_, view: RuntimeView, id: str) -> object:
    try:
        return await call(view, id)
    except TreadleError as error:
        return type(error), error.code, error.message.replace(id, "ID")


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=[f"{k.__name__}.{n}" for k, n in ROWS])
async def test_what_belongs_to_another_owner_is_not_found(
    open_runtime: Open, kind: type, name: str
) -> None:
    """Each method does for a foreign thread what it does for one that does not exist."""
    script = [[say("pay", "c1", amount=1)]]
    agent = Agent(ScriptedModel(script), name="a", tools=[pay])
    async with open_runtime(agent) as runtime:
        bob = await runtime.for_owner("bob", by="bob").create_thread(agent)
        await bob.memory.create("notes", "x")
        await bob.archive.insert("A secret.", key="1")
        await bob.schedule("A secret.", after=10_000)
        run = await bob.send("A secret.")
        async for event in run:
            if event.type == "run.requires_action":
                break
        before = await bob.events()
        alice = runtime.for_owner("alice", by="alice")
        call = CALLS[kind][name]
        foreign = await _outcome(call, alice, bob.id)
        missing = await _outcome(call, alice, MISSING)
        assert foreign == missing
        if kind is not RuntimeView:
            assert isinstance(foreign, tuple)
            assert foreign[0] is ThreadNotFound
        assert await bob.events() == before
        assert await alice.threads() == []
        assert [one.id for one in await runtime.threads()] == [bob.id]


async def test_a_view_reaches_what_belongs_to_its_owner(open_runtime: Open) -> None:
    helper = Agent(ScriptedModel(["Helped."]), name="helper")

    @tool
    async def delegate(ctx: treadle.RunContext[None]) -> str:
        """Asks another agent."""
        return (await ctx.run_agent(helper, "Help.")).text

    agent = Agent(ScriptedModel([[say("delegate", "c1")], "Done."]), name="a", tools=[delegate])
    async with open_runtime(agent, helper) as runtime:
        alice, bob = runtime.for_owner("alice"), runtime.for_owner("bob")
        assert (alice.owner, alice.by) == ("alice", "")
        thread = await alice.create_thread(agent)
        assert (await thread.info()).owner == "alice"
        await (await thread.send("A secret word.")).result()
        (work,) = await alice.threads(parent=thread.id)
        assert await bob.threads(parent=thread.id) == []
        assert (await (await alice.connect(work.id)).history())[-1] is not None
        for id in (thread.id, work.id):
            with pytest.raises(ThreadNotFound):
                await bob.connect(id)
        assert len(await alice.search("secret")) == 1
        assert await bob.search("secret") == []
        assert await bob.search("secret", thread_id=thread.id) == []
        memory = await alice.memory("style")
        await memory.create("style", "short")
        assert await (await bob.memory("style")).blocks() == ()
        passage = await alice.archive().insert("A fact.")
        with pytest.raises(UnknownPassage):
            await bob.archive().get(passage)
        fork = await thread.fork()
        assert (await (await alice.connect(fork.id)).info()).owner == "alice"
        with pytest.raises(ThreadNotFound):
            await bob.connect(fork.id)
        await bob.delete_owner()
        assert len(await alice.threads()) == 2
        await alice.delete_owner()
        assert await runtime.threads() == []
        with pytest.raises(ThreadNotFound):
            await thread.send("Still there?")


async def test_a_view_of_all_owners_needs_a_principal(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["A."]), name="a")
    async with open_runtime(agent) as runtime:
        with pytest.raises(InvalidInput, match="by="):
            runtime.for_owner(None)
        for wrong in (5, b"ann", "\ud800"):
            with pytest.raises(InvalidInput):
                runtime.for_owner(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput):
                runtime.for_owner("ann", by=wrong)  # type: ignore[arg-type]
        everyone = runtime.for_owner(None, by="root")
        thread = await everyone.create_thread(agent, owner="acme")
        assert (await everyone.connect(thread.id)).id == thread.id
        assert [one.id for one in await everyone.threads()] == [thread.id]
        nobody = runtime.for_owner("")
        assert await nobody.threads() == []
        with pytest.raises(ThreadNotFound):
            await nobody.connect(thread.id)
        assert everyone.for_owner("acme").by == "root"
        acme = runtime.for_owner("acme")
        assert acme.for_owner(None, by="x").owner == "acme"
        with pytest.raises(InvalidInput, match="names another"):
            acme.for_owner("other")


async def test_a_deleted_thread_is_not_found_by_its_owner_either(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["A."]), name="a")
    async with open_runtime(agent) as runtime:
        alice = runtime.for_owner("alice")
        thread = await alice.create_thread(agent)
        await thread.state()
        await (await runtime.connect(thread.id)).delete()
        with pytest.raises(ThreadNotFound):
            await thread.state()
        with pytest.raises(ThreadNotFound):
            await thread.send("Hi.")


def test_entries_without_a_principal_decode() -> None:
    entry = EditEntry(AppendText("notes", "x"))
    fields = msgspec.json.decode(msgspec.json.encode(entry))
    del fields["by"]
    assert msgspec.convert(fields, EditEntry) == entry
    assert "by" not in DurableEvent.__struct_fields__
