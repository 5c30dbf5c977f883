"""Arguments of an agent, its settings and limits that cannot work are refused by name."""

from typing import Any

import pytest

from treadle import Agent, Limits, ModelSettings, NamedTool, tool
from treadle.errors import ConfigurationError
from treadle.testing import ScriptedModel


@tool
async def look() -> str:
    """Looks."""
    return "seen"


def _two(a: object, b: object) -> str:
    return f"{a}{b}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"settings": {"temperature": 0}},
            r"settings cannot be {'temperature': 0}; write settings=",
        ),
        ({"limits": {"max_steps": 1}}, "limits cannot be .* write limits=Limits"),
        ({"thread_limits": 5}, "thread_limits cannot be 5"),
        ({"rules": ["look"]}, "rules cannot be"),
        ({"retry": 3}, "retry cannot be 3"),
        ({"hooks": 5}, "hooks is a list, not 5; write hooks=Hooks"),
        ({"hooks": [5]}, "hooks cannot be 5"),
        ({"tools": look}, r"tools is a list, not a Tool; write tools=\[f\]"),
        ({"tools": "look"}, "tools is a list, not 'look'"),
        ({"blocks": 5}, "blocks is a list, not 5"),
        ({"handoffs": ["x"]}, "An entry of handoffs cannot be 'x'"),
        ({"handoffs": 5}, "handoffs is a list, not 5"),
        ({"name": 5}, "name cannot be 5"),
        ({"description": None}, "description cannot be None"),
        ({"instructions": 5}, "instructions cannot be 5; pass a text, or a function"),
        ({"instructions": None}, "instructions cannot be None"),
        ({"instructions": ["a", "b"]}, r"instructions cannot be \['a', 'b'\]"),
        (
            {"instructions": _two},
            r"_two\(a: .*\) .* cannot be called as instructions",
        ),
    ],
)
def test_arguments_of_an_agent(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Agent(ScriptedModel([]), **arguments)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"temperature": "hot"},
            "ModelSettings.temperature is 'hot'; use a value of the type float",
        ),
        ({"temperature": True}, "temperature is True"),
        ({"top_p": [1]}, r"top_p is \[1\]"),
        ({"max_output_tokens": 1.5}, "max_output_tokens is 1.5; use a value of the type int"),
        ({"reasoning_effort": "ultra"}, "reasoning_effort is 'ultra'; use none, minimal"),
        ({"tool_choice": "look"}, "tool_choice is 'look'; use auto, none, required or a NamedTool"),
        ({"tool_choice": {"name": "look"}}, "tool_choice is"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls is 1"),
        ({"extra_body": []}, r"extra_body is \[\]"),
    ],
)
def test_settings_of_a_model(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ModelSettings(**settings)


def test_settings_that_are_valid() -> None:
    settings = ModelSettings(
        temperature=1, top_p=0.5, tool_choice=NamedTool("look"), reasoning_effort="low"
    )
    assert settings.temperature == 1


@pytest.mark.parametrize("limits", [{"max_steps": "x"}, {"max_cost": "x"}, {"max_depth": True}])
def test_limits_are_numbers(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"Limits.{next(iter(limits))} must be a number"):
        Limits(**limits)
