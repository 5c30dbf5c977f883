"""Agents that are named on the command line."""

from pathlib import Path

import pytest

from treadle.errors import ConfigurationError
from treadle.server.agents import load_agents

ONE = "from treadle import Agent\nagent = Agent('demo', name='{name}')\nother = agent\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_agent_a_list_and_a_mapping(folder: Path) -> None:
    (folder / "served_one.py").write_text(
        ONE.format(name="one")
        + "agents = [agent, Agent('demo', name='two')]\nby_name = {'x': agent}\nnumber = 3\n"
    )
    assert [agent.name for agent in load_agents("served_one:agent")] == ["one"]
    assert [agent.name for agent in load_agents("served_one:agents")] == ["one", "two"]
    assert [agent.name for agent in load_agents("served_one:by_name")] == ["one"]
    for target, match in (
        ("served_one:nope", "has no 'nope'"),
        ("served_one:number", "is a int, not an Agent"),
        ("served_nope:agent", "cannot be imported"),
        ("served_one", "is not an agent; use demo"),
        (":agent", "is not an agent"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            load_agents(target)


def test_a_folder(folder: Path) -> None:
    agents = folder / "agents"
    agents.mkdir()
    with pytest.raises(ConfigurationError, match="has no agent"):
        load_agents("agents")
    (agents / "served_a.py").write_text(ONE.format(name="a"))
    again = "from served_a import agent as same\n"
    (agents / "served_b.py").write_text(again + ONE.format(name="b"))
    (agents / "_private.py").write_text("raise RuntimeError\n")
    assert [agent.name for agent in load_agents(str(agents))] == ["a", "b"]
    (agents / "served_c.py").write_text(ONE.format(name="a"))
    with pytest.raises(ConfigurationError, match="two agents called 'a'"):
        load_agents(str(agents))
    (agents / "json.py").write_text(ONE.format(name="j"))
    with pytest.raises(ConfigurationError, match="has the name of another module"):
        load_agents(str(agents))
