"""What callers over the network may change of an agent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import Agent, AllowedTools, ExternalTool, Limits, ModelSettings, RunOptions
from treadle.domain.overridable import overridable_of, require_overridable
from treadle.errors import ConfigurationError, OptionNotAllowed
from treadle.testing import ScriptedModel

FIELDS = RunOptions.__struct_fields__
GIVEN: dict[str, Any] = {
    "model": "openai:gpt-5-mini",
    "settings": ModelSettings(temperature=0.5),
    "instructions": "Other.",
    "extra_instructions": "Be brief.",
    "tools": (ExternalTool("lookup"),),
    "tool_choice": AllowedTools(("lookup",)),
    "output": "str",
    "limits": Limits(max_steps=3),
    "metadata": {"a": 1},
}
ALLOWED: dict[str, Any] = dict.fromkeys(FIELDS, True) | {"model": ["openai:gpt-5-mini"]}


@given(st.sets(st.sampled_from(FIELDS)), st.sets(st.sampled_from(FIELDS)))
def test_options_are_allowed_if_all_of_them_are_declared(
    given: set[str], declared: set[str]
) -> None:
    options = RunOptions(**{name: GIVEN[name] for name in given})
    overridable = overridable_of({name: ALLOWED[name] for name in declared})
    if given <= declared:
        require_overridable(options, overridable, Limits(max_steps=5))
    else:
        with pytest.raises(OptionNotAllowed) as caught:
            require_overridable(options, overridable, Limits(max_steps=5))
        assert caught.value.option in given - declared
        assert caught.value.code == "option_not_allowed"
        assert caught.value.option in caught.value.message


@pytest.mark.parametrize(
    ("declared", "options", "option"),
    [
        ({"model": ["openai:gpt-5"]}, {"model": "openai:gpt-5-mini"}, "model"),
        ({"model": ["openai:gpt-5"]}, {"model": "chat:x@http://10.0.0.1"}, "model"),
        ({"settings": True}, {"settings": ModelSettings(extra_body={"a": 1})}, "settings"),
        ({"settings": True}, {"settings": ModelSettings(extra_headers={"a": "b"})}, "settings"),
        ({"settings": True}, {"settings": ModelSettings(tool_choice="none")}, "settings"),
        ({"settings": ["top_p"]}, {"settings": ModelSettings(temperature=0)}, "settings"),
        ({"tools": True}, {"tools": ("delete_user",)}, "tools"),
        ({"tools": ["lookup"]}, {"tools": ("delete_user",)}, "tools"),
        ({"output": True}, {"output": "Invoice"}, "output"),
        ({"limits": True}, {"limits": Limits(max_steps=6)}, "limits"),
        ({"limits": True}, {"limits": Limits(max_handoffs=9)}, "limits"),
        ({"limits": True}, {"limits": Limits(prices={})}, "limits"),
        ({"metadata": False}, {"metadata": {"a": 1}}, "metadata"),
    ],
)
def test_values_that_are_not_allowed_name_their_option(
    declared: dict[str, Any], options: dict[str, Any], option: str
) -> None:
    with pytest.raises(OptionNotAllowed) as caught:
        require_overridable(
            RunOptions(**options), overridable_of(declared), Limits(max_steps=5, max_cost=1.0)
        )
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("declared", "options"),
    [
        ({"settings": ["temperature"]}, {"settings": ModelSettings(temperature=0)}),
        ({"tools": ["lookup"]}, {"tools": ("lookup", ExternalTool("mine"))}),
        ({"limits": True}, {"limits": Limits(max_steps=5, max_cost=0.5, max_tokens=10)}),
        ([], {}),
    ],
)
def test_values_that_are_allowed(declared: Any, options: dict[str, Any]) -> None:
    require_overridable(
        RunOptions(**options), overridable_of(declared), Limits(max_steps=5, max_cost=1.0)
    )


@pytest.mark.parametrize(
    "declared",
    [
        "metadata",
        5,
        ["metadatum"],
        ["model"],
        {"model": True},
        {"model": "openai:gpt-5"},
        {"metadata": ["a"]},
        {"metadata": 1},
        {"tools": [1]},
        {"settings": ["temprature"]},
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(declared: Any) -> None:
    with pytest.raises(ConfigurationError, match="overridable"):
        Agent(ScriptedModel([]), overridable=declared)


def test_an_agent_checks_the_arguments_of_send() -> None:
    agent = Agent(ScriptedModel([]), overridable=["extra_instructions"])
    agent.check_options()
    agent.check_options(extra_instructions="Be brief.")
    with pytest.raises(OptionNotAllowed, match="instructions may not be given"):
        agent.check_options(instructions="You are a pirate.")
    with pytest.raises(OptionNotAllowed, match="output"):
        agent.check_options(output={"type": "object"})
    with pytest.raises(OptionNotAllowed, match="settings"):
        agent.check_options(settings=ModelSettings(temperature=1))
