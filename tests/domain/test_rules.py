"""Rules for tool calls, and the limits of runs and threads."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import treadle
from treadle import Agent, Limits, ModelSettings, NamedTool, Price, ToolRules, tool
from treadle.domain.events import RunIncomplete
from treadle.domain.items import FunctionCallOutput, Message
from treadle.domain.limits import NO_LIMITS
from treadle.domain.usage import Spent, Usage
from treadle.errors import ConfigurationError, RuleBroken
from treadle.loop.definition import hash_of
from treadle.models.prices import PRICES, price_of
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio


@tool
async def search(q: str = "") -> str:
    """Finds."""
    return f"found {q}"


@tool
async def read(q: str = "") -> str:
    """Reads."""
    if q == "fail":
        raise ValueError("no")
    return f"read {q}"


@tool
async def answer(q: str = "") -> str:
    """Answers."""
    return f"answered {q}"


def call(name: str, id: str, q: str = "") -> Call:
    return Call(name, json.dumps({"q": q}), id)


async def outputs(rules: ToolRules, *steps: Any, limits: Limits | None = None) -> dict[str, str]:
    model = ScriptedModel([*steps, "Done."])
    agent = Agent(model, tools=[search, read, answer], rules=rules, limits=limits)
    result = await agent.run("hi", raise_on_incomplete=False)
    return {i.call_id: i.text for i in result.history if isinstance(i, FunctionCallOutput)}


async def test_the_first_tool_is_forced_and_none_comes_before_it() -> None:
    model = ScriptedModel(
        [[call("read", "1"), call("search", "2"), call("read", "3")], [call("read", "4")], "Done."]
    )
    agent = Agent(model, tools=[search, read], rules=ToolRules(first="search"))
    result = await agent.run("hi")
    found = {i.call_id: i.text for i in result.history if isinstance(i, FunctionCallOutput)}
    assert found == {
        "1": "Call search first; read was not called.",
        "2": "found ",
        "3": "read ",
        "4": "read ",
    }
    assert [request.settings.tool_choice for request in model.requests] == [
        NamedTool("search"),
        None,
        None,
    ]


async def test_a_tool_may_come_only_after_another_has_succeeded() -> None:
    found = await outputs(
        ToolRules(after={"answer": ["search", "read"]}),
        [call("answer", "1"), call("read", "2", "fail")],
        [call("answer", "3"), call("read", "4", "x")],
        [call("answer", "5")],
    )
    refused = "answer may be called only after search or read has succeeded; it was not called."
    assert [found["1"], found["3"], found["5"]] == [refused, refused, "answered "]


async def test_a_tool_may_be_called_so_often() -> None:
    found = await outputs(
        ToolRules(max_calls={"search": 2, "read": 1}),
        [call("search", "1"), call("search", "2"), call("search", "3")],
        [call("search", "4"), call("read", "5"), call("read", "6"), call("answer", "7")],
    )
    assert found["2"] == "found "
    for id in ("3", "4"):
        assert found[id] == "search may be called 2 times in a run; it was not called again."
    assert found["6"] == "read may be called once in a run; it was not called again."
    assert found["7"] == "answered "


async def test_a_required_tool_must_come_before_the_answer() -> None:
    model = ScriptedModel(["Too early.", [call("read", "1")], "Done."])
    agent = Agent(model, tools=[read], rules=ToolRules(required=["read"]))
    result = await agent.run("hi")
    assert result.text == "Done."
    said = [item.text for item in result.history if isinstance(item, Message)]
    assert said == ["hi", "Too early.", "Before you answer, call read.", "Done."]
    stubborn = Agent(ScriptedModel(["No."] * 3), tools=[read], rules=ToolRules(required=["read"]))
    with pytest.raises(RuleBroken, match="read"):
        await stubborn.run("hi")


async def test_a_terminal_rule_ends_the_run_once_what_is_required_was_called() -> None:
    rules = ToolRules(terminal=["answer"], required=["read"])
    found = await outputs(
        rules, [call("answer", "1")], [call("read", "2")], [call("answer", "3", "x")]
    )
    assert found["1"] == "Call read before answer; answer was not called."
    assert found["3"] == "answered x"


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: Agent("demo", rules=ToolRules(first="serach")), "serach"),
        (lambda: Agent("demo", tools=[read], rules=ToolRules(max_calls={"x": 1})), "'x'"),
        (lambda: ToolRules(max_calls={"read": 0}), "at least 1"),
        (lambda: ToolRules(required="read"), "list of names"),
        (lambda: ToolRules(first="a", after={"a": "b"}), "after another"),
        (lambda: ToolRules(after={"a": "b", "b": ["a"]}), "circle"),
        (lambda: ToolRules(after={"a": []}), "names no tool"),
    ],
)
def test_rules_that_can_never_be_kept(build: Callable[[], object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        build()


def test_a_circle_with_a_way_in_is_none() -> None:
    rules = ToolRules(after={"a": ["b", "c"], "b": "a"}, terminal=["d"])
    assert rules.names == {"a", "b", "c", "d"}


def test_rules_are_part_of_the_definition() -> None:
    plain = Agent("demo", tools=[read])
    assert hash_of(plain) != hash_of(Agent("demo", tools=[read], rules=ToolRules(first="read")))


# Limits


def used(input: int = 0, output: int = 0) -> Usage:
    return Usage(input, output, requests=1)


def stepping(usage: Usage) -> Turn:
    return Turn((call("search", ""),), usage=usage)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        (Limits(max_steps=2), 2),
        (Limits(max_tokens=300), 3),
        (Limits(max_input_tokens=200), 2),
        (Limits(max_output_tokens=50), 5),
        (Limits(max_cost=0.0005, price=Price(2.0, 5.0)), 2),
        (Limits(max_tool_calls=3), 4),
    ],
)
@pytest.mark.parametrize("scope", ["run", "thread"])
async def test_a_limit_ends_the_run_and_says_which(limits: Limits, steps: int, scope: str) -> None:
    script = [stepping(used(100, 10)) for _ in range(8)]
    options: dict[str, Any] = {"limits" if scope == "run" else "thread_limits": limits}
    agent = Agent(ScriptedModel(script), tools=[search], **options)
    events: list[object] = []
    async with agent.stream("hi") as run:
        async for event in run:
            events.append(event)
        result = await run.result(raise_on_incomplete=False)
    end = events[-1]
    assert isinstance(end, RunIncomplete)
    (name,) = {n for n in limits.__struct_fields__ if getattr(limits, n) != _default(n)} - {"price"}
    assert (end.stop_reason, end.scope, result.steps) == (name, scope, steps)
    assert result.status == "incomplete"


def _default(name: str) -> object:
    return getattr(Limits(), name)


async def test_calls_beyond_the_limit_are_not_made() -> None:
    calls = [call("search", str(n)) for n in range(4)]
    found = await outputs(ToolRules(), calls, limits=Limits(max_tool_calls=2))
    refused = "The run may make 2 tool calls; search was not called."
    assert [found[str(n)] for n in range(4)] == ["found ", "found ", refused, refused]


async def test_the_limits_of_a_thread_hold_for_all_its_runs() -> None:
    model = ScriptedModel(["One.", "Two.", "Three."])
    agent = Agent(model, thread_limits=Limits(max_steps=2))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        for text in ("One.", "Two."):
            assert (await (await thread.send("hi")).result()).text == text
        result = await (await thread.send("hi")).result(raise_on_incomplete=False)
        assert (result.status, result.stop_reason, result.steps) == ("incomplete", "max_steps", 0)
        state = await thread.state()
        assert state.ended.steps == 2


async def test_the_time_of_a_run_is_what_it_worked() -> None:
    @tool(external=True)
    async def ask() -> str:
        """Is answered outside."""
        raise AssertionError

    first = [Pause(40), Call("ask", "{}", "c1")]
    agent = Agent(
        ScriptedModel([first, [Text("Done."), Pause(40)]]),
        tools=[ask],
        limits=Limits(max_seconds=60),
    )
    import asyncio

    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
        await asyncio.sleep(3600)
        await thread.submit_tool_output("c1", "x")
        result = await run.result(raise_on_incomplete=False)
        assert (result.status, result.stop_reason) == ("incomplete", "max_seconds")
        state = await thread.state()
        assert state.run is not None
        assert state.run.seconds == pytest.approx(60, abs=1)


def test_what_is_left_of_limits() -> None:
    limits = Limits(
        max_steps=3, max_tokens=100, max_cost=1.0, max_tool_calls=5, price=Price(1.0, 1.0)
    )
    left = limits.left(Spent(Usage(30, 20), 0.25, 2, 9, 5.0))
    assert (left.max_steps, left.max_tokens, left.max_cost) == (None, 50, 0.75)
    assert (left.max_tool_calls, left.max_seconds, left.price) == (1, None, None)
    within = Limits(max_steps=32, max_tokens=20, price=Price(3.0, 3.0)).within(left)
    assert (within.max_tokens, within.max_cost, within.max_steps) == (20, 0.75, 32)
    assert within.price == Price(3.0, 3.0)
    assert NO_LIMITS.reached(Spent(Usage(10**9, 10**9), 1e9, 10**9, 10**9, 1e9)) is None


def test_every_limit_is_held_against_what_it_limits() -> None:
    spent = Spent(Usage(60, 40), 1.5, 3, 5, 20.0)
    for name, reached, beyond in [
        ("max_steps", 3, 4),
        ("max_tokens", 100, 101),
        ("max_input_tokens", 60, 61),
        ("max_output_tokens", 40, 41),
        ("max_cost", 1.5, 1.6),
        ("max_seconds", 20.0, 20.1),
        ("max_tool_calls", 4, 5),
    ]:
        options: dict[str, Any] = {"max_steps": None, name: reached}
        assert Limits(**options).reached(spent) == name
        options[name] = beyond
        assert Limits(**options).reached(spent) is None


def test_prices_are_known_by_name_and_version() -> None:
    assert price_of("gpt-5") == PRICES["gpt-5"]
    assert price_of("gpt-5-2025-08-07") == PRICES["gpt-5"]
    assert price_of("claude-sonnet-4-5-20250929") == PRICES["claude-sonnet-4-5"]
    for name in ("gpt-5-mini-high", "gpt-5-2025-08-0x", "qwen3", "", "unknown-20250929"):
        assert price_of(name) is None
    assert price_of("gpt-4o-mini") != price_of("gpt-4o")


async def test_costs_are_counted_and_priced_by_the_table_unless_told_otherwise() -> None:
    usage = Usage(1_000_000, 100_000)
    model = ScriptedModel([Turn((Text("x"),), usage=usage)], name="gpt-5")
    assert (await Agent(model).run("hi")).cost == pytest.approx(1.25 + 1.0)
    model = ScriptedModel([Turn((Text("x"),), usage=usage)], name="gpt-5")
    agent = Agent(model, limits=Limits(price=Price(2.0, 20.0)))
    assert (await agent.run("hi")).cost == pytest.approx(4.0)
    Agent(ScriptedModel([], name="gpt-5"), limits=Limits(max_cost=1))
    table = {"mine": Price(1.0, 1.0), "gpt-5": Price(9.0, 9.0)}
    priced = [
        Agent(ScriptedModel([], name=name), limits=Limits(max_cost=1, prices=table)).price
        for name in ("mine-2026-01-31", "gpt-5", "gpt-4o")
    ]
    assert priced == [Price(1.0, 1.0), Price(9.0, 9.0), PRICES["gpt-4o"]]


def test_a_choice_in_the_settings_stands_beside_rules() -> None:
    settings = ModelSettings(tool_choice=NamedTool("read"))
    Agent("demo", tools=[read, search], settings=settings, rules=ToolRules(required=["search"]))


async def test_a_thread_without_a_limit_of_steps_goes_on() -> None:
    agent = Agent(ScriptedModel(["Hi."] * 40), thread_limits=Limits(max_tokens=10**9))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        for _ in range(40):
            assert (await (await thread.send("hi")).result()).status == "completed"
    assert Agent("demo").limits.max_steps == 32
    assert Agent("demo", limits=Limits(max_tokens=5)).limits.max_steps == 32
    assert Agent("demo", limits=Limits(max_steps=None)).limits.max_steps is None


async def test_the_time_of_a_step_that_is_cut_off_counts_for_the_thread() -> None:
    slow = [[Text("x"), Pause(99)]] * 3
    agent = Agent(
        ScriptedModel(slow), limits=Limits(max_seconds=20), thread_limits=Limits(max_seconds=35)
    )
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        for _ in range(2):
            result = await (await thread.send("hi")).result(raise_on_incomplete=False)
            assert (result.stop_reason, result.steps) == ("max_seconds", 1)
        result = await (await thread.send("hi")).result(raise_on_incomplete=False)
        assert (result.stop_reason, result.steps) == ("max_seconds", 0)


async def test_no_time_counts_twice_or_while_waiting() -> None:
    import asyncio

    @tool(external=True)
    async def ask() -> str:
        """Is answered outside."""
        raise AssertionError

    @tool
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(20)
        return "done"

    calls = [Pause(40), Call("ask", "{}", "c1"), Call("slow", "{}", "c2")]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[ask, slow])
    for patience in (10, 3600):  # the answer comes while the other tool runs, or long after
        agent.model = ScriptedModel([calls, "Done."])
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("hi")
            async for event in run:
                if isinstance(event, treadle.RunRequiresAction):
                    break
            await asyncio.sleep(patience)
            await thread.submit_tool_output("c1", "x")
            await run.result()
            state = await thread.state()
            assert state.ended.seconds <= 61
            assert state.ended.seconds >= 40


CHOICES = {"search": {"found a": "read", "found b": ["read", "answer"], "found c": ()}}


async def test_the_output_of_one_tool_chooses_the_next() -> None:
    model = ScriptedModel(
        [
            [call("search", "1", "a"), call("answer", "2")],
            [call("answer", "3"), call("search", "4", "a")],
            "Too early.",
            [call("read", "5", "fail")],
            [call("read", "6")],
            [call("answer", "7")],
            "Done.",
        ]
    )
    rules = ToolRules(by_output={"search": {"found a": "read", "*": "answer"}})
    result = await Agent(model, tools=[search, read, answer], rules=rules).run("hi")
    found = {i.call_id: i.text for i in result.history if isinstance(i, FunctionCallOutput)}
    assert found == {
        "1": "found a",
        "2": "answered ",
        "3": "Call read next; answer was not called.",
        "4": "Call read next; search was not called.",
        "5": "read failed: ValueError: no",
        "6": "read ",
        "7": "answered ",
    }
    assert result.text == "Done."
    forced = NamedTool("read")
    choices = [request.settings.tool_choice for request in model.requests]
    assert choices == [None, forced, forced, forced, forced, None, None]


async def test_several_tools_may_be_chosen_and_other_outputs_choose_none() -> None:
    model = ScriptedModel(
        [[call("search", "1", "b")], [call("answer", "2")], [call("search", "3", "x")], "Done."]
    )
    rules = ToolRules(by_output={"search": {"found b": ["read", "answer"]}})
    assert (await Agent(model, tools=[search, read, answer], rules=rules).run("hi")).text == "Done."
    choices = [request.settings.tool_choice for request in model.requests]
    assert choices == [None, "required", None, None]


async def test_an_answer_without_the_chosen_tool_fails_the_run() -> None:
    model = ScriptedModel([[call("search", "1", "a")], "A.", "B.", "C."])
    rules = ToolRules(by_output={"search": {"found a": ["read", "answer"]}})
    with pytest.raises(RuleBroken, match="without calling read or answer first"):
        await Agent(model, tools=[search, read, answer], rules=rules).run("hi")


def test_a_choice_names_tools() -> None:
    with pytest.raises(ConfigurationError, match="by_output of 'search' names no tool"):
        ToolRules(by_output=CHOICES)
    with pytest.raises(ConfigurationError, match="by_output of 'search' names no tool"):
        ToolRules(by_output={"search": {}})
    with pytest.raises(ConfigurationError, match="'nowhere'"):
        Agent(
            ScriptedModel([]),
            tools=[search],
            rules=ToolRules(by_output={"search": {"x": "nowhere"}}),
        )
