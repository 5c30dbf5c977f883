"""An agent stores a note, and finds it in another conversation.

python examples/recall.py
"""

import asyncio
import json

import treadle
from treadle.memory import HashingEmbedder, archive_tools
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel


def answer(request: ModelRequest) -> str:
    """A model that prints the output of its search."""
    outputs = [item for item in request.items if isinstance(item, treadle.FunctionCallOutput)]
    return f"I found:\n{outputs[-1].text}"


model = ScriptedModel(
    [
        Call("archive_insert", json.dumps({"text": "Ada is allergic to hazelnuts."})),
        "I will remember that.",
        Call("archive_search", json.dumps({"query": "allergies of Ada", "limit": 3})),
        answer,
        Call("conversation_search", json.dumps({"query": "hazelnut", "role": "user"})),
        answer,
    ]
)
agent = treadle.Agent(model, name="cook", tools=archive_tools())


async def main() -> None:
    """Three conversations of one owner."""
    said = (
        "I must not eat hazelnuts. Ada.",
        "What should I leave out of the cake for Ada?",
        "When did I tell you of hazelnuts?",
    )
    async with treadle.open(agents=[agent], embedder=HashingEmbedder()) as runtime:
        for text in said:
            thread = await runtime.create_thread(agent, owner="ada")
            print(f"> {text}")
            print((await (await thread.send(text)).result()).text)


if __name__ == "__main__":
    asyncio.run(main())
