"""A kill -9 of the server under an open stream of each protocol, with their real clients.

Each page says what its client sees; for Responses see tests/server/test_responses_killed.py.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from tests.protocols import ag_ui, ai_sdk
from tests.protocols.ai_sdk import ChatPerson
from tests.protocols.client_process import ProcessPerson, running_clients
from tests.server.test_process import TEXT, started

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.needs("npm clients"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

HI: Any = [{"role": "user", "content": "Hi."}]
BROKEN = (openai.APIConnectionError, openai.APIError)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Completion:
    """A reader of Chat Completions on a thread."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        self.text = ""

    async def read(self, api: AsyncOpenAI) -> None:
        stream = await api.chat.completions.create(
            model="slow", messages=HI, stream=True, metadata={"thread_id": self.thread_id}
        )
        async for chunk in stream:
            self.text += chunk.choices[0].delta.content or ""


class AssistantsRun:
    """A reader of a run of the Assistants API."""

    text = thread_id = run_id = message_id = ""

    async def read(self, api: AsyncOpenAI) -> None:
        stream = await api.beta.threads.create_and_run(
            assistant_id="slow", thread={"messages": HI}, stream=True
        )
        async for event in stream:
            match event.event:
                case "thread.run.created":
                    self.run_id, self.thread_id = event.data.id, event.data.thread_id
                case "thread.message.delta":
                    self.message_id = event.data.id
                    for part in event.data.delta.content or ():
                        assert part.type == "text"
                        assert part.text is not None
                        self.text += part.text.value or ""


@asynccontextmanager
async def client(port: int) -> AsyncGenerator[AsyncOpenAI]:
    url = f"http://127.0.0.1:{port}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
        yield api


async def test_kill_in_mid_text_and_a_restart(tmp_path: Path) -> None:
    with running_clients(ai_sdk.SCRIPT) as chats, running_clients(ag_ui.SCRIPT) as agents:
        async with started(tmp_path, "--no-auth") as process, client(process.port) as api:
            url = f"http://127.0.0.1:{process.port}"
            thread = (await process.http.post("/threads", json={})).json()["id"]
            completion, run = Completion(thread), AssistantsRun()
            chat, agent = ChatPerson(chats, url, "slow"), ProcessPerson(agents, url, "slow")
            open = [
                asyncio.ensure_future(one)
                for one in (completion.read(api), run.read(api), chat.say("Hi."), agent.say("Hi."))
            ]
            for _ in range(2000):
                lengths = len(completion.text), len(run.text)
                growths = await chat.growths(), await agent.growths()
                if (min(lengths) > 30 and min(growths) > 3) or any(one.done() for one in open):
                    break
                await asyncio.sleep(0.01)
            assert not any(one.done() for one in open), open
            process.process.send_signal(signal.SIGKILL)
            ends = await asyncio.gather(*open, return_exceptions=True)
        # None of them takes what it has for an answer.
        assert isinstance(ends[0], BROKEN)
        assert isinstance(ends[1], BROKEN)
        assert [getattr(seen, "end", seen) for seen in ends[2:]] == ["failed", "failed"]
        for text in (completion.text, run.text):
            assert TEXT.startswith(text)
            assert text != TEXT
        async with (
            started(tmp_path, "--no-auth", port=process.port) as process,
            client(process.port) as api,
        ):
            await asyncio.gather(
                see_completion(api, process.http, completion),
                see_run(api, run),
                see_chat(chat),
                see_agent(agent),
            )
            # Each was said once, and answered once.
            for info in (await process.http.get("/threads")).json()["data"]:
                items = (await process.http.get(f"/threads/{info['id']}/items")).json()["data"]
                assert [one["role"] for one in items] == ["user", "assistant"], items


async def see_completion(api: AsyncOpenAI, http: Any, completion: Completion) -> None:
    """It cannot be continued; on a thread, the run does, and nothing else begins meanwhile."""
    runs = (await http.get(f"/threads/{completion.thread_id}/runs")).json()["data"]
    with pytest.raises(openai.ConflictError):
        await completion.read(api)
    result = (await http.get(f"/runs/{runs[0]['id']}/result?wait=20")).json()
    assert result["output"] == TEXT


async def see_run(api: AsyncOpenAI, run: AssistantsRun) -> None:
    """The run is polled, and the message that broke off is not among the messages."""
    threads = api.beta.threads
    done = await threads.runs.poll(run.run_id, thread_id=run.thread_id)
    assert done.status == "completed"
    answer, _ = (await threads.messages.list(run.thread_id)).data
    assert answer.id != run.message_id
    (content,) = answer.content
    assert content.type == "text"
    assert content.text.value == TEXT


async def see_chat(person: ChatPerson) -> None:
    """The client gets an error of the network, and resumes."""
    seen = await person.resume()
    assert (seen.end, seen.texts) == ("completed", [TEXT])


async def see_agent(person: ProcessPerson) -> None:
    """The same request shows the run from its beginning, and takes back what the client has."""
    seen = await person.resume()
    assert (seen.end, seen.texts) == ("completed", [TEXT])
