"""langgraph with its `AsyncSqliteSaver` in a file."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # type: ignore[import-not-found]
from langgraph.prebuilt import create_react_agent  # type: ignore[import-not-found]
from pydantic import SecretStr

from benchmarks.parties.langgraph import _text
from benchmarks.party import QUESTION, note


class LangGraphSQLite:
    """One graph, and one thread that grows."""

    def __init__(self, url: str, saver: AsyncSqliteSaver) -> None:
        self._url = url
        self._saver = saver
        self._graph: Any = None

    async def turn(self, model: str) -> str:
        if self._graph is None:
            chat = ChatOpenAI(
                model=model,
                base_url=self._url,
                api_key=SecretStr("any"),
                use_responses_api=True,
                streaming=True,
                max_retries=0,
                timeout=None,
            )
            self._graph = create_react_agent(chat, [note], checkpointer=self._saver)
        config = {"configurable": {"thread_id": "bench"}}
        messages = {"messages": [("user", QUESTION)]}
        text = ""
        async for chunk, _ in self._graph.astream(messages, config, stream_mode="messages"):
            if chunk.type == "AIMessageChunk":
                text += _text(chunk.content)
        return text


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[LangGraphSQLite]:
    """Opens one saver."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        async with AsyncSqliteSaver.from_conn_string(str(Path(folder, "graph.db"))) as saver:
            yield LangGraphSQLite(url, saver)
