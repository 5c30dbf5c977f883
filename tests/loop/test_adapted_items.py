"""What a run reports about requests that differ from its history, and about refused items."""

from collections.abc import AsyncGenerator, Sequence

import pytest
from msgspec.structs import replace

from treadle import (
    Agent,
    Completion,
    CompletionContext,
    FallbackModel,
    Hooks,
    ModelSettings,
    NamedTool,
    WebSearch,
    open,
    tool,
)
from treadle.domain.events import Event, RequestAdapted, ToolChoiceIgnored
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    Item,
    ProviderItem,
    user_message,
)
from treadle.errors import BadRequest, ItemRefused, ServerFailed
from treadle.models.base import ItemChange, ItemsAdapted, ModelEvent, ModelRequest
from treadle.models.retry import RetryPolicy
from treadle.streaming.demux import ItemFinished
from treadle.testing import Call, Hosted, ScriptedModel, Text

pytestmark = pytest.mark.anyio


@tool
def look(word: str = "") -> str:
    """Looks."""
    return "known"


class Adapting(ScriptedModel):
    """Reports a change of every call in its requests, as a wire does."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        calls = [item for item in request.items if isinstance(item, FunctionCall)]
        if calls:
            changes = [ItemChange(call, "tool_name", f"{call.name} is odd.") for call in calls]
            yield ItemsAdapted(tuple(changes))
        async for event in super().stream(request):
            yield event


async def events_of(agent: Agent[None, str], *texts: str) -> list[Sequence[Event]]:
    """The events of a run for each of `texts`, on one thread."""
    async with open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        runs: list[Sequence[Event]] = []
        for text in texts:
            run = await thread.send(text)
            runs.append([event async for event in run])
        return runs


def adapted(events: Sequence[Event]) -> list[list[str]]:
    return [[one.item_id for one in e.items] for e in events if isinstance(e, RequestAdapted)]


async def test_an_adapted_item_is_reported_once_in_each_run() -> None:
    script = [[Call("a b", "{}", "c1")], [Call("look", "{}", "c2")], "Well.", "So."]
    first, second = await events_of(Agent(Adapting(script), tools=[look]), "one", "two")
    before, after = adapted(first)
    assert len(before) == len(after) == 1
    assert before != after
    assert adapted(second) == [[*before, *after]]
    event, _ = [e for e in first if isinstance(e, RequestAdapted)]
    assert (event.items[0].reason, event.items[0].text) == ("tool_name", "a b is odd.")


async def test_a_report_is_no_answer() -> None:
    """A request that fails after it is repeated, or made to the next model, as if unseen."""
    history: list[Item] = [user_message("hi")]
    call = FunctionCall("c", "a b", "{}")
    retry = RetryPolicy(first_delay=0)
    repeated = Adapting([[Call("a b", "{}", "c1")], ServerFailed("Busy."), "Done."])
    (events,) = await events_of(Agent(repeated, retry=retry), "one")
    assert len(adapted(events)) == 1
    assert type(events[-1]).__name__ == "RunCompleted"
    first = Adapting([[ServerFailed("Down.")]])
    request = ModelRequest(items=[*history, call])
    found = [e async for e in FallbackModel(first, Adapting(["Hi."])).stream(request)]
    assert [isinstance(event, ItemsAdapted) for event in found[:2]] == [True, True]
    assert len(found) > 2


@pytest.mark.parametrize(
    ("choice", "script", "ignored"),
    [
        ("required", ["No."], [""]),
        ("required", [[Call("look", "{}")], "Well."], []),
        (NamedTool("look"), ["No."], ["look"]),
        (NamedTool("look"), [[Call("other", "{}")], "Well."], ["look"]),
        (NamedTool("look"), [[Call("look", "{}")], "Well."], []),
        ("auto", ["No."], []),
    ],
)
async def test_a_forced_call_that_is_not_made_is_reported(
    choice: str, script: list[object], ignored: list[str]
) -> None:
    settings = ModelSettings(tool_choice=choice)  # type: ignore[arg-type]
    agent = Agent(ScriptedModel(script), tools=[look], settings=settings)  # type: ignore[arg-type]
    (events,) = await events_of(agent, "go")
    assert [e.tool for e in events if isinstance(e, ToolChoiceIgnored)] == ignored


class Unreadable(ScriptedModel):
    """Writes items of its provider that are not calls, such as lists of tools."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        async for event in super().stream(request):
            if isinstance(event, ItemFinished) and isinstance(event.item, ProviderItem):
                event = replace(event, item=replace(event.item, call=None))
            yield event


@pytest.mark.parametrize(("kind", "ignored"), [(ScriptedModel, []), (Unreadable, [""])])
async def test_only_a_call_of_a_hosted_tool_is_a_forced_call(
    kind: type[ScriptedModel], ignored: list[str]
) -> None:
    model = kind([[Hosted(HostedCall("web_search", "", "completed", "rain")), Text("Rain.")]])
    settings = ModelSettings(tool_choice="required")
    agent = Agent(model, tools=[look, WebSearch()], settings=settings)
    (events,) = await events_of(agent, "go")
    assert [e.tool for e in events if isinstance(e, ToolChoiceIgnored)] == ignored


class Refusing(ScriptedModel):
    """Refuses the last call in its requests, as a provider does that names it."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        calls = [item for item in request.items if isinstance(item, FunctionCall)]
        if calls:
            raise ItemRefused("Invalid 'input[1].name'.", calls[-1], status=400)
        async for event in super().stream(request):
            yield event


async def test_a_refused_item_is_named_by_its_event() -> None:
    agent = Agent(Refusing([[Call("look", "{}", "c1")], "Fine."]), tools=[look])
    async with open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        with pytest.raises(ItemRefused) as caught:
            await run.result()
        events = [event async for event in run]
        (requested,) = [event for event in events if type(event).__name__ == "ToolCallRequested"]
        assert caught.value.seq == requested.seq
        assert f"thread.remove_event({requested.seq}, error.item)" in caught.value.message
        assert events[-1].message == caught.value.message  # type: ignore[union-attr]
        assert events[-1].code == "item_refused"  # type: ignore[union-attr]
        await thread.remove_event(caught.value.seq, caught.value.item)  # type: ignore[arg-type]
        assert (await (await thread.send("again")).result()).text == "Fine."
    with pytest.raises(BadRequest) as unkept:
        await Agent(Refusing([[Call("look", "{}", "c1")]]), tools=[look]).run("go")
    assert unkept.value.message == "Invalid 'input[1].name'."


async def test_an_item_of_a_replaced_history_is_found() -> None:
    odd = FunctionCall("c9", "a b", "{}")

    def rewrite(context: CompletionContext[None], completion: Completion) -> None:
        items: list[Item] = [user_message("go"), odd, FunctionCallOutput("c9", "x")]
        context.replace_history(items)

    agent = Agent(Refusing(["Hi.", "Fine."]), hooks=Hooks(after_completion=rewrite))
    async with open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("one")
        await first.result()
        replaced = [e.seq async for e in first if type(e).__name__ == "HistoryReplaced"]
        with pytest.raises(ItemRefused) as caught:
            await (await thread.send("two")).result()
        assert [caught.value.seq] == replaced
        await thread.remove_event(caught.value.seq, caught.value.item)  # type: ignore[arg-type]
        assert (await (await thread.send("three")).result()).text == "Fine."
