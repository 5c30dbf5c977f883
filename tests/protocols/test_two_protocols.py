"""One thread through several protocols at once: an answer in one shows in the others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.protocols.scenarios import AGENT, pay
from tests.server.serving import Client, serving

from treadle import Agent, Runtime
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

CALLS = [Call("pay", f'{{"amount": {n}}}', f"call_{n}") for n in (1, 2)]


class Shared:
    """A thread, seen by a client of OpenAI and by one of the AI SDK."""

    def __init__(self, client: Client, api: AsyncOpenAI, thread_id: str) -> None:
        self.api = api
        self.thread_id = thread_id
        self._http = client.http

    async def respond(self, given: Any) -> Any:
        return await self.api.responses.create(
            model=AGENT, input=given, conversation=self.thread_id
        )

    async def messages(self) -> list[Any]:
        return (await self._http.get(f"/ai-sdk/{AGENT}/{self.thread_id}/messages")).json()

    async def calls(self) -> dict[str, tuple[str, object]]:
        """Returns the states and outputs of the calls that the chat shows."""
        return {
            part["toolCallId"]: (part["state"], part.get("output"))
            for message in await self.messages()
            for part in message["parts"]
            if "toolCallId" in part
        }

    async def approve_in_chat(self, call_id: str) -> str:
        """Sends the messages of the chat, with the approval; returns the stream."""
        messages = await self.messages()
        (part,) = (one for one in messages[-1]["parts"] if one.get("toolCallId") == call_id)
        part["state"] = "approval-responded"
        part["approval"] = {"id": call_id, "approved": True}
        body = {"id": self.thread_id, "messages": messages, "trigger": "submit-message"}
        response = await self._http.post(f"/ai-sdk/{AGENT}", json=body)
        assert response.status_code == 200, response.text
        return response.text


@asynccontextmanager
async def shared(*steps: Any) -> AsyncGenerator[Shared]:
    agent = Agent(ScriptedModel(list(steps)), name=AGENT, tools=[pay])
    async with serving(Runtime(MemoryJournal(), agents=[agent])) as client:
        thread = await client.call("POST", "/threads", {})
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            yield Shared(client, api, thread["id"])


def approval(asked: Any) -> Any:
    return [{"type": "mcp_approval_response", "approval_request_id": asked.id, "approve": True}]


async def test_responses_and_the_ai_sdk() -> None:
    async with shared(*CALLS, "Both.") as one:
        first = (await one.respond("Pay.")).output[-1]
        assert first.type == "mcp_approval_request"
        assert await one.calls() == {"call_1": ("approval-requested", None)}

        second = (await one.respond(approval(first))).output[-1]
        assert second.type == "mcp_approval_request"
        assert await one.calls() == {
            "call_1": ("output-available", "Paid 1."),
            "call_2": ("approval-requested", None),
        }

        assert "Both." in await one.approve_in_chat("call_2")
        items = [
            item async for item in one.api.conversations.items.list(one.thread_id, order="asc")
        ]
        outputs = [item.output for item in items if item.type == "function_call_output"]
        assert outputs == ["Paid 1.", "Paid 2."]
        # The client that comes too late is told so, and nothing happens twice.
        with pytest.raises(openai.APIStatusError):
            await one.respond(approval(second))
        assert await one.calls() == {
            "call_1": ("output-available", "Paid 1."),
            "call_2": ("output-available", "Paid 2."),
        }


async def test_an_open_completion_goes_on_after_an_approval_in_a_chat() -> None:
    async with shared(CALLS[0], "Done.") as one:
        text = ""

        async def read() -> None:
            nonlocal text
            async for chunk in await one.api.chat.completions.create(
                model=AGENT,
                messages=[{"role": "user", "content": "Pay."}],
                metadata={"thread_id": one.thread_id},
                stream=True,
            ):
                text += chunk.choices[0].delta.content or ""

        reading = asyncio.ensure_future(read())
        for _ in range(100):
            if "call_1" in await one.calls():
                break
            await asyncio.sleep(0.1)
        assert (await one.calls())["call_1"] == ("approval-requested", None)
        assert not reading.done()
        assert "Done." in await one.approve_in_chat("call_1")
        await reading
        assert text == "Done."
