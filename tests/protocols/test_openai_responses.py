"""The table of scenarios over the Responses API."""

import pytest
from tests.protocols.openai_responses import OpenAIResponses
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import Scenario, served_by

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scenario", served_by(OpenAIResponses), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario) -> None:
    await run_scenario(OpenAIResponses(), scenario)
