"""A second model answers if the first one cannot be reached.

python examples/fallback.py
"""

import asyncio
import os

import treadle
from treadle.models import OpenAIChat


async def main() -> None:
    """Asks a server that does not exist, and then the fallback model."""
    absent = OpenAIChat("big", api_key="", base_url="http://127.0.0.1:9/v1")
    present = treadle.resolve_model(os.environ.get("TREADLE_MODEL", "demo"))
    agent = treadle.Agent(treadle.FallbackModel(absent, present))
    print((await agent.run("Hello!")).output)


if __name__ == "__main__":
    asyncio.run(main())
