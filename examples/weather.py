"""Two tools at once, with the reply streamed as it is written.

python examples/weather.py
"""

import asyncio
import os

import weft

FORECAST = {"Paris": "18 °C and sunny", "Rome": "24 °C and clear"}


@weft.tool
async def get_weather(city: str) -> str:
    """Tells the weather in a city.

    Args:
        city: Name of the city.
    """
    return FORECAST.get(city, "unknown")


async def main() -> None:
    """Asks about two cities and prints what happens."""
    model = os.environ.get("WEFT_MODEL", "demo")
    agent = weft.Agent(model, instructions="Be brief.", tools=[get_weather])
    async with agent.stream("What is the weather in Paris and in Rome?") as run:
        async for event in run:
            match event:
                case weft.TextDelta(delta=text):
                    print(text, end="", flush=True)
                case weft.ToolCallRequested(item=call):
                    print(f"[{call.name} {call.arguments}]")
                case _:
                    pass
    print()


if __name__ == "__main__":
    asyncio.run(main())
