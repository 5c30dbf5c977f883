"""langgraph: its prebuilt agent on langchain-openai's Responses model, streaming messages."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]
from langgraph.prebuilt import create_react_agent  # type: ignore[import-not-found]
from pydantic import SecretStr

from benchmarks.party import MAX_ROUNDS, QUESTION, FirstDelta, note


class LangGraph:
    """A graph for each plan."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._graphs: dict[tuple[str, bool], Any] = {}

    async def read(self, model: str) -> list[str]:
        return [text async for text in self._texts(model, tools=False)]

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        async for text in self._texts(model, tools=False):
            if first is None:
                first = FirstDelta(text, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        return "".join([text async for text in self._texts(model, tools=True)])

    async def _texts(self, model: str, *, tools: bool) -> AsyncIterator[str]:
        messages = {"messages": [("user", QUESTION)]}
        config = {"recursion_limit": 4 * MAX_ROUNDS}
        graph = self._graph(model, tools=tools)
        async for chunk, _ in graph.astream(messages, config, stream_mode="messages"):
            if chunk.type == "AIMessageChunk" and (text := _text(chunk.content)):
                yield text

    def _graph(self, model: str, *, tools: bool) -> Any:
        graph = self._graphs.get((model, tools))
        if graph is None:
            chat = ChatOpenAI(
                model=model,
                base_url=self._url,
                api_key=SecretStr("any"),
                use_responses_api=True,
                streaming=True,
                max_retries=0,
                timeout=None,
            )
            graph = create_react_agent(chat, [note] if tools else [])
            self._graphs[model, tools] = graph
        return graph


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[LangGraph]:
    """langchain keeps its own clients."""
    yield LangGraph(url)
