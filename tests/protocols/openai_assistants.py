"""The Assistants API with the client of OpenAI: a run answers messages that were added."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import openai
from openai import AsyncOpenAI
from tests.protocols.protocol import ClientTool, File, Person, Protocol, Seen, SeenCall
from tests.server.serving import Client


class AssistantsPerson(Person):
    """Streams each run."""

    def __init__(self, api: AsyncOpenAI, agent: str, tools: Sequence[ClientTool]) -> None:
        self._threads = api.beta.threads
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
        self._run: Any = None
        self._thread_id = ""

    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        assert not leave_after
        content: list[Any] = [{"type": "text", "text": text}]
        content += [{"type": "image_url", "image_url": {"url": file.url}} for file in files]
        message: Any = {"role": "user", "content": content}
        options: Any = {"assistant_id": self._agent, "tools": self._tools, "stream": True}
        try:
            if not self._thread_id:
                stream = await self._threads.create_and_run(
                    thread={"messages": [message]}, **options
                )
            else:
                await self._threads.messages.create(self._thread_id, **message)
                stream = await self._threads.runs.create(self._thread_id, **options)
            await self._read(stream, stop_after)
        except openai.APIError as error:
            self._seen.end = "failed"
            self._seen.error = error.message
        return self._seen

    async def answer(self, outputs: Mapping[str, str]) -> Seen:
        for call in self._seen.calls:
            call.output = outputs.get(call.id, call.output)
        stream = await self._threads.runs.submit_tool_outputs(
            self._run.id,
            thread_id=self._thread_id,
            tool_outputs=[{"tool_call_id": id, "output": one} for id, one in outputs.items()],
            stream=True,
        )
        await self._read(stream, 0)
        return self._seen

    async def _read(self, stream: Any, stop_after: int) -> None:
        seen, text = self._seen, ""
        async for event in stream:
            match event.event:
                case "thread.created":
                    self._thread_id = event.data.id
                case "thread.message.delta":
                    for part in event.data.delta.content:
                        text += part.text.value if part.type == "text" else ""
                        seen.growths += 1
                    if stop_after and len(text) >= stop_after:
                        stop_after = 0
                        await self._threads.runs.cancel(self._run.id, thread_id=self._thread_id)
                case "thread.message.completed":
                    (content,) = event.data.content
                    whole = content.text.value if content.type == "text" else content.refusal
                    is_said = event.data.id.endswith("_said")
                    seen.order.append("said" if is_said else "text")
                    (seen.said if is_said else seen.texts).append(whole)
                case "thread.run.step.delta":
                    (call,) = event.data.delta.step_details.tool_calls
                    function = call.function
                    seen.calls.append(SeenCall(call.id, function.name, function.arguments))
                case "thread.run.step.completed" if event.data.type == "tool_calls":
                    (call,) = event.data.step_details.tool_calls
                    self._call(call.id).output = call.function.output
                    seen.order.append("output")
                case str() as kind if kind.startswith("thread.run.") and "step" not in kind:
                    self._run = event.data
                    self._end(event.data)

    def _call(self, id: str) -> SeenCall:
        return next(call for call in self._seen.calls if call.id == id)

    def _end(self, run: Any) -> None:
        seen = self._seen
        match run.status:
            case "requires_action":
                seen.end = "waits"
                for call in run.required_action.submit_tool_outputs.tool_calls:
                    self._call(call.id).awaits = "output"
            case "failed":
                seen.end, seen.error = "failed", run.last_error.message
            case "completed" | "incomplete" | "cancelled":
                seen.end = run.status


class OpenAIAssistants(Protocol):
    """`client.beta.threads`."""

    name = "OpenAI Assistants"
    shows: ClassVar = frozenset({"said", "calls", "ends"})
    lacks: ClassVar = {
        "approval and denial": "Approvals are given elsewhere, while the run is in progress.",
        "disconnect and resume": "A stream cannot be continued; the run is polled.",
        "PDF": "Messages have no files but images.",
    }

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[AssistantsPerson]:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            yield AssistantsPerson(api, agent, tools)
