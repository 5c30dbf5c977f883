"""Several agents: a desk hands off to a clerk, which uses an accountant as a tool.

python examples/handoff.py
"""

import asyncio

import treadle
from treadle.testing import Call, ScriptedModel

accountant = treadle.Agent(
    ScriptedModel(["17.50"]),
    name="accountant",
    description="Adds up orders.",
)
clerk = treadle.Agent(
    ScriptedModel(
        [
            [Call("accountant", '{"message":"Order 7: 12.50 and 5.00. What is the sum?"}')],
            "You get 17.50 back.",
        ]
    ),
    name="clerk",
    description="Refunds orders.",
    tools=[accountant.as_tool()],
)
desk = treadle.Agent(
    ScriptedModel([[Call("transfer_to_clerk", "{}")]]),
    name="desk",
    instructions="Send the customer to the right colleague.",
    handoffs=[clerk],
)


async def main() -> None:
    """One conversation, three agents."""
    async with desk.stream("I want my money back for order 7.") as run:
        async for event in run:
            match event:
                case treadle.HandedOff():
                    print(f"{event.agent} continues")
                case treadle.AgentEvent(event=treadle.MessageAdded(origin="model") as said):
                    print(f"  {event.agent}: {said.item.text}")
                case treadle.MessageAdded(origin="model"):
                    print(event.item.text)
                case _:
                    pass
        result = await run.result()
    print(f"{result.agent} ended the run after {result.usage.requests} requests")


if __name__ == "__main__":
    asyncio.run(main())
