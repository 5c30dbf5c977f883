"""A conversation that outlives its process: a second runtime continues the thread.

python examples/kept_thread.py
"""

import asyncio
import os
import tempfile
from pathlib import Path

import treadle


@treadle.tool(idempotent=True)
async def look_up(context: treadle.RunContext, word: str) -> str:
    """Looks up a word.

    Args:
        word: The word.
    """
    await asyncio.sleep(1)
    return f"{word}: known ({context.idempotency_key[:5]})"


async def main() -> None:
    """Closes the runtime while a tool runs; the next runtime resumes the run."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent(model, name="assistant", tools=[look_up])
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'treadle.db')}"
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("Look up the word loom.", key="loom")
            async for event in run:
                if isinstance(event, treadle.ToolStarted):
                    break
            print("Left:", (await thread.info()).status)
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.connect(thread.id)
            run = await thread.send("Look up the word loom.", key="loom")
            result = await run.result()
            print("Back:", result.status, "after", len(await thread.events()), "events")


if __name__ == "__main__":
    asyncio.run(main())
