"""LangChain and LiteLLM as clients of Chat Completions, in an environment of their own."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.families import CLIENTS
from tests.server.serving import serving

from treadle import Agent, Message, Runtime, Usage, tool
from treadle.errors import BadRequest
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = [pytest.mark.anyio, pytest.mark.needs("python clients")]

LOOK = Call("look", '{"to_user": "I look.", "at": "it"}')
ASK = Call("ask", '{"of": "a"}', "c1")
STREAMED = Turn((Text("Hello, you there."),), every=0.001, usage=Usage(3, 4))


@tool(to_user=True)
async def look(at: str) -> str:
    """Looks."""
    return f"{at} is there."


async def talk(worker: str, turns: Sequence[Any]) -> tuple[Any, ScriptedModel, list[str]]:
    """Returns what a worker got, the model, and what the thread has that it talks on."""
    model = ScriptedModel([*turns])
    allowed = ("tools", "output", "extra_instructions")
    agent = Agent(model, name="helper", tools=[look], overridable=allowed)
    async with serving(Runtime(MemoryJournal(), agents=[agent])) as client:
        thread_id = await client.thread()
        process = await asyncio.create_subprocess_exec(
            CLIENTS / ".venv/bin/python",
            CLIENTS / worker,
            str(client.http.base_url).rstrip("/"),
            thread_id,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        thread = await client.app.services.runtime.connect(thread_id)
        said = [item.text for item in await thread.history() if isinstance(item, Message)]
        return json.loads(printed), model, said


async def test_langchain() -> None:
    cold = BadRequest("The model has a cold.")
    turns = [[LOOK], "There.", STREAMED, [ASK], "Answered.", '{"name": "Rome"}', "A dot."]
    got, model, said = await talk("langchain_worker.py", [*turns, "First.", "Second.", cold])
    assert got.pop("chunks") > 3
    assert "The model has a cold." in got.pop("error")
    assert got == {
        "text": "I look.\n\nThere.",
        "streamed": "Hello, you there.",
        "tokens": 7,
        "calls": [["ask", {"of": "a"}]],
        "answered": "Answered.",
        "parsed": "Rome",
        "seen": "A dot.",
        "bound": ["First.", "Second."],
    }
    assert model.requests[2].instructions == "Be short."
    kinds = [item.__class__.__name__ for item in model.requests[4].items]
    assert kinds == ["Message", "FunctionCall", "FunctionCallOutput"]
    assert said == ["One.", "First.", "Two.", "Second."]


async def test_litellm() -> None:
    cold = BadRequest("The model has a cold.")
    turns = [[LOOK], "There.", STREAMED, [ASK], "Answered.", "First.", "Second.", cold]
    got, _, said = await talk("litellm_worker.py", turns)
    assert got.pop("chunks") > 3
    assert "The model has a cold." in got.pop("error")
    assert got == {
        "text": "I look.\n\nThere.",
        "streamed": "Hello, you there.",
        "tokens": 7,
        "calls": [["ask", {"of": "a"}]],
        "answered": "Answered.",
        "bound": ["First.", "Second."],
    }
    assert said == ["Hi.", "First.", "Hi.", "Second."]
