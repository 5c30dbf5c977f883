"""What `MCPTools` refuses at once, and what an agent makes of it before it runs."""

from typing import Any

import pytest

from treadle import Agent, ModelSettings, NamedTool
from treadle.errors import ConfigurationError
from treadle.loop.definition import hash_of
from treadle.mcp import MCPTools
from treadle.testing import ScriptedModel


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prefix": "a b"}, "The prefix 'a b' is not valid"),
        ({"prefix": "x" * 33}, "at most 32 letters"),
        ({"allow": "read"}, "allow is a list of names"),
        ({"timeout": 0}, "must be above 0"),
        ({"timeout": float("nan")}, "must be above 0"),
        ({"start_timeout": -1}, "must be above 0"),
        ({"max_output_chars": 0}, "at least 1"),
        (
            {"needs_approval": "yes"},
            "needs_approval of server must be one",
        ),
        ({"needs_approval": lambda: True}, r"write f\(arguments\) or f\(context: RunContext, arg"),
    ],
)
def test_what_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        MCPTools("server", **options)


def test_names() -> None:
    assert MCPTools("/bin/server --token x").name == "server"
    assert MCPTools("https://host/secret").name == "host"
    assert repr(MCPTools("server --token x", name="files", prefix="f_")) == (
        "MCPTools('files', prefix='f_')"
    )


def agent(*tools: MCPTools) -> Agent[None, str]:
    return Agent(ScriptedModel(["done"]), tools=tools)


def test_the_hash_tells_sources_apart() -> None:
    hashes = {
        hash_of(agent()),
        hash_of(agent(MCPTools("one"))),
        hash_of(agent(MCPTools("two"))),
        hash_of(agent(MCPTools("two", needs_approval=True))),
    }
    assert len(hashes) == 4
    assert hash_of(agent(MCPTools("one"))) == hash_of(agent(MCPTools("one")))


def test_a_choice_of_a_tool_that_is_not_known_yet() -> None:
    settings = ModelSettings(tool_choice=NamedTool("read"))
    made = Agent("demo", settings=settings, tools=[MCPTools("one")])
    assert (made.settings.tool_choice, made.tools.names) == (NamedTool("read"), ())
