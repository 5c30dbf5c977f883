"""The table of scenarios over AG-UI."""

import pytest
from tests.protocols.ag_ui import AgUi
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import Scenario, served_by

pytestmark = [pytest.mark.anyio, pytest.mark.needs("npm clients")]


@pytest.mark.parametrize("scenario", served_by(AgUi), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario) -> None:
    await run_scenario(AgUi(), scenario)
