"""Agents together: a desk that hands over to a clerk, who has a calculator agent work for it.

python examples/handover.py
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
    instructions="Send the customer to whoever can help.",
    handoffs=[clerk],
)


async def main() -> None:
    """One conversation, three agents."""
    async with desk.stream("I want my money back for order 7.") as run:
        async for event in run:
            match event:
                case treadle.HandedOff():
                    print(f"{event.agent} goes on")
                case treadle.AgentEvent(event=treadle.MessageAdded(origin="model") as said):
                    print(f"  {event.agent}: {said.item.text}")
                case treadle.MessageAdded(origin="model"):
                    print(event.item.text)
                case _:
                    pass
        result = await run.result()
    print(f"{result.agent} ended it after {result.usage.requests} requests")


if __name__ == "__main__":
    asyncio.run(main())
