"""Structured output in each output mode: validators, unions, and the output while it grows."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from treadle import (
    Agent,
    FieldDelta,
    FunctionCall,
    FunctionCallOutput,
    Hooks,
    Limits,
    Message,
    ModelRetry,
    ModelSettings,
    NamedTool,
    OutputMode,
    RunContext,
    Runtime,
    ToolRules,
    Veto,
    tool,
)
from treadle.domain.events import RunCompleted
from treadle.domain.history import require_valid
from treadle.errors import (
    ConfigurationError,
    HookFailed,
    JournalClosed,
    LimitReached,
    OutputInvalid,
    OutputMissing,
)
from treadle.journal.base import Batch
from treadle.journal.memory import MemoryJournal
from treadle.models import FallbackModel, Model, OpenAIChat
from treadle.models.base import ModelRequest
from treadle.models.output_modes import anthropic_output_mode, openai_output_mode
from treadle.testing import Call, Pause, ScriptedModel, Text, VirtualClockLoop

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
MODES: Sequence[OutputMode] = ("native", "tool", "prompted")
EACH_MODE = pytest.mark.parametrize("mode", MODES)


class Person(BaseModel):
    name: str
    age: int = 0
    tags: list[str] = []


@dataclass
class Place:
    city: str
    rank: int


@tool
async def look() -> str:
    """Looks."""
    return "seen"


def answer(mode: OutputMode, arguments: str, deltas: int = 0) -> Text | Call:
    """The step in which a model gives an answer in a mode."""
    if mode == "tool":
        return Call("final_output", arguments, deltas=deltas)
    return Text(f"```json\n{arguments}\n```" if mode == "prompted" else arguments, deltas=deltas)


ADA = '{"name": "Ada", "age": 36, "tags": ["x"]}'


@EACH_MODE
async def test_each_mode_gives_the_same_output(mode: OutputMode) -> None:
    model = ScriptedModel([[Text("I look."), Call("look", "{}")], answer(mode, ADA)])
    agent = Agent(model, output=Person, output_mode=mode, tools=[look], stream_fields=["name"])
    async with agent.stream("Who?") as run:
        events = [event async for event in run.events()]
        result = await run.result()
    assert result.output == Person(name="Ada", age=36, tags=["x"])
    assert (result.stop_reason, result.steps) == ("end_turn", 2)
    named = [event for event in events if isinstance(event, FieldDelta)]
    assert "".join(event.delta for event in named) == "Ada"
    assert {(event.field, event.call_id) for event in named} == {("name", "")}
    require_valid(result.history)
    first = model.requests[0]
    names = [schema.name for schema in first.tools]
    assert names == (["look", "final_output"] if mode == "tool" else ["look"])
    assert (first.output is not None) == (mode == "native")
    assert ("JSON Schema" in first.instructions) == (mode == "prompted")


@EACH_MODE
async def test_an_invalid_answer_is_corrected(mode: OutputMode) -> None:
    script = [answer(mode, '{"name": 3}'), answer(mode, "{"), answer(mode, ADA)]
    model = ScriptedModel(script)
    result = await Agent(model, output=Person, output_mode=mode).run("Who?")
    assert result.output.name == "Ada"
    asked = [
        item.text for item in result.items if isinstance(item, Message) and item.role == "user"
    ][1:]
    assert len(asked) == 2
    assert all("not valid" in text for text in asked)
    assert all(("final_output" in text) == (mode == "tool") for text in asked)
    choices = [request.settings.tool_choice for request in model.requests]
    assert choices == ([None, "required", "required"] if mode == "tool" else [None] * 3)
    again = ScriptedModel([answer(mode, '{"name": 3}')] * 3)
    with pytest.raises(OutputInvalid, match="after 2 corrections"):
        await Agent(again, output=Person, output_mode=mode).run("Who?")


@EACH_MODE
async def test_limits_count_neither_the_answer_nor_stop_it(mode: OutputMode) -> None:
    script = [Call("look", "{}"), answer(mode, "{}"), answer(mode, ADA)]
    agent = Agent(
        ScriptedModel(script),
        output=Person,
        output_mode=mode,
        tools=[look],
        limits=Limits(max_tool_calls=1),
    )
    assert (await agent.run("Who?")).output.name == "Ada"
    once = Agent(
        ScriptedModel([answer(mode, "{}")]),
        output=Person,
        output_mode=mode,
        limits=Limits(max_steps=1),
    )
    with pytest.raises(LimitReached):
        await once.run("Who?")


async def test_the_tools_of_a_step_run_alongside_the_answer() -> None:
    step = [Call("look", "{}"), Call("final_output", ADA), Call("final_output", "{}")]
    agent = Agent(ScriptedModel([step]), output=Person, output_mode="tool", tools=[look])
    result = await agent.run("Who?")
    assert (result.output.name, result.text) == ("Ada", ADA)
    outputs = [item.text for item in result.items if isinstance(item, FunctionCallOutput)]
    assert outputs == ["seen", "Received.", "Received."]


async def test_a_text_in_tool_mode_may_be_the_json_itself() -> None:
    agent = Agent(ScriptedModel([ADA]), output=Person, output_mode="tool")
    assert (await agent.run("Who?")).output.name == "Ada"
    model = ScriptedModel(["It is Ada.", Call("final_output", ADA)])
    result = await Agent(model, output=Person, output_mode="tool").run("Who?")
    assert result.output.name == "Ada"
    settings = ModelSettings(tool_choice="none")
    model = ScriptedModel([Call("final_output", ADA)])
    agent = Agent(model, output=Person, output_mode="tool", tools=[look], settings=settings)
    assert (await agent.run("Who?")).output.name == "Ada"
    assert model.requests[0].settings.tool_choice == NamedTool("final_output")


async def test_rules_and_hooks_apply_to_the_answer_in_tool_mode() -> None:
    model = ScriptedModel(
        [Call("final_output", ADA), Call("look", "{}"), Call("final_output", ADA)]
    )
    rules = ToolRules(required=["look"])
    agent = Agent(model, output=Person, output_mode="tool", tools=[look], rules=rules)
    result = await agent.run("Who?")
    assert (result.output.name, result.steps) == ("Ada", 3)
    refusals = iter([Veto("not yet"), None])
    hooks = Hooks[None](before_tool=lambda context, call: next(refusals))
    model = ScriptedModel([Call("final_output", "{}"), Call("final_output", ADA)])
    agent = Agent(model, output=Person, output_mode="tool", hooks=hooks)
    result = await agent.run("Who?")
    assert (result.output.name, result.steps) == ("Ada", 2)


async def test_a_mode_is_that_of_the_model_unless_it_is_set() -> None:
    class Plain(ScriptedModel):
        output_mode = "tool"

    plain, able = Plain([]), ScriptedModel([])
    assert Agent(plain, output=Person).output_mode == "tool"
    assert Agent(able, output=Person).output_mode == "native"
    assert Agent(plain, output=Person, output_mode="prompted").output_mode == "prompted"
    assert Agent(FallbackModel(able, plain), output=Person).output_mode == "tool"
    Plain.output_mode = "json"
    with pytest.raises(ConfigurationError, match="'json'"):
        _ = Agent(plain, output=Person).output_mode
    url = "https://api.deepseek.com"
    deepseek = OpenAIChat("deepseek-chat", api_key="k", base_url=url)
    assert Agent(deepseek, output=Person).output_mode == "tool"
    deepseek = OpenAIChat("deepseek-chat", api_key="k", base_url=url, output_mode="prompted")
    assert Agent(deepseek, output=Person).output_mode == "prompted"


@pytest.mark.parametrize(
    ("host", "model", "mode"),
    [
        ("api.openai.com", "gpt-5", "native"),
        ("api.openai.com", "gpt-4o", "native"),
        ("api.openai.com", "gpt-4.1-mini", "native"),
        ("api.openai.com", "gpt-4", "tool"),
        ("api.openai.com", "gpt-4-turbo", "tool"),
        ("api.openai.com", "gpt-3.5-turbo", "tool"),
        ("api.deepseek.com", "deepseek-chat", "tool"),
        ("generativelanguage.googleapis.com", "gemini-2.5-pro", "tool"),
        ("localhost", "qwen3", "native"),
    ],
)
def test_the_modes_of_openai_models(host: str, model: str, mode: str) -> None:
    assert openai_output_mode(f"https://{host}/v1", model) == mode


@pytest.mark.parametrize(
    ("host", "model", "mode"),
    [
        ("api.anthropic.com", "claude-sonnet-4-5", "native"),
        ("api.anthropic.com", "claude-opus-4-1-20250805", "native"),
        ("api.anthropic.com", "claude-sonnet-4-20250514", "tool"),
        ("api.anthropic.com", "claude-opus-4-0", "tool"),
        ("api.anthropic.com", "claude-3-5-haiku-latest", "tool"),
        ("localhost", "claude-sonnet-4-5", "tool"),
    ],
)
def test_the_modes_of_messages_models(host: str, model: str, mode: str) -> None:
    assert anthropic_output_mode(host, model) == mode


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"output": Person, "output_mode": "json"}, "output_mode cannot be 'json'"),
        ({"output_mode": "tool"}, "needs a type"),
        ({"output": Person, "tools": [tool(name="final_output")(lambda: "")]}, "final_output"),
        ({"output_validators": [3]}, "3 is not a function"),
        ({"output_validators": [lambda: None]}, "write"),
        ({"output_validators": [lambda a, b, c: None]}, "write"),
        ({"output_validators": "check"}, "output_validators"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Agent(ScriptedModel([]), **options)


# Validators


@EACH_MODE
async def test_a_validator_asks_for_another_answer(mode: OutputMode) -> None:
    seen: list[object] = []

    async def known(context: RunContext[str], output: Person) -> None:
        await asyncio.sleep(1)
        seen.append((context.deps, output.name))
        if output.name != "Ada":
            raise ModelRetry(f"{output.name} is not known.")

    script = [answer(mode, '{"name": "Bob"}'), answer(mode, ADA)]
    model = ScriptedModel(script)
    agent = Agent[str, Person](model, output=Person, output_mode=mode, output_validators=[known])
    result = await agent.run("Who?", deps="deps")
    assert result.output.name == "Ada"
    assert seen == [("deps", "Bob"), ("deps", "Ada")]
    assert "Bob is not known." in str(model.requests[1].items[-1])
    never = ScriptedModel([answer(mode, '{"name": "Bob"}')] * 2)
    agent = Agent[str, Person](
        never, output=Person, output_mode=mode, output_validators=[known], max_corrections=1
    )
    with pytest.raises(OutputInvalid, match="Bob is not known"):
        await agent.run("Who?", deps="deps")


@EACH_MODE
@pytest.mark.parametrize("in_place", [False, True])
async def test_a_validator_changes_the_output(
    mode: OutputMode, in_place: bool, open_runtime: Open
) -> None:
    def older(output: Person) -> Person | None:
        if in_place:
            output.age += 1
            return None
        return output.model_copy(update={"age": output.age + 1})

    agents = [
        Agent(
            ScriptedModel([answer(mode, ADA)]),
            output=Person,
            output_mode=mode,
            output_validators=[older, older],
        )
        for _ in range(2)
    ]
    result = await agents[0].run("Who?")
    assert (result.output.age, Person.model_validate_json(result.text.strip("`json\n")).age) == (
        38,
        36,
    )
    async with open_runtime(agents[1]) as runtime:
        thread = await runtime.create_thread(agents[1])
        run = await thread.send("Who?")
        assert (await run.result()).output == result.output
    async with open_runtime(agents[1]) as runtime:
        thread = await runtime.connect(thread.id)
        stored = await thread.run(run.id)
        assert cast("Person", (await stored.result()).output).age == 38
        events = await thread.events()
        (seq,) = [
            event.seq
            for event in events
            if isinstance(getattr(event, "item", None), FunctionCall)
            or getattr(event, "origin", "") == "model"
        ]
        await thread.remove_event(seq)
        (ended,) = [one for one in await thread.events() if isinstance(one, RunCompleted)]
        assert ended.output is None
        with pytest.raises(OutputMissing):
            await stored.result()


async def test_validators_of_a_text() -> None:
    def polite(output: str) -> str:
        if "please" not in output:
            raise ModelRetry("Say please.")
        return output.upper()

    model = ScriptedModel(["Go.", "Go, please."])
    result = await Agent(model, output_validators=[polite]).run("Speak.")
    assert (result.output, result.text) == ("GO, PLEASE.", "Go, please.")
    assert "Say please." in str(model.requests[1].items[-1])


async def test_a_validator_that_fails_ends_the_run() -> None:
    def broken(output: str) -> str:
        raise SystemExit(output)

    def wrong(output: str) -> str:
        return cast("str", 3)

    for validator, problem in ((broken, "The output validator .*broken"), (wrong, "not a valid")):
        agent = Agent(ScriptedModel(["Go."]), output_validators=[validator])
        with pytest.raises(HookFailed, match=problem):
            await agent.run("Speak.")
    typed = Agent(
        ScriptedModel([ADA]),
        output=Person,
        output_validators=[lambda output: output.model_copy(update={"age": "old"})],
    )
    with pytest.raises(HookFailed, match="not a valid Person"):
        await typed.run("Who?")


async def test_a_run_can_be_cancelled_while_it_is_validated() -> None:
    async def slow(output: str) -> None:
        await asyncio.sleep(60)

    agent = Agent(ScriptedModel(["Go."]), output_validators=[slow])
    async with agent.stream("Speak.") as run:
        await asyncio.sleep(1)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"


async def test_a_message_that_comes_while_the_answer_is_validated_is_answered(
    open_runtime: Open,
) -> None:
    async def slow(output: str) -> None:
        await asyncio.sleep(60)

    agent = Agent(ScriptedModel(["Go.", "Stay."]), output_validators=[slow])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Speak.")
        await asyncio.sleep(1)
        await thread.send("No, stay.", on_busy="steer")
        assert await run.text() == "Stay."


async def test_a_tool_can_ask_the_model_to_try_again() -> None:
    attempts: list[str] = []

    @tool(retries=3, on_error="raise")
    async def find(name: str) -> str:
        """Finds."""
        attempts.append(name)
        if name != "Ada":
            raise ModelRetry(f"{name} is not known; use a first name.")
        return "found"

    script = [Call("find", '{"name": "Bob"}'), Call("find", '{"name": "Ada"}'), "Found."]
    result = await Agent(ScriptedModel(script), tools=[find]).run("Find Ada.")
    outputs = [item for item in result.items if isinstance(item, FunctionCallOutput)]
    assert attempts == ["Bob", "Ada"]
    assert [(one.text, one.is_error) for one in outputs] == [
        ("Bob is not known; use a first name.", True),
        ("found", False),
    ]


# Unions


@EACH_MODE
async def test_a_union_of_types(mode: OutputMode) -> None:
    output = cast("type[Person | Place]", Person | Place)
    place = '{"value": {"city": "Lyon", "rank": 3}}'
    for text, value in (
        (place, Place("Lyon", 3)),
        (f'{{"value": {ADA}}}', Person.model_validate_json(ADA)),
    ):
        agent = Agent(ScriptedModel([answer(mode, text)]), output=output, output_mode=mode)
        assert (await agent.run("What?")).output == value
    model = ScriptedModel([answer(mode, place)])
    agent = Agent(model, output=output, output_mode=mode)
    await agent.run("What?")
    assert agent.output is not None
    assert agent.output.schema.strict
    assert agent.output.schema.name == "Person_or_Place"


async def test_a_text_is_one_of_the_types() -> None:
    output = cast("type[str | Person]", str | Person)
    for step, value in (
        ("Ask me later.", "Ask me later."),
        (Call("final_output", ADA), Person.model_validate_json(ADA)),
    ):
        model = ScriptedModel([step])
        agent = Agent(model, output=output)
        assert agent.output_mode == "tool"
        assert (await agent.run("Who?")).output == value
        assert model.requests[0].tools[0].parameters["required"] == ["name", "age", "tags"]
    model = ScriptedModel([Call("final_output", '{"name": 3}'), "Then a text."])
    assert (await Agent(model, output=output).run("Who?")).output == "Then a text."
    assert model.requests[1].settings.tool_choice is None
    for mode in ("native", "prompted"):
        for text, value in (
            ('{"value": "Later."}', "Later."),
            (f'{{"value": {ADA}}}', Person.model_validate_json(ADA)),
            ("Later.", "Later."),
        ):
            agent = Agent(ScriptedModel([text]), output=output, output_mode=mode)
            assert (await agent.run("Who?")).output == value
    shout = Agent(
        ScriptedModel(["Later."]),
        output=output,
        output_validators=[lambda value: value.upper()],  # type: ignore[union-attr]
    )
    assert (await shout.run("Who?")).output == "LATER."


# The output while it grows


async def seen(agent: Agent[None, Any], runtime: Runtime | None = None) -> list[Any]:
    if runtime is None:
        async with agent.stream("Who?") as run:
            return [output async for output in run.partial_output()]
    thread = await runtime.create_thread(agent)
    kept = await thread.send("Who?")
    return [output async for output in kept.partial_output()]


@EACH_MODE
async def test_the_output_grows(mode: OutputMode, open_runtime: Open) -> None:
    def agent() -> Agent[None, Person]:
        parts = [Pause(1), answer(mode, ADA, deltas=len(ADA))]
        return Agent(ScriptedModel([parts]), output=Person, output_mode=mode)

    one = agent()
    async with open_runtime(one) as runtime:
        kept = await seen(one, runtime)
    for outputs in (kept, await seen(agent())):
        assert outputs[-1] == Person(name="Ada", age=36, tags=["x"])
        assert all(isinstance(output, Person) for output in outputs)
        assert all("Ada".startswith(output.name or "") for output in outputs)
        assert all(output.age in {0, 36} for output in outputs)
    assert len(kept) > 3


async def test_a_correction_starts_anew() -> None:
    agent = Agent(ScriptedModel(['{"name": "Bob", "age": "x"}', ADA]), output=Person)
    names = [output.name for output in await seen(agent)]
    assert names[-1] == "Ada"
    assert any(name.startswith("B") for name in names if name)


async def test_partial_output_raises_as_the_result_does() -> None:
    agent = Agent(
        ScriptedModel([Call("look", "{}")]), output=Person, tools=[look], limits=Limits(max_steps=1)
    )
    with pytest.raises(LimitReached):
        await seen(agent)


async def test_a_text_grows() -> None:
    outputs = await seen(Agent(ScriptedModel([[Text("one two three four")]])))
    assert outputs[-1] == "one two three four"
    assert all(outputs[-1].startswith(output) for output in outputs)


# Every mode, cut anywhere, killed anywhere


class MortalJournal(MemoryJournal):
    """Takes a number of appends, and nothing more."""

    def __init__(self, before: MemoryJournal | None = None, life: int = 10**9) -> None:
        super().__init__()
        self._life = life
        if before is not None:
            self._threads, self._by_number = before._threads, before._by_number
            self._count = before._count

    def append(self, batch: Batch) -> asyncio.Future[None]:
        self._life -= 1
        if self._life < 0:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(JournalClosed("The process was killed."))
            return refused
        return super().append(batch)


class Answers:
    """Gives an invalid, a refused and a valid answer, by what it was asked; never forgets."""

    name = provider = "answers"

    def __init__(self, mode: OutputMode, deltas: int) -> None:
        self._mode: OutputMode = mode
        self._deltas = deltas

    def stream(self, request: ModelRequest) -> Any:
        require_valid(request.items)
        asked = sum("Your answer is not valid" in str(item) for item in request.items)
        if not any(isinstance(item, FunctionCallOutput) for item in request.items):
            step: Any = [Text("I look."), Pause(1), Call("look", "{}")]
        else:
            answers = ['{"name": 3}', '{"name": "Bob"}', ADA]
            step = [Pause(1), answer(self._mode, answers[asked], self._deltas)]
        return ScriptedModel([step]).stream(request)


@settings(max_examples=60)
@given(
    mode=st.sampled_from(MODES),
    deltas=st.integers(1, 60),
    lives=st.lists(st.integers(0, 12), max_size=4),
)
def test_a_run_in_any_mode_survives(mode: OutputMode, deltas: int, lives: list[int]) -> None:
    checked: list[str] = []

    async def known(output: Person) -> Person:
        await asyncio.sleep(0.5)
        checked.append(output.name)
        if output.name != "Ada":
            raise ModelRetry(f"{output.name} is not known.")
        return output.model_copy(update={"age": 37})

    def agent() -> Agent[None, Person]:
        return Agent(
            cast("Model", Answers(mode, deltas)),
            output=Person,
            output_mode=mode,
            tools=[look],
            output_validators=[known],
            max_corrections=9,
        )

    async def live() -> None:
        journal = MortalJournal()
        runtime = Runtime(journal, agents=[agent()])
        await runtime.__aenter__()
        thread = await runtime.create_thread("agent")
        run = await thread.send("Who?")
        for life in lives:
            journal._life = life
            await asyncio.sleep(5)
            await runtime.shutdown()
            journal = MortalJournal(journal)
            runtime = Runtime(journal, agents=[agent()])
            await runtime.__aenter__()
        thread = await runtime.connect(thread.id)
        again = await thread.run(run.id)
        outputs = [cast("Person", output) async for output in again.partial_output()]
        result = await again.result()
        assert result.output == outputs[-1] == Person(name="Ada", age=37, tags=["x"])
        require_valid(result.history)
        assert checked[-1] == "Ada"
        state = await thread.state()
        assert state.run is not None
        assert state.run.corrections == 2
        await runtime.shutdown()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(live())
