"""A dialogue with a model that calls tools, built only from jobs and handlers.

    Chat ──► Response ──┬──► speak            text for the user
      ▲                 └──► act ──┬──► use   tool calls
      │                            └──► use
      └────────── outputs ─────────┘

A round has settled when all of this has; then the user is asked for the next line.

python examples/dialogue.py          (Ctrl-D ends it)
"""

import os
import time
from asyncio import Queue
from collections.abc import AsyncIterator
from dataclasses import dataclass

import treadle
from treadle.jobs import Commander, Handler, Job, Node, blocking, handler
from treadle.models import (
    CacheWritten,
    ItemFinished,
    ItemsAdapted,
    ModelEvent,
    ModelRequest,
    ResponseFinished,
    StreamedFields,
)

FORECAST = {"Paris": "18 °C and sunny", "Rome": "24 °C and clear"}


@treadle.tool
def get_weather(city: str) -> str:
    """Returns the weather in a city.

    Args:
        city: Name of the city.
    """
    time.sleep(1)  # stands for a slow service
    return FORECAST.get(city, "unknown")


MODEL = treadle.resolve_model(os.environ.get("TREADLE_MODEL", "demo"))
TOOLS = treadle.Toolset([get_weather], to_user=True)


@dataclass
class Chat(Job[None]):
    """Sends the context to the model."""

    context: list[treadle.Item]

    async def task(self) -> None:
        request = ModelRequest(items=tuple(self.context), tools=TOOLS.schemas)
        await self.submit(Response(self.context, MODEL.stream(request)))


@dataclass
class Response(Job[None]):
    """Splits the stream into text for the user and tool calls."""

    context: list[treadle.Item]
    stream: AsyncIterator[ModelEvent]

    async def task(self) -> None:
        words, calls = Queue[str | None](64), Queue[treadle.FunctionCall | None](64)
        self.call(speak(words))
        self.call(act(calls, self.context))
        async for event in with_to_user(self.stream):
            match event:
                case treadle.TextDelta(delta=text) | treadle.ToUserDelta(delta=text):
                    await words.put(text)
                case ItemFinished(item=item):
                    await words.put("\n")
                    self.context.append(item)
                    if isinstance(item, treadle.FunctionCall):
                        await calls.put(item)
                case _:
                    pass
        await words.put(None)
        await calls.put(None)


async def with_to_user(stream: AsyncIterator[ModelEvent]) -> AsyncIterator[ModelEvent]:
    """Adds the `to_user` text of calls as it grows."""
    fields = StreamedFields(TOOLS.streamed.get)
    async for event in stream:
        yield event
        if not isinstance(event, CacheWritten | ItemFinished | ItemsAdapted | ResponseFinished):
            for growth in fields.feed(event):
                yield growth


@handler
async def speak(node: Handler[None], words: Queue[str | None]) -> None:
    """Prints the text of the model as it arrives."""
    while (text := await words.get()) is not None:
        print(text, end="", flush=True)


@handler
async def act(
    node: Handler[None], calls: Queue[treadle.FunctionCall | None], context: list[treadle.Item]
) -> None:
    """Calls each tool as soon as its call is complete; the outputs go to the model."""
    uses: list[Node[treadle.FunctionCallOutput]] = []
    while (call := await calls.get()) is not None:
        uses.append(node.call(use(call)))
    if uses:
        context.extend([await one for one in uses])
        await node.submit(Chat(context))


@handler
async def use(
    node: Handler[treadle.FunctionCallOutput], call: treadle.FunctionCall
) -> treadle.FunctionCallOutput:
    """Calls a tool in a worker thread, because it may block."""
    prepared = treadle.prepare_call(TOOLS, call)
    if isinstance(prepared, treadle.RefusedCall):
        output = prepared.problem
    else:
        print(f"[{call.name} {prepared.arguments}]")
        output = str(await blocking(prepared.tool, **prepared.arguments))
    print(f"[{call.name}: {output}]")
    return treadle.FunctionCallOutput(call.call_id, output)


async def ask(done: Node[None], context: list[treadle.Item]) -> None:
    """Asks the user for the next line, and starts a round with it."""
    if done.state != "completed":
        return  # the round failed, or the program is ending
    line = ""
    try:
        while not line.strip():
            line = await blocking(input, "> ")
    except EOFError:
        print()
        return
    context.append(treadle.user_message(line))
    await done.submit(new_round(context), parent=done.root)


def new_round(context: list[treadle.Item]) -> Node[None]:
    """Returns a round that asks for the next line when it has settled."""
    return Chat(context).on("settled", ask, context, inject_node=True)


if __name__ == "__main__":
    try:
        Commander().run(new_round([treadle.user_message("Hello!")]))
    except KeyboardInterrupt:
        print()
