"""A run is cancelled, and the conversation continues from where it stopped.

python examples/steering.py
"""

import asyncio
import os

import treadle


@treadle.tool
async def slow_search(query: str) -> str:
    """Searches for a long time.

    Args:
        query: What to look for.
    """
    await asyncio.sleep(3600)
    return f"nothing about {query}"


async def main() -> None:
    """Cancels a search that takes too long, then asks something else."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent(model, tools=[slow_search])
    async with agent.stream("Search for the meaning of life.") as run:
        async for event in run:
            if isinstance(event, treadle.ToolStarted):
                await run.cancel()
        result = await run.result(raise_on_incomplete=False)
    print("The first run:", result.status)
    second = await agent.run("Hello again!", history=result.history)
    print("The second run:", second.status)


if __name__ == "__main__":
    asyncio.run(main())
