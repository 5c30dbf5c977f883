"""The table of scenarios over the Assistants API."""

import pytest
from tests.protocols.openai_assistants import OpenAIAssistants
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import Scenario, served_by

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("scenario", served_by(OpenAIAssistants), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario) -> None:
    await run_scenario(OpenAIAssistants(), scenario)
