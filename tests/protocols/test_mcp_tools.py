"""The table of scenarios over the MCP server."""

import pytest
from tests.protocols.mcp_tools import McpTools
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import Scenario, served_by

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scenario", served_by(McpTools), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario) -> None:
    await run_scenario(McpTools(), scenario)
