"""Some scenarios of the table where one node serves the client, and another drives the threads."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace
from tests.postgres import server
from tests.protocols import ag_ui, ai_sdk
from tests.protocols.client_process import ClientProcess, running_clients
from tests.protocols.mcp_tools import McpTools
from tests.protocols.openai_assistants import OpenAIAssistants
from tests.protocols.openai_chat import OpenAIChat
from tests.protocols.openai_responses import OpenAIResponses
from tests.protocols.protocol import Protocol, run_scenario
from tests.protocols.scenarios import Scenario, served_by

import treadle
from treadle import Agent, Runtime
from treadle.testing import Turn

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.needs("postgres"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NAMES = (
    "text",
    "server and client tools at once",
    "approval and denial",
    "disconnect and resume",
)
"""What a reader gets live, what it answers, and what it returns to."""

SECONDS = 0.02
"""Between two deltas: a text that is over before its reader has come is one delta."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def served_elsewhere(url: str, agent: Agent) -> AsyncGenerator[Runtime]:
    """A runtime that drives nothing; another one of the same database drives its threads."""
    async with treadle.open(url, agents=[agent]):
        yield treadle.open(url, agents=[agent], drive=False)


def cases(*protocols: type[Protocol]) -> list[Any]:
    return [
        pytest.param(protocol, scenario, id=f"{protocol.name}, {scenario.name}")
        for protocol in protocols
        for scenario in served_by(protocol)
        if scenario.name in NAMES
    ]


async def play(protocol: Protocol, scenario: Scenario) -> None:
    steps = [
        replace(step, every=SECONDS) if isinstance(step, Turn) else step for step in scenario.steps
    ]
    elsewhere = partial(served_elsewhere, server().url())
    await run_scenario(protocol, replace(scenario, steps=steps), elsewhere)


@pytest.mark.parametrize(
    ("protocol", "scenario"), cases(OpenAIResponses, OpenAIChat, OpenAIAssistants, McpTools)
)
async def test_scenario(protocol: type[Protocol], scenario: Scenario) -> None:
    await play(protocol(), scenario)


@pytest.fixture(scope="module")
def ag_ui_clients() -> Generator[ClientProcess]:
    with running_clients(ag_ui.SCRIPT) as process:
        yield process


@pytest.fixture(scope="module")
def ai_sdk_clients() -> Generator[ClientProcess]:
    with running_clients(ai_sdk.SCRIPT) as process:
        yield process


@pytest.mark.needs("npm clients")
@pytest.mark.parametrize(("protocol", "scenario"), cases(ag_ui.AgUi))
async def test_scenario_of_ag_ui(
    protocol: type[ag_ui.AgUi], scenario: Scenario, ag_ui_clients: ClientProcess
) -> None:
    await play(protocol(ag_ui_clients), scenario)


@pytest.mark.needs("npm clients")
@pytest.mark.parametrize(("protocol", "scenario"), cases(ai_sdk.AiSdk))
async def test_scenario_of_ai_sdk(
    protocol: type[ai_sdk.AiSdk], scenario: Scenario, ai_sdk_clients: ClientProcess
) -> None:
    await play(protocol(ai_sdk_clients), scenario)
