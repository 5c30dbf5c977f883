"""Wrong keywords: the error names the right one."""

import inspect
from typing import Any

import pytest

import treadle
from treadle import Agent


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("system_prompt", "instructions=…"),
        ("functions", "tools=[…]"),
        ("output_type", "output=…"),
        ("result_type", "output=…"),
        ("response_format", "output=…"),
        ("temperature", "settings=ModelSettings(temperature=…)"),
        ("max_tokens", "settings=ModelSettings(max_output_tokens=…)"),
        ("instruction", "instructions=…"),
        ("toools", "tools=…"),
    ],
)
def test_an_agent(wrong: str, right: str) -> None:
    options: dict[str, Any] = {wrong: "x"}
    with pytest.raises(TypeError) as raised:
        Agent("demo", **options)
    assert str(raised.value) == f"Agent() has no parameter {wrong!r}; write {right}."


def test_others() -> None:
    options: dict[str, Any] = {"approval": True}
    with pytest.raises(TypeError, match=r"tool\(\) has no parameter 'approval'; write needs_app"):
        treadle.tool(**options)
    options = {"agent": None}
    with pytest.raises(TypeError, match=r"open\(\) has no parameter 'agent'; write agents=\[agent"):
        treadle.open(**options)
    options = {"zzzzzz": 1}
    with pytest.raises(TypeError, match=r"has no parameter 'zzzzzz'\.$"):
        Agent("demo", **options)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        Agent()  # type: ignore[call-arg] # pyright: ignore


def test_an_editor_sees_parameters_and_documentation() -> None:
    assert list(inspect.signature(Agent).parameters)[:3] == ["model", "name", "description"]
    assert "`instructions`" in (inspect.getdoc(Agent.__init__) or "")


@pytest.mark.parametrize("use", ["with", "await"])
async def test_a_runtime_is_opened_with_async_with(use: str) -> None:
    runtime: Any = treadle.open()
    with pytest.raises(TypeError, match=r"write `async with treadle\.open\(…\) as runtime:`"):
        if use == "await":
            await runtime
        with runtime:
            pass


pytestmark = pytest.mark.anyio
