"""Options of one run, in the foreground: what the model is asked, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from treadle import (
    Agent,
    AllowedTools,
    ExternalTool,
    FunctionCallOutput,
    Item,
    Limits,
    ModelSettings,
    NamedTool,
    Price,
    RunContext,
    RunStarted,
    ToolRules,
    Usage,
    tool,
)
from treadle.errors import (
    ConfigurationError,
    DuplicateTool,
    InvalidInput,
    MissingKey,
    OutputInvalid,
    UnknownModel,
    UnknownOption,
)
from treadle.loop.definition import agent_with_options, hash_of
from treadle.memory import Summarize
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio


class City(BaseModel):
    name: str


@tool
async def lookup(word: str) -> str:
    """Looks a word up."""
    return f"{word}!"


def outputs_of(items: Sequence[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, FunctionCallOutput)]


@tool
async def count() -> int:
    """Counts."""
    return 3


async def test_what_is_given_replaces_or_follows_what_the_agent_has() -> None:
    own, other = ScriptedModel([]), ScriptedModel(['{"name": "Rome"}'], name="other")
    agent = Agent(
        own,
        instructions="Be polite.",
        tools=[lookup],
        settings=ModelSettings(temperature=0.2, top_p=0.5, extra_body={"a": 1}),
    )
    hash_before = hash_of(agent)
    async with agent.stream(
        "Hello",
        model=other,
        settings=ModelSettings(temperature=0.9, extra_body={"b": 2}),
        instructions="Be rude.",
        extra_instructions="Write German.",
        tools=[count],
        output=City,
        metadata={"ticket": 7},
    ) as run:
        events = [event async for event in run.events()]
        result = await run.result()
    assert result.output == City(name="Rome")
    (request,) = other.requests
    assert request.instructions == "Be rude.\n\nWrite German."
    assert [schema.name for schema in request.tools] == ["lookup", "count"]
    assert request.output is not None
    assert request.output.name == "City"
    assert request.settings == ModelSettings(
        temperature=0.9, top_p=0.5, extra_body={"a": 1, "b": 2}
    )
    (started,) = [event for event in events if isinstance(event, RunStarted)]
    assert started.options is not None
    assert started.options.metadata == {"ticket": 7}
    assert started.options.model == "scripted/other"
    assert (hash_of(agent), agent.tools.names, agent.model) == (hash_before, ("lookup",), own)


async def test_a_run_without_options_has_none() -> None:
    agent = Agent(ScriptedModel(["Hi"]))
    async with agent.stream("Hello", tools=[], metadata={}, settings=ModelSettings()) as run:
        started = [event async for event in run.events() if isinstance(event, RunStarted)]
    assert [event.options for event in started] == [None]


def test_run_sync_takes_options() -> None:
    model = ScriptedModel(['{"value": 4}'])
    result = Agent(model).run_sync("2 + 2", output=int, instructions="Calculate.")
    assert result.output == 4
    assert model.requests[0].instructions == "Calculate."


async def test_an_agent_with_a_type_can_answer_in_text() -> None:
    agent = Agent(ScriptedModel(["Rome."]), output=City, stream_fields=["name"])
    result = await agent.run("Hello", output=str)
    assert result.output == "Rome."


async def test_the_output_may_be_a_schema() -> None:
    schema = {
        "title": "answer",
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 2}},
        "required": ["name"],
    }
    model = ScriptedModel(['{"name": "R"}', '{"name": "Rome"}'])
    result = await Agent(model).run("Hello", output=schema)
    assert result.output == {"name": "Rome"}
    sent = model.requests[0].output
    assert sent is not None
    assert (sent.name, sent.strict) == ("answer", True)
    assert "at least 2 characters" in str(model.requests[1].items[-1])
    listed = ScriptedModel(['{"value": [1, 2]}'])
    assert (await Agent(listed).run("Hello", output={"type": "array"})).output == [1, 2]


async def test_a_schema_that_stays_unfulfilled_fails_the_run() -> None:
    agent = Agent(ScriptedModel(["{}", "{}", "{}"]))
    with pytest.raises(OutputInvalid, match="lacks 'name'"):
        await agent.run("Hello", output={"type": "object", "required": ["name"]})


async def test_added_tools_run() -> None:
    model = ScriptedModel([[Call("lookup", '{"word": "a"}'), Call("count")], "Done"])
    result = await Agent(model, tools=[lookup]).run("Hello", tools=[count])
    assert outputs_of(result.items) == ["a!", "3"]


async def test_a_plain_function_is_a_tool() -> None:
    def double(number: int) -> int:
        """Doubles."""
        return number * 2

    model = ScriptedModel([Call("double", '{"number": 4}'), "8"])
    await Agent(model).run("Hello", tools=[double])
    assert outputs_of(model.requests[1].items) == ["8"]


async def test_a_choice_forces_the_first_step_only() -> None:
    model = ScriptedModel([Call("lookup", '{"word": "a"}'), "Done"])
    await Agent(model, tools=[lookup, count]).run("Hello", tool_choice=NamedTool("lookup"))
    assert [request.settings.tool_choice for request in model.requests] == [
        NamedTool("lookup"),
        None,
    ]


@pytest.mark.parametrize("required", [False, True])
async def test_only_allowed_tools_are_offered_and_made(required: bool) -> None:
    model = ScriptedModel([[Call("lookup", '{"word": "a"}'), Call("count")], "Done"])
    agent = Agent(
        model, tools=[lookup, count], settings=ModelSettings(tool_choice=NamedTool("count"))
    )
    result = await agent.run("Hello", tool_choice=AllowedTools(("lookup",), required=required))
    for request in model.requests:
        assert [schema.name for schema in request.tools] == ["lookup"]
    assert model.requests[0].settings.tool_choice == ("required" if required else None)
    outputs = outputs_of(result.items)
    assert "a!" in outputs
    assert "Only lookup may be called in this run; count was not called." in outputs


async def test_limits_are_those_of_the_agent_except_for_what_is_set() -> None:
    model = ScriptedModel([Call("count"), Call("count"), Call("count")])
    agent = Agent(model, tools=[count], limits=Limits(max_tokens=1000, max_steps=9))
    result = await agent.run("Hello", limits=Limits(max_steps=2), raise_on_incomplete=False)
    assert (result.stop_reason, result.steps) == ("max_steps", 2)
    usage = Agent(
        ScriptedModel([Turn((Call("count"),), usage=Usage(5, 5))]),
        tools=[count],
        limits=Limits(max_tokens=1),
    )
    result = await usage.run("Hello", limits=Limits(max_steps=5), raise_on_incomplete=False)
    assert result.stop_reason == "max_tokens"


async def test_a_limit_of_cost_needs_the_price_of_the_given_model() -> None:
    agent = Agent(
        ScriptedModel([]), limits=Limits(max_cost=1, price=Price(1, 1)), instructions="Hi"
    )
    said = Turn((Text("Hi"),), usage=Usage(5, 5))
    other = ScriptedModel([said], name="other")
    with pytest.raises(ConfigurationError, match="price of 'other'"):
        await agent.run("Hello", model=other)
    with pytest.raises(ConfigurationError, match="price of 'scripted'"):
        await Agent(ScriptedModel([])).run("Hello", limits=Limits(max_cost=1))
    expensive = Limits(price=Price(1e6, 1e6), prices={"x": Price(1, 1)})
    assert (await agent.run("Hello", model=other, limits=expensive)).cost > 0
    listed = Limits(prices={"third": Price(1, 1)})
    third = ScriptedModel([said], name="third")
    assert (await agent.run("Hello", model=third, limits=listed)).cost > 0


async def test_the_window_is_that_of_the_given_model() -> None:
    agent = Agent(ScriptedModel([], name="gpt-4o"), context=Summarize())
    own = agent.budget
    other = agent_with_options(
        agent, *_options(agent, model=ScriptedModel(["Hi"], name="claude-sonnet-4-5"))
    )
    assert own is not None
    assert other.budget is not None
    assert other.budget.window != own.window


def _options(agent: Agent[Any, Any], **given: Any) -> Any:
    from treadle.loop.catalog import Catalog
    from treadle.loop.options import make_options

    catalog = Catalog()
    return make_options(catalog, given, function="run", is_kept=False), catalog  # type: ignore[arg-type]


async def test_a_handoff_keeps_what_is_of_the_run() -> None:
    model = ScriptedModel([Call("transfer_to_second")], name="other")
    second = Agent(
        ScriptedModel([Call("transfer_to_first"), "Done"]),
        name="second",
        instructions="Second.",
        tools=[lookup],
    )
    first = Agent(ScriptedModel([]), name="first", instructions="First.", handoffs=[second])
    second.add_handoff(first)
    model._script.append('{"name": "Rome"}')  # it works again after the second handoff
    result = await first.run(
        "Hello",
        model=model,
        settings=ModelSettings(temperature=0.9),
        instructions="Other.",
        extra_instructions="Write German.",
        tools=[count],
        output=City,
        tool_choice=AllowedTools(("transfer_to_second", "count")),
    )
    assert result.output == City(name="Rome")
    began, again = model.requests
    (between,) = second.model.requests  # type: ignore[attr-defined]
    assert began.instructions == again.instructions == "Other.\n\nWrite German."
    assert between.instructions == "Second.\n\nWrite German."
    assert [one.name for one in between.tools] == ["lookup", "transfer_to_first", "count"]
    assert [one.name for one in began.tools] == ["transfer_to_second", "count"]
    assert (began.settings.temperature, between.settings.temperature) == (0.9, None)
    assert between.output is not None


async def test_an_agent_that_takes_over_keeps_its_own_tool() -> None:
    @tool(name="lookup")
    async def another() -> str:
        """Is another."""
        return "another"

    second = Agent(
        ScriptedModel([Call("lookup", '{"word": "a"}'), "Done"]), name="second", tools=[lookup]
    )
    first = Agent(ScriptedModel([Call("transfer_to_second")]), name="first", handoffs=[second])
    result = await first.run("Hello", tools=[another])
    assert "a!" in outputs_of(result.items)


async def test_other_agents_are_not_affected() -> None:
    worker = Agent(ScriptedModel(["Worked"]), name="worker", instructions="Work.")
    agent = Agent(
        ScriptedModel([Call("worker", '{"message": "go"}'), '{"name": "Rome"}']),
        tools=[worker.as_tool()],
    )
    await agent.run("Hello", extra_instructions="Write German.", tools=[count], output=City)
    (request,) = worker.model.requests  # type: ignore[attr-defined]
    assert (request.instructions, request.tools, request.output) == ("Work.", (), None)


async def test_other_agents_work_within_the_limits_of_the_run() -> None:
    @tool
    async def ask(context: RunContext) -> str:
        """Asks."""
        return (await context.run_agent(worker, "go")).text

    worker = Agent(ScriptedModel([]), name="worker")
    agent = Agent(ScriptedModel([Call("ask"), "Done"]), tools=[ask], limits=Limits(max_depth=3))
    result = await agent.run("Hello", limits=Limits(max_depth=0))
    assert "0 is allowed" in str(result.items)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"modell": "openai:gpt-5"}, TypeError, "Did you mean 'model'"),
        ({"model": ""}, InvalidInput, "model is empty"),
        ({"model": 5}, InvalidInput, "model must be"),
        ({"model": "\ud800"}, InvalidInput, "UTF-8"),
        ({"model": "fast"}, UnknownOption, "'fast'.*models="),
        ({"model": "openay:gpt-5"}, UnknownModel, "openay"),
        ({"model": "openai:gpt-5"}, MissingKey, "OPENAI_API_KEY"),
        ({"settings": {"temperature": 1}}, ConfigurationError, "settings="),
        ({"settings": ModelSettings(extra_body={"a": object()})}, InvalidInput, "JSON"),
        ({"instructions": 5}, InvalidInput, "instructions must be"),
        ({"instructions": "\ud800"}, InvalidInput, "UTF-8"),
        ({"extra_instructions": ["a"]}, InvalidInput, "extra_instructions"),
        ({"extra_instructions": "a" * 1_100_000}, InvalidInput, "1000000"),
        ({"tools": lookup}, ConfigurationError, "tools is a list"),
        ({"tools": "lookup"}, ConfigurationError, "tools is a list"),
        ({"tools": [5]}, InvalidInput, "tools has 5"),
        ({"tools": ["lookup"]}, UnknownOption, "tools="),
        ({"tools": [count]}, DuplicateTool, "count"),
        ({"tools": [lookup, ExternalTool("lookup")]}, DuplicateTool, "two tools"),
        ({"tools": [ExternalTool("a b")]}, InvalidInput, "letters"),
        ({"tools": [ExternalTool("a", parameters={"type": "x"})]}, InvalidInput, "type 'x'"),
        ({"tools": [ExternalTool("a", parameters={"type": "array"})]}, InvalidInput, "object"),
        ({"tools": [ExternalTool("a")]}, ConfigurationError, "needs a thread"),
        ({"tool_choice": "lookup"}, InvalidInput, "tool_choice is 'lookup'"),
        ({"tool_choice": ["lookup"]}, InvalidInput, "tool_choice"),
        ({"tool_choice": NamedTool("lookup")}, ConfigurationError, "'lookup'"),
        ({"tool_choice": AllowedTools(("lookup",))}, ConfigurationError, "'lookup'"),
        ({"output": 5}, ConfigurationError, "output"),
        ({"output": "City"}, UnknownOption, "outputs="),
        ({"output": {"type": "objekt"}}, InvalidInput, "objekt"),
        ({"output": {"type": "object", "properties": 5}}, InvalidInput, "properties"),
        ({"limits": 5}, ConfigurationError, "limits="),
        ({"metadata": "a"}, InvalidInput, "metadata"),
        ({"metadata": {"a": object()}}, InvalidInput, "JSON"),
    ],
)
async def test_what_cannot_work_is_refused(
    options: dict[str, Any],
    error: type[Exception],
    match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = ScriptedModel([])
    with pytest.raises(error, match=match):
        await Agent(model, tools=[count]).run("Hello", **options)
    assert not model.requests


def test_allowed_tools_are_a_list_of_names() -> None:
    assert AllowedTools(["a"]).names == ("a",)  # type: ignore[arg-type]
    for names in ("a", (), [1], 5):
        with pytest.raises(ConfigurationError, match="AllowedTools"):
            AllowedTools(names)  # type: ignore[arg-type]


async def test_a_rule_that_demands_a_tool_that_is_not_allowed_is_refused() -> None:
    agent = Agent(ScriptedModel([]), tools=[lookup, count], rules=ToolRules(first="count"))
    with pytest.raises(ConfigurationError, match="demands count"):
        await agent.run("Hello", tool_choice=AllowedTools(("lookup",)))


async def test_what_the_caller_changes_later_has_no_effect() -> None:
    metadata: dict[str, object] = {"a": [1]}
    agent = Agent(ScriptedModel(["Hi"]))
    async with agent.stream("Hello", metadata=metadata) as run:
        metadata["a"] = 2
        started = [event async for event in run.events() if isinstance(event, RunStarted)]
    assert started[0].options is not None
    assert started[0].options.metadata == {"a": [1]}
