"""The table of scenarios over AG-UI."""

from collections.abc import Generator

import pytest
from tests.protocols.ag_ui import SCRIPT, AgUi
from tests.protocols.client_process import ClientProcess, ProcessPerson, running_clients
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import AGENT, PIXEL, Scenario, Weather, pay, served_by
from tests.server.serving import serving

from treadle import Agent, InputImage, Runtime, tool
from treadle.journal.memory import MemoryJournal
from treadle.memory import Block, block_tools
from treadle.testing import Call, Reasoning, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("npm clients")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def clients() -> Generator[ClientProcess]:
    with running_clients(SCRIPT) as process:
        yield process


@pytest.mark.parametrize("scenario", served_by(AgUi), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario, clients: ClientProcess) -> None:
    await run_scenario(AgUi(clients), scenario)


@tool
async def report() -> InputImage:
    """Draws."""
    return InputImage(PIXEL.url)


async def test_what_the_table_has_not(clients: ClientProcess) -> None:
    """State, other agents with an approval, parts in a result, the result, with the real client."""
    payer = Agent(
        ScriptedModel([[Reasoning("Hm."), Call("pay", '{"amount": 1}', "call_p")], "Paid."]),
        name="payer",
        tools=[pay],
    )
    turns = [
        Call("memory_append", '{"label": "human", "text": "Drinks tea."}'),
        [Call("payer", '{"message": "Pay."}', "call_1"), Call("report", "{}", "call_2")],
        '{"city": "Rome", "degrees": 30}',
    ]
    agent = Agent(
        ScriptedModel(turns),
        name=AGENT,
        output=Weather,
        blocks=[Block("human", "Ada")],
        tools=[*block_tools(), payer.as_tool(), report],
    )
    async with serving(Runtime(MemoryJournal(), agents=[agent])) as client:
        person = ProcessPerson(clients, client, AGENT)
        message = {"id": "u1", "role": "user", "content": "Hi."}
        asked = await person.get("ask", add=[message], state={"theme": "dark"})
        assert asked["state"] == {"theme": "dark", "memory": {"human": "Ada\nDrinks tea."}}
        (interrupt,) = asked["pendingInterrupts"]
        assert [one["content"] for one in asked["messages"] if one["role"] == "reasoning"] == [
            "Hm."
        ]
        entry = {
            "interruptId": interrupt["id"],
            "status": "resolved",
            "payload": {"approved": True, "editedArgs": {"amount": 2}},
        }
        done = await person.get("ask", run={"resume": [entry]})
        assert (done["failed"], done["warnings"], done["pendingInterrupts"]) == (None, [], [])
        assert done["result"] == {"city": "Rome", "degrees": 30}
        outputs = {
            one["toolCallId"]: one["content"] for one in done["messages"] if one["role"] == "tool"
        }
        assert outputs["call_p"] == "Paid 2."
        assert outputs["call_1"] == "Paid."
        assert outputs["call_2"][0]["type"] == "image"
        ids = [one["id"] for one in done["messages"]]
        assert len(ids) == len(set(ids))
        owned = [one for one in done["messages"] if one.get("subagentRunId")]
        assert [one["role"] for one in owned] == ["reasoning", "assistant", "tool", "assistant"]
