"""Approving a call with other arguments than the model wrote; on every journal."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import treadle
from treadle import Agent, Hooks, Runtime, Thread, ThreadRun, tool
from treadle.domain.events import ToolApproved, ToolCallRequested, ToolStarted
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.domain.open_step import EditableCall, Step
from treadle.domain.state import ThreadState
from treadle.errors import Conflict, InvalidInput, UnknownToolCall
from treadle.runtime.edited_arguments import edited_arguments
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
PAID: list[dict[str, object]] = []


@tool(needs_approval=True, to_user=True)
async def pay(to: str, amount: Annotated[int, Field(gt=0)], note: str = "-") -> str:
    """Pays."""
    PAID.append({"to": to, "amount": amount, "note": note})
    return f"paid {amount} to {to} ({note})"


WRITTEN = {"to_user": "I pay.", "to": "anna", "amount": 500, "note": None}


def script(*calls: Mapping[str, object]) -> ScriptedModel:
    made = [Call("pay", json.dumps(one), f"c{n}") for n, one in enumerate(calls, 1)]
    return ScriptedModel([made, "Done."])


@asynccontextmanager
async def waiting(runtime: Runtime, agent: Agent[Any]) -> AsyncIterator[tuple[Thread, ThreadRun]]:
    PAID.clear()
    thread = await runtime.create_thread(agent, owner="me")
    run = await thread.send("Pay.")
    async for event in run:
        if event.type == "run.requires_action":
            break
    yield thread, run


async def test_a_call_runs_with_the_arguments_it_was_approved_with(open_runtime: Open) -> None:
    model = script(WRITTEN, {**WRITTEN, "to": "carl"})
    agent = Agent(model, name="a", tools=[pay])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, _):
        await thread.approve("c1", arguments={"to": "bob", "amount": 5})
        async for event in thread.subscribe():
            if event.type == "tool.output":
                break
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await thread.approve("c2", arguments=WRITTEN | {"to": "carl"})
        run = await thread.run((await thread.runs())[0].id)
        await run.result()
        assert sorted(PAID, key=str) == [
            {"to": "bob", "amount": 5, "note": "-"},
            {"to": "carl", "amount": 500, "note": "-"},
        ]
        # The model reads what was run, with what it said to the user.
        read = [item for item in model.requests[1].items if isinstance(item, FunctionCall)]
        assert [json.loads(call.arguments) for call in read] == [
            {"to_user": "I pay.", "to": "bob", "amount": 5},
            WRITTEN | {"to": "carl"},
        ]
        assert [json.loads(call.proposed or "{}") for call in read] == [WRITTEN, {}]
        events = await thread.events(limit=1000)
        approved = [event for event in events if isinstance(event, ToolApproved)]
        assert [bool(one.arguments) for one in approved] == [True, False]
        state = ThreadState()
        for event in events:
            state = apply(state, event)
        assert state == await thread.state()


async def test_arguments_that_do_not_fit_are_refused_before_anything_happens(
    open_runtime: Open,
) -> None:
    agent = Agent(script(WRITTEN), name="a", tools=[pay])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        before = await thread.events(limit=1000)
        cyclic: dict[str, object] = {}
        cyclic["to"] = cyclic
        bad: list[tuple[Any, str]] = [
            ({"to": "bob"}, "do not fit the tool pay: the value lacks 'amount'"),
            ({"to": "bob", "amount": 0}, "amount must be above 0"),
            ({"to": "bob", "amount": "5"}, "amount must be of the type integer, not '5'"),
            ({"to": "bob", "amount": 5, "more": 1}, "more is not allowed"),
            ({}, "the value lacks 'to'"),
            ("x", "arguments must be a dict of JSON values, not 'x'"),
            (["to"], "arguments must be a dict"),
            ({"to": object(), "amount": 1}, "cannot be represented as JSON"),
            ({"to": "\ud800", "amount": 1}, "cannot be represented as JSON"),
            ({"to": "x" * 1_000_001, "amount": 1}, "at most 1,000,000 are kept"),
            (cyclic, "cannot be represented as JSON"),
        ]
        for arguments, message in bad:
            with pytest.raises(InvalidInput, match=message):
                await thread.approve("c1", arguments=arguments)
        with pytest.raises(UnknownToolCall):
            await thread.approve("c9", arguments={"to": "bob"})
        assert await thread.events(limit=1000) == before
        await thread.approve("c1", arguments={"to": "bob", "amount": 5, "note": None})
        await run.result()
        assert PAID == [{"to": "bob", "amount": 5, "note": "-"}]


async def test_an_approval_that_did_not_see_what_runs_is_a_conflict(open_runtime: Open) -> None:
    edited = {"to": "bob", "amount": 5}
    agent = Agent(script(WRITTEN, WRITTEN), name="a", tools=[pay])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        await thread.approve("c1", arguments=edited)
        await thread.approve("c2", arguments=WRITTEN)  # the same as without arguments

        async def repeat() -> None:
            await thread.approve("c1", arguments={"amount": 5, "to": "bob"})
            await thread.approve("c2")
            await thread.approve("c2", arguments=WRITTEN)
            for call_id, other in (("c1", None), ("c1", WRITTEN), ("c2", edited)):
                with pytest.raises(Conflict, match="already approved with other arguments"):
                    await thread.approve(call_id, arguments=other)

        await repeat()
        await run.result()
        await repeat()


async def test_hooks_get_the_edited_arguments(open_runtime: Open) -> None:
    seen: list[object] = []

    def look(_: treadle.HookContext, call: treadle.ToolCall) -> None:
        seen.append(call.arguments)

    agent = Agent(script(WRITTEN), name="a", tools=[pay], hooks=Hooks(before_tool=look))
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        await thread.approve("c1", arguments={"to": "bob", "amount": 5})
        await run.result()
        assert seen == [{"to": "bob", "amount": 5}]
        started = [one for one in await thread.events() if isinstance(one, ToolStarted)]
        assert [one.arguments for one in started] == [""]


async def test_a_removed_call_leaves_no_edited_arguments(open_runtime: Open) -> None:
    agent = Agent(script(WRITTEN), name="a", tools=[pay])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        await thread.approve("c1", arguments={"to": "secret bob", "amount": 5})
        result = await run.result()
        call = next(item for item in result.items if isinstance(item, FunctionCall))
        await thread.remove_item(call.id)
        events = await thread.events(limit=1000)
        assert "secret bob" not in str(events)
        assert "anna" not in str(events)
        state = ThreadState()
        for event in events:
            state = apply(state, event)
        assert state == await thread.state()
        assert not [
            item
            for item in await thread.history()
            if isinstance(item, FunctionCall | FunctionCallOutput)
        ]


async def test_a_fork_has_what_was_run(open_runtime: Open) -> None:
    agent = Agent(script(WRITTEN), name="a", tools=[pay])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        await thread.approve("c1", arguments={"to": "bob", "amount": 5})
        await run.result()
        fork = await thread.fork()
        assert list(await fork.history()) == list(await thread.history())


@pytest.mark.real_clock
async def test_another_process_approves_with_other_arguments(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    model = script(WRITTEN)
    agent = Agent(model, name="a", tools=[pay])
    async with treadle.open(url, agents=[agent]) as runtime, waiting(runtime, agent) as (_, run):
        async with treadle.open(url, drive=False) as other:  # it has no agents
            outside = await other.connect(run.thread_id)
            with pytest.raises(InvalidInput, match="amount must be above 0"):
                await outside.approve("c1", arguments={"to": "bob", "amount": -5})
            await outside.approve("c1", arguments={"to": "bob", "amount": 5})
            with pytest.raises(Conflict, match="with other arguments"):
                await outside.approve("c1")
        await run.result()
        assert PAID == [{"to": "bob", "amount": 5, "note": "-"}]


async def test_only_calls_that_need_approval_carry_their_schema(open_runtime: Open) -> None:
    @tool(needs_approval=lambda arguments: arguments["name"] == "x")
    async def remove(name: str) -> str:
        """Removes."""
        return name

    calls = [Call("remove", json.dumps({"name": name}), f"c_{name}") for name in "xy"]
    agent = Agent(ScriptedModel([calls, "Done."]), name="a", tools=[remove])
    async with open_runtime(agent) as runtime, waiting(runtime, agent) as (thread, run):
        asked = [one for one in await thread.events() if isinstance(one, ToolCallRequested)]
        assert [one.parameters is None for one in asked] == [False, True]
        await thread.approve("c_x", arguments={"name": "z"})
        result = await run.result()
        outputs = [one.text for one in result.items if isinstance(one, FunctionCallOutput)]
        assert outputs == ["z", "y"]
        state = await thread.state()
        assert state.run is not None
        assert state.run.last_step is None or not state.run.last_step.editable


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "anyOf",
    "$ref",
    "$defs",
    "additionalProperties",
]
SCHEMAS = st.dictionaries(
    st.sampled_from(KEYWORDS), JSON | st.dictionaries(st.text(max_size=2), JSON)
)


@given(SCHEMAS, st.dictionaries(st.text(max_size=3), JSON), st.text(max_size=9))
def test_any_schema_and_any_call_give_json_or_a_refusal(
    schema: dict[str, object], arguments: dict[str, object], written: str
) -> None:
    """Schemas come from servers of tools, and what a call contains from models."""
    call = FunctionCall("c1", "x", written)
    step = Step(1, items=((0, call),), editable=(EditableCall("c1", schema, "to_user"),))
    try:
        edited = edited_arguments(ThreadState(step=step), "c1", arguments)
    except InvalidInput:
        return
    assert not edited or json.loads(edited) == arguments
