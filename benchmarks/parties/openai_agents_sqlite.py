"""openai-agents with its `SQLiteSession` in a file."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from benchmarks.party import QUESTION, note


class OpenAIAgentsSQLite:
    """One agent, and one session that grows."""

    def __init__(self, client: AsyncOpenAI, session: SQLiteSession) -> None:
        self._client = client
        self._session = session
        self._agent: Agent | None = None

    async def turn(self, model: str) -> str:
        if self._agent is None:
            chat = OpenAIResponsesModel(model=model, openai_client=self._client)
            self._agent = Agent(name="bench", model=chat, tools=[function_tool(note)])
        result = Runner.run_streamed(self._agent, QUESTION, session=self._session)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[OpenAIAgentsSQLite]:
    """Opens one client and one session."""
    set_tracing_disabled(True)
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        session = SQLiteSession("bench", Path(folder, "session.db"))
        async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=None) as client:
            yield OpenAIAgentsSQLite(client, session)
