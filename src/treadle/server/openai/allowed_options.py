"""Parameters of a request as options of its run, as far as the agent allows them."""

from collections.abc import Iterable
from typing import Any

from treadle.domain.settings import ModelSettings
from treadle.errors import OptionNotAllowed
from treadle.loop.definition import AgentDefinition
from treadle.server.openai.errors import ParameterRefused


def allowed_options(
    agent: AgentDefinition[Any, Any], given: Iterable[tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Returns options of a run; raises 400 for the first parameter that the agent does not allow.

    `given` are names of parameters, and what they are as options. Settings are merged.
    """
    options: dict[str, Any] = {}
    settings = ModelSettings()
    for param, option in given:
        try:
            agent.check_options(**option)
        except OptionNotAllowed as error:
            raise ParameterRefused(
                param,
                f"The agent {agent.name!r} does not take {param}: {error.message}",
                code="unsupported_parameter",
            ) from error
        if isinstance(changed := option.get("settings"), ModelSettings):
            settings = settings.updated(changed)
        else:
            options |= option
    if settings != ModelSettings():
        options["settings"] = settings
    return options
