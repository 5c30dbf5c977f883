"""An agent that announces its actions while it is still writing the call.

python examples/speak_while_acting.py
"""

import asyncio
import os

import treadle

FORECAST = {"Paris": "18 °C and sunny", "Rome": "24 °C and clear"}


@treadle.tool
async def get_weather(city: str) -> str:
    """Returns the weather in a city.

    Args:
        city: Name of the city.
    """
    return FORECAST.get(city, "unknown")


async def main() -> None:
    """Asks about two cities; prints the announcement of each call, then the answer."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent(model, instructions="Be brief.", tools=[get_weather], to_user=True)
    async with agent.stream("What is the weather in Paris and in Rome?") as run:
        async for event in run:
            match event:
                case treadle.ToUserDelta(delta=text) | treadle.TextDelta(delta=text):
                    print(text, end="", flush=True)
                case treadle.ToolStarted(name=name):
                    print(f"\n[{name} starts]")
                case _:
                    pass
    print()


if __name__ == "__main__":
    asyncio.run(main())
