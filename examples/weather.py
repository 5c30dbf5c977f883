"""Two parallel tool calls, and a streamed reply.

python examples/weather.py
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
    """Asks about two cities and prints what happens."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent(model, instructions="Be brief.", tools=[get_weather])
    async with agent.stream("What is the weather in Paris and in Rome?") as run:
        async for event in run.events():
            match event.type:
                case "text.delta":
                    print(event.delta, end="", flush=True)
                case "tool.requested":
                    print(f"[{event.item.name} {event.item.arguments}]")
                case _:
                    pass
    print()


if __name__ == "__main__":
    asyncio.run(main())
