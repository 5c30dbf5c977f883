"""The Responses API with the client of OpenAI: each message continues the response before it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import openai
from openai import AsyncOpenAI
from tests.protocols.protocol import ClientTool, File, Person, Protocol, Seen, SeenCall
from tests.server.serving import Client


class ResponsesPerson(Person):
    """Streams each answer, and reads it again from the server after a cut."""

    def __init__(self, api: AsyncOpenAI, agent: str, tools: Sequence[ClientTool]) -> None:
        self._api = api
        self._agent = agent
        self._tools: list[Any] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": True,
            }
            for tool in tools
        ]
        self._seen = Seen()
        self._previous: str | None = None
        self._last = 0  # the number of the last event
        self._texts: dict[str, str] = {}  # of messages that are not complete
        self._answered: dict[str, str] = {}

    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        content: list[Any] = [{"type": "input_text", "text": text}, *map(_part, files)]
        message = {"role": "user", "content": content}
        return await self._send([message], stop_after, leave_after)

    async def answer(self, outputs: Mapping[str, str]) -> Seen:
        for call in self._seen.calls:
            call.output = outputs.get(call.id, call.output)
        self._seen.order += ["output"] * len(outputs)
        return await self._send(
            [
                {"type": "function_call_output", "call_id": id, "output": output}
                for id, output in outputs.items()
            ]
        )

    async def decide(self, approved: Mapping[str, bool]) -> Seen:
        return await self._send(
            [
                {"type": "mcp_approval_response", "approval_request_id": id, "approve": approve}
                for id, approve in approved.items()
            ]
        )

    async def resume(self) -> Seen:
        assert self._previous is not None
        stream = await self._api.responses.retrieve(
            self._previous, stream=True, starting_after=self._last
        )
        await self._read(stream, 0, 0)
        return self._seen

    async def _send(self, given: Any, stop_after: int = 0, leave_after: int = 0) -> Seen:
        try:
            stream = await self._api.responses.create(
                model=self._agent,
                input=given,
                tools=self._tools,
                stream=True,
                **({"previous_response_id": self._previous} if self._previous else {}),
            )
            await self._read(stream, stop_after, leave_after)
        except openai.APIError as error:
            self._seen.end = "failed"
            self._seen.error = error.message
        return self._seen

    async def _read(self, stream: Any, stop_after: int, leave_after: int) -> None:
        seen, texts = self._seen, self._texts
        async for event in stream:
            self._last = event.sequence_number
            if event.type == "response.created":
                self._previous = event.response.id
            elif event.type == "response.output_text.delta":
                texts[event.item_id] = texts.get(event.item_id, "") + event.delta
                seen.growths += 1
                count = sum(map(len, texts.values()))
                if stop_after and count >= stop_after:
                    stop_after = 0
                    assert self._previous is not None
                    await self._api.responses.cancel(self._previous)
                elif leave_after and count >= leave_after:
                    seen.end = "cut"
                    await stream.close()
                    return
            elif event.type == "response.output_item.added" and event.item.type == "mcp_call":
                seen.order.append("call")
            elif event.type == "response.output_item.done":
                self._take(event.item)
            elif event.type == "response.failed":
                seen.end = "cancelled" if event.response.status == "cancelled" else "failed"
            elif event.type in {"response.completed", "response.incomplete"}:
                waits = any(seen.waiting(kind) for kind in ("output", "approval"))
                seen.end = "waits" if waits else event.response.status

    def _take(self, item: Any) -> None:
        seen = self._seen
        if item.type == "message" and item.status == "completed":
            text = "".join(getattr(part, "text", "") or part.refusal for part in item.content)
            streamed = self._texts.pop(item.id, "")
            assert streamed in {text, ""}
            is_said = item.id.endswith("_said")
            seen.order.append("said" if is_said else "text")
            (seen.said if is_said else seen.texts).append(text)
        elif item.type == "reasoning":
            seen.reasoning.append("".join(part.text for part in item.summary))
        elif item.type == "function_call":
            seen.order.append("call")
            seen.calls.append(SeenCall(item.call_id, item.name, item.arguments, "output"))
        elif item.type == "mcp_approval_request":
            seen.calls.append(SeenCall(item.id, item.name, item.arguments, "approval"))
        elif item.type == "mcp_call":
            seen.order.append("output")
            output = item.output if item.status == "completed" else item.error.content[0]["text"]
            if item.approval_request_id:
                (call,) = (call for call in seen.calls if call.id == item.approval_request_id)
                call.output = output
            else:
                seen.calls.append(SeenCall(item.id, item.name, item.arguments, output=output))


def _part(file: File) -> dict[str, Any]:
    if file.media_type.startswith("image/"):
        return {"type": "input_image", "image_url": file.url, "detail": "auto"}
    return {"type": "input_file", "filename": file.name, "file_data": file.url}


class OpenAIResponses(Protocol):
    """`client.responses`."""

    name = "OpenAI Responses"

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[ResponsesPerson]:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            yield ResponsesPerson(api, agent, tools)
