"""Rules for approval: their forms, what they may read, and responses that stream on meanwhile."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import treadle
from treadle import Agent, ModelSettings, RetryPolicy, RunContext, Tool, tool
from treadle.domain.events import RunRequiresAction, TextDelta, ToolCallRequested
from treadle.domain.history import require_valid
from treadle.errors import InvalidTool, StreamIncomplete
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

PAY = '{"amount": 7}'


def paying(rule: Any) -> Tool[..., object]:
    @tool(needs_approval=rule)
    async def pay(amount: int) -> str:
        """Pays."""
        return f"paid {amount}"

    return pay


async def _small(arguments: Mapping[str, Any]) -> bool:
    await asyncio.sleep(1)
    return arguments["amount"] > 5


async def _who(context: RunContext[Mapping[str, int]], arguments: Mapping[str, Any]) -> bool:
    await asyncio.sleep(1)
    assert context.message is not None
    assert (context.tool_name, context.call_id, context.owner) == ("pay", "c1", "ada")
    assert context.message.text == "go"
    assert context.thread_id
    assert context.run_id
    return arguments["amount"] > context.deps["limit"]


async def _raises(arguments: Mapping[str, Any]) -> bool:
    await asyncio.sleep(1)
    raise LookupError("no database")


async def _cancels(arguments: Mapping[str, Any]) -> bool:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(1)
    return False


def _cancels_and_returns(arguments: Mapping[str, Any]) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return _small(arguments)


RULES: list[tuple[Any, bool]] = [
    (True, True),
    (lambda arguments: arguments["amount"] > 5, True),
    (lambda arguments: arguments["amount"] > 50, False),
    (lambda context, arguments: arguments["amount"] > context.deps["limit"], True),
    (_small, True),
    (lambda arguments: _small(arguments), True),  # noqa: PLW0108 - it returns a coroutine
    (_who, True),
    (_raises, True),
    (_cancels, True),
    (_cancels_and_returns, True),
]


@pytest.mark.parametrize(("rule", "asks"), RULES)
async def test_a_rule(rule: Any, asks: bool) -> None:
    agent = Agent(ScriptedModel([[Call("pay", PAY, "c1")], "Done."]), tools=[paying(rule)])

    def deps(_: object) -> object:
        return {"limit": 5}

    async with treadle.Runtime(MemoryJournal(), agents=[agent], deps=deps) as runtime:
        thread = await runtime.create_thread(agent, owner="ada")
        run = await thread.send("go")
        await asyncio.sleep(2)
        assert [awaits for _, awaits in await thread.pending_calls()] == ["approval"] * asks
        if asks:
            await thread.approve("c1")
        assert (await run.result()).text == "Done."
        require_valid(await thread.history())


async def test_the_response_streams_on_while_a_rule_decides() -> None:
    order: list[str] = []

    async def slow(arguments: Mapping[str, Any]) -> bool:
        await asyncio.sleep(10)
        order.append("decided")
        return False

    @tool
    async def look() -> str:
        """Looks."""
        order.append("looked")
        return ""

    turn = Turn((Call("pay", PAY, "c1"), Call("look", "{}", "c2"), Text("On it.")))
    agent = Agent(ScriptedModel([turn, "Done."]), tools=[paying(slow), look])
    async with treadle.Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        async for event in run:
            if isinstance(event, TextDelta):
                order.append("text")
        assert set(order[:-2]) == {"looked", "text"}
        assert order[-2:] == ["decided", "text"]
        history = await thread.history()
        require_valid(history)
        # The order is that of the response, whatever was decided last.
        assert [i.call_id for i in history if isinstance(i, treadle.FunctionCall)] == ["c1", "c2"]


@pytest.mark.parametrize("how", ["cancel", "break", "shutdown"])
async def test_a_run_that_ends_while_a_rule_decides(how: str) -> None:
    async def never(arguments: Mapping[str, Any]) -> bool:
        await asyncio.sleep(3600)
        return False

    broken = [Call("pay", PAY, "c1"), StreamIncomplete("gone")]
    whole = [Call("pay", PAY, "c1")]
    script: list[Any] = [broken if how == "break" else whole, "Again."]
    agent = Agent(
        ScriptedModel(script), tools=[paying(never)], retry=RetryPolicy(max_retries=1), name="a"
    )
    journal = MemoryJournal()
    async with treadle.Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        if how == "break":
            assert (await run.result()).text == "Again."
        await asyncio.sleep(1)
        if how == "cancel":
            await run.cancel()
            assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        require_valid(await thread.history())
        assert not [e for e in await thread.events() if isinstance(e, ToolCallRequested)]
    if how == "shutdown":
        async with treadle.Runtime(journal, agents=[agent]) as runtime:
            thread = await runtime.connect(thread.id)
            assert (await (await thread.run(run.id)).result()).text == "Again."


async def test_many_rules_decide_at_the_same_time() -> None:
    async def slow(arguments: Mapping[str, Any]) -> bool:
        await asyncio.sleep(10 - arguments["amount"])
        return arguments["amount"] % 2 == 0

    calls = [Call("pay", f'{{"amount": {n}}}', f"c{n}") for n in range(8)]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[paying(slow)], settings=ModelSettings())
    async with treadle.Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        start = asyncio.get_running_loop().time()
        run = await thread.send("go")
        async for event in run:
            if isinstance(event, RunRequiresAction):
                break
        assert asyncio.get_running_loop().time() - start < 11
        waiting = [call.call_id for call, _ in await thread.pending_calls()]
        assert waiting == ["c0", "c2", "c4", "c6"]
        for call_id in waiting:
            await thread.approve(call_id)
        assert (await run.result()).text == "Done."


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("yes", "'yes' is not a function; needs_approval of pay must be one"),
        (lambda: True, r"write f\(arguments\) or f\(context: RunContext, arguments\)"),
        (lambda a, b, c: True, r"cannot be called as needs_approval of pay"),
    ],
)
def test_what_is_no_rule(rule: Callable[..., bool], problem: str) -> None:
    with pytest.raises(InvalidTool, match=problem):
        paying(rule)
