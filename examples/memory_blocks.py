"""A memory block shared by two conversations, edited by an agent and by a person, with undo.

python examples/memory_blocks.py
"""

import asyncio
import os

import treadle
from treadle.memory import AppendText, Block, block_tools

HUMAN = Block("human", "Name: Ada", "What you know of the user.", limit=500, shared="people")


@treadle.tool(idempotent=True)
async def remember(context: treadle.RunContext, fact: str) -> str:
    """Remembers a fact about the user.

    Args:
        fact: One sentence.
    """
    await context.memory.edit(AppendText("human", fact), key=context.idempotency_key)
    return "remembered"


async def main() -> None:
    """Tells a fact in one conversation, which the other one then knows."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    tools = [remember, *block_tools("memory_replace", "memory_rewrite")]
    agent = treadle.Agent(model, name="assistant", tools=tools, blocks=[HUMAN])
    async with treadle.open(agents=[agent]) as runtime:
        morning = await runtime.create_thread(agent, owner="ada")
        run = await morning.send("Remember 'Ada drinks tea.'")
        print((await run.result()).text)

        memory = await runtime.memory("people", owner="ada")
        await memory.replace("human", "tea", "coffee")
        await memory.append("human", "Ada is left-handed.")
        for change in await memory.changes("human"):
            print(change.seq, change.author, change.operation, repr(change.diff))
        await memory.undo("human", (await memory.changes("human"))[-2].seq)

        evening = await runtime.create_thread(agent, owner="ada")
        run = await evening.send("Hello again!")
        await run.result()
        block = await memory.get("human")
        print("Both know:", block.value.splitlines() if block is not None else "nothing")


if __name__ == "__main__":
    asyncio.run(main())
