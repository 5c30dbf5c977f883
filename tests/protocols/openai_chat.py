"""Chat Completions with the client of OpenAI: a conversation on a thread that the header names."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import openai
from openai import AsyncOpenAI
from tests.protocols.protocol import ClientTool, File, Person, Protocol, Seen, SeenCall
from tests.server.serving import Client

BLANK_LINE = "\n\n"


class ChatPerson(Person):
    """Streams each answer; sends the whole conversation each time, as front-ends do."""

    def __init__(
        self, api: AsyncOpenAI, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> None:
        self._api = api
        self._client = client
        self._agent = agent
        self._tools: list[Any] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": True,
                },
            }
            for tool in tools
        ]
        self._seen = Seen()
        self._messages: list[Any] = []
        self._thread: dict[str, str] = {}

    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        assert not leave_after
        content: list[Any] = [{"type": "text", "text": text}, *map(_part, files)]
        self._messages.append({"role": "user", "content": content})
        return await self._send(stop_after)

    async def answer(self, outputs: Mapping[str, str]) -> Seen:
        for call in self._seen.calls:
            call.output = outputs.get(call.id, call.output)
        self._messages += [
            {"role": "tool", "tool_call_id": id, "content": output}
            for id, output in outputs.items()
        ]
        return await self._send()

    async def _send(self, stop_after: int = 0) -> Seen:
        seen, message = self._seen, {"role": "assistant", "content": ""}
        try:
            raw = await self._api.chat.completions.with_raw_response.create(
                model=self._agent,
                messages=self._messages,
                tools=self._tools,
                stream=True,
                store=True,
                extra_headers=self._thread,
            )
            self._thread = {"x-thread-id": raw.headers["x-thread-id"]}
            await self._read(raw.parse(), message, raw.headers["x-run-id"], stop_after)
        except openai.APIError as error:
            seen.end = "failed"
            seen.error = error.message
            # What was sent of the last paragraph is void.
            message["content"] = message["content"].rpartition(BLANK_LINE)[0]
        if message["content"]:
            seen.texts += message["content"].split(BLANK_LINE)
        self._messages.append(message)
        return seen

    async def _read(
        self, stream: Any, message: dict[str, Any], run_id: str, stop_after: int
    ) -> None:
        seen = self._seen
        async for chunk in stream:
            (choice,) = chunk.choices
            delta = choice.delta
            if growth := delta.content or delta.refusal:
                message["content"] += growth
                seen.growths += 1
            if stop_after and len(message["content"]) >= stop_after:
                await stream.close()
                await self._client.call("GET", f"/runs/{run_id}/result?wait=60")
                seen.end = "cancelled"
                message["content"] = ""
                return
            for call in delta.tool_calls or ():
                message.setdefault("tool_calls", []).append(call.to_dict())
                name, arguments = call.function.name, call.function.arguments
                seen.calls.append(SeenCall(call.id, name, arguments, "output"))
            match choice.finish_reason:
                case None:
                    pass
                case "tool_calls":
                    seen.end = "waits"
                case "stop":
                    seen.end = "completed"
                case _:
                    seen.end = "incomplete"


def _part(file: File) -> dict[str, Any]:
    if file.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": file.url}}
    return {"type": "file", "file": {"filename": file.name, "file_data": file.url}}


class OpenAIChat(Protocol):
    """`client.chat.completions`."""

    name = "OpenAI Chat Completions"
    shows: ClassVar = frozenset({"ends"})
    lacks: ClassVar = {
        "approval and denial": "Approvals are given elsewhere, while the answer waits.",
        "growing to_user": "It is a part of the content, as the answer is.",
        "disconnect and resume": "A client that leaves stops the answer.",
    }

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[ChatPerson]:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            yield ChatPerson(api, client, agent, tools)
