"""Agents to serve, as the command line names them: `module:name`, or a folder of modules."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from treadle.agent import Agent
from treadle.errors import ConfigurationError

AnyAgent = Agent[Any, Any]

_FORMS = 'use demo, MODULE:NAME such as "app:agent" or "app:agents", or a folder'


def load_agents(target: str) -> list[AnyAgent]:
    """Returns the agents that a target names; raises `ConfigurationError`.

    `MODULE:NAME` is an agent, or a list or a mapping of them. Of a folder, each module is imported,
    and all agents that it defines at its top level are served.
    """
    folder = Path(target)
    agents = _in_folder(folder) if folder.is_dir() else _named(target)
    by_name: dict[str, AnyAgent] = {}
    for agent in agents:
        if by_name.setdefault(agent.name, agent) is not agent:
            raise ConfigurationError(
                f"{target} has two agents called {agent.name!r}; give one another name=…."
            )
    if not by_name:
        raise ConfigurationError(f"{target} has no agent; {_FORMS}.")
    return list(by_name.values())


def _named(target: str) -> Iterable[AnyAgent]:
    module_name, _, name = target.partition(":")
    if not (module_name and name):
        raise ConfigurationError(f"{target!r} is not an agent; {_FORMS}.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"{module_name} cannot be imported: {error}.") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        raise ConfigurationError(f"{module_name} has no {name!r}.")
    return _agents_in(target, getattr(module, name))


def _agents_in(target: str, value: Any) -> Iterable[AnyAgent]:
    several: Iterable[Any] = [value]
    if isinstance(value, dict):
        several = cast("dict[Any, Any]", value).values()
    elif isinstance(value, list | tuple):
        several = cast("list[Any]", value)
    agents = [cast("AnyAgent", one) for one in several if isinstance(one, Agent)]
    if len(agents) == len(list(several)):
        return agents
    kind = type(cast("object", value)).__name__
    raise ConfigurationError(f"{target} is a {kind}, not an Agent, or a list of agents.")


def _in_folder(folder: Path) -> Iterable[AnyAgent]:
    sys.path.insert(0, str(folder.resolve()))
    try:
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                yield from _in_module(_module(path))
    finally:
        sys.path.remove(str(folder.resolve()))


def _module(path: Path) -> ModuleType:
    name = path.stem
    if name in sys.modules:
        known = getattr(sys.modules[name], "__file__", None)
        if known is None or Path(known).resolve() != path.resolve():
            raise ConfigurationError(
                f"{path} has the name of another module, {name!r}; rename the file."
            )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"{path} cannot be imported: {error}.") from error


def _in_module(module: ModuleType) -> Iterable[AnyAgent]:
    """Yields the agents at the top level of a module, each once."""
    seen: set[int] = set()
    for value in vars(module).values():
        if isinstance(value, Agent):
            agent = cast("AnyAgent", value)
            if id(agent) not in seen:
                seen.add(id(agent))
                yield agent
