"""The table of scenarios over the UI message stream, and what only its clients do."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.families import NPM, node
from tests.protocols.ai_sdk import SCRIPT, AiSdk, ChatPerson
from tests.protocols.client_process import ClientProcess, running_clients
from tests.protocols.protocol import run_scenario
from tests.protocols.scenarios import LONG, WORDS, Scenario, look_up, pay, served_by, weather
from tests.server.serving import Client, serving

from treadle import Agent, Runtime
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, ScriptedModel, Text, Turn

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-ai-sdk.md"

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("npm clients")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def clients() -> Generator[ClientProcess]:
    with running_clients(SCRIPT) as process:
        yield process


@pytest.mark.parametrize("scenario", served_by(AiSdk), ids=lambda one: one.name)
async def test_scenario(scenario: Scenario, clients: ClientProcess) -> None:
    await run_scenario(AiSdk(clients), scenario)


@asynccontextmanager
async def served(*steps: Any, name: str = "helper") -> AsyncGenerator[Client]:
    agent = Agent(ScriptedModel(list(steps)), name=name, tools=[look_up, pay, weather])
    async with serving(Runtime(MemoryJournal(), agents=[agent])) as client:
        yield client


async def ended(client: Client) -> None:
    """Waits for the end of the only run."""
    (thread,) = (await client.call("GET", "/threads"))["data"]
    (run,) = (await client.call("GET", f"/threads/{thread['id']}/runs"))["data"]
    await client.call("GET", f"/runs/{run['id']}/result?wait=20")


async def test_a_client_sends_nothing_on_its_own(clients: ClientProcess) -> None:
    rome, asked = Call("weather", '{"city": "Rome"}'), Call("look_up", '{"word": "a"}', "call_a")
    async with served(rome, [rome, asked], "Done.") as client:
        person = ChatPerson(clients, client, "helper")
        await person.say("Hi.")
        assert person.more["called"] == ["call_a"]
        assert person.more["requests"] == ["POST "]
        await person.answer({"call_a": "A."})
        await person.resume()
        assert person.more["called"] == ["call_a"]
        assert [one.partition(" ")[0] for one in person.more["requests"]] == ["POST", "POST", "GET"]


async def test_a_cancelled_call_of_the_client_is_not_sent_again(clients: ClientProcess) -> None:
    async with served(Call("look_up", '{"word": "a"}', "call_a"), "Fine.") as client:
        person = ChatPerson(clients, client, "helper")
        seen = await person.say("Hi.")
        assert seen.end == "waits"
        await client.http.post(f"/ai-sdk/helper/{person.more['chat']}/stop")
        await ended(client)
        seen = await person.ask("load")
        assert seen.end == "cancelled"
        seen = await person.say("Never mind.")
        assert (seen.texts[-1], seen.end) == ("Fine.", "completed")
        assert person.more["requests"] == ["POST ", "POST "]


async def test_a_page_that_is_loaded_again_decides(clients: ClientProcess) -> None:
    async with served(Call("pay", '{"amount": 1}', "call_1"), "Paid.") as client:
        person = ChatPerson(clients, client, "helper")
        await person.say("Pay.")
        tabs = [ChatPerson(clients, client, "helper", chat=person.more["chat"]) for _ in range(2)]
        for tab in tabs:
            seen = await tab.ask("load")
            assert seen.end == "waits"
        await tabs[0].resume()
        decided = await asyncio.gather(
            tabs[0].decide({"call_1": True}),
            tabs[1].decide({"call_1": False}),
            return_exceptions=True,
        )
        # One was first. The other is told so, or shown what came of it.
        late = [seen for seen in decided if not isinstance(seen, BaseException) and seen.error]
        assert all("already" in seen.error for seen in late)
        assert len(late) < 2
        for tab in (person, *tabs):
            seen = await tab.ask("load")
            assert (seen.end, seen.texts) == ("completed", ["Paid."])
            assert seen.calls[0].output in {"Paid 1.", "The call was denied."}


async def test_another_answer_and_an_edit(clients: ClientProcess) -> None:
    async with served("One.", "Two.", "Three.", "Four.") as client:
        person = ChatPerson(clients, client, "helper")
        await person.say("First.")
        await person.say("Second.")
        assert (await person.ask("regenerate")).texts == ["One.", "Three."]
        message = person.more["messages"][-2]["id"]
        assert (await person.ask("edit", message=message, text="Other.")).texts == ["One.", "Four."]
        other = ChatPerson(clients, client, "helper", chat=person.more["chat"])
        assert (await other.ask("load")).texts == ["One.", "Four."]
        seen = await other.ask("edit", message=other.more["messages"][0]["id"], text="Early.")
        assert (seen.end, "continued after" in seen.error) == ("failed", True)


async def test_connections_that_break_anywhere(clients: ClientProcess) -> None:
    draw = random.Random(1)
    turns = [
        Turn((Text("Let me see. ", 3), Call("weather", '{"city": "Rome"}')), every=0.01),
        Turn((Text(LONG, len(WORDS)),), every=0.02),
    ]
    async with served(*turns) as client:
        person = ChatPerson(clients, client, "helper")
        seen = await person.say("Hi.", leave_after=1)
        for _ in range(12):
            if seen.end == "completed":
                break
            seen = await person.ask("resume", leave_after=draw.randrange(1, len(LONG)))
        seen = await person.resume()
        # The run may have ended while no client was there: then the messages are loaded.
        if seen.end != "completed" or seen.texts[-1] != LONG:
            await ended(client)
            seen = await person.ask("load")
        assert seen.texts == ["Let me see. ", LONG]
        assert [call.output for call in seen.calls] == ["Sunny in Rome."]


async def test_the_page_of_the_documentation() -> None:
    blocks = re.findall(r"```javascript\n(.*?)```", PAGE.read_text(), re.DOTALL)
    async with served([Text("391")], name="demo") as client:
        program = blocks[0].replace("http://127.0.0.1:8000", str(client.http.base_url).rstrip("/"))
        assert await run_node(program) == "391\n"
    for block in blocks[1:]:
        await run_node(f"({block})" if block.startswith("{") else block, "--check", "-")


async def run_node(program: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(node()),
        "--input-type=module",
        *arguments,
        cwd=NPM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate(program.encode())
    assert process.returncode == 0
    return printed.decode()
