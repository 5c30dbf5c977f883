"""A long chat: it is summarized into a memory block, and finds again what has left the window.

python examples/long_chat.py
"""

import asyncio
import json

import treadle
from treadle.memory import Block, Summarize, archive_tools, block_tools
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel

MESSAGES = 60


def summary(request: ModelRequest) -> str:
    """A model that writes a summary."""
    return "They talked about the house. " * 4


def last_output(request: ModelRequest) -> str:
    """A model that reports what its search found."""
    outputs = [item for item in request.items if isinstance(item, treadle.FunctionCallOutput)]
    return f"I found: {outputs[-1].text}"


note = {"text": "The boiler in the cellar is from 1987.", "tags": ["house"]}
model = ScriptedModel(
    [
        Call("archive_insert", json.dumps(note)),
        Call("memory_append", json.dumps({"label": "human", "text": "Has a house."})),
        "I will remember that.",
        *["I see. " * 60] * MESSAGES,
        Call("archive_search", json.dumps({"query": "boiler"})),
        last_output,
        Call("conversation_search", json.dumps({"query": "boiler", "role": "user"})),
        last_output,
    ]
)
agent = treadle.Agent(
    model,
    name="friend",
    tools=[*block_tools("memory_append"), *archive_tools()],
    blocks=[Block("human", "Name: Ada"), Block("so_far", limit=2_000)],
    context=Summarize(max_tokens=4_000, model=ScriptedModel([summary] * MESSAGES), block="so_far"),
)


async def main() -> None:
    """Talks for a long time, then asks about the beginning."""
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, owner="ada")
        for text in (
            "The boiler in my cellar is from 1987.",
            *(f"About room {number}: {'it has a window. ' * 20}" for number in range(MESSAGES)),
            "How old is the boiler?",
            "When did I tell you about the boiler?",
        ):
            run = await thread.send(text)
            answer = await run.text()
            if "boiler" in text:
                print(f"> {text}\n{answer}")
        events = await thread.events(limit=10_000)
        compactions = [event for event in events if event.type == "context.compacted"]
        print(f"{len(compactions)} compactions")
        sent, kept = len(model.requests[-1].items), len(await thread.history())
        print(f"the last request had {sent} of {kept} items")
        for block in await thread.memory.blocks():
            print(f"{block.label}: {block.value.splitlines()[-1][:60]}")
        print(f"{(await thread.usage()).usage.requests} requests")


if __name__ == "__main__":
    asyncio.run(main())
