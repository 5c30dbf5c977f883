"""The table of scenarios over Chat Completions."""

import pytest
from tests.protocols.openai_chat import OpenAIChat
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import Scenario, served_by

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scenario", served_by(OpenAIChat), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario) -> None:
    await run_scenario(OpenAIChat(), scenario)
