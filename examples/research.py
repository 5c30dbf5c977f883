"""Research: an editor asks a researcher, a writer takes over, and a critic reads along in a hook.

python examples/research.py
"""

import asyncio
import json

import treadle
from treadle.testing import Call, ScriptedModel

researcher = treadle.Agent(
    ScriptedModel(["Lyon has 520,000 inhabitants.", "Lyon lies on the Rhône and the Saône."]),
    name="researcher",
    description="Looks up one fact.",
)
critic = treadle.Agent(
    ScriptedModel(["Name both rivers.", "OK"]),
    name="critic",
    instructions='Reply "OK", or say what is missing in the text.',
)


async def review(context: treadle.CompletionContext, completion: treadle.Completion) -> None:
    """Asks the critic about a text that would end the run; its objection continues the run."""
    if completion.calls:
        return
    verdict = await context.run_agent(critic, completion.text)
    if verdict.text != "OK":
        context.continue_with(f"Reviewer: {verdict.text}")


writer = treadle.Agent(
    ScriptedModel(
        [
            "Lyon is a city of half a million on two rivers.",
            "Lyon is a city of half a million on the Rhône and the Saône.",
        ]
    ),
    name="writer",
    description="Writes the text from what was found.",
    hooks=treadle.Hooks(after_completion=review),
)
editor = treadle.Agent(
    ScriptedModel(
        [
            [
                Call("researcher", json.dumps({"message": "How big is Lyon?"})),
                Call("researcher", json.dumps({"message": "Which rivers has Lyon?"})),
            ],
            Call("transfer_to_writer", "{}"),
        ]
    ),
    name="editor",
    instructions="Have facts looked up, then hand off to the writer.",
    tools=[researcher.as_tool()],
    handoffs=[writer],
    limits=treadle.Limits(max_handoffs=2, max_tokens=100_000),
)


async def main() -> None:
    """Prints what each agent says."""
    async with editor.stream("One sentence about Lyon.") as run:
        async for event in run:
            match event:
                case treadle.AgentEvent(event=treadle.MessageAdded(origin="model") as said):
                    print(f"  {event.agent}: {said.item.text}")
                case treadle.HandedOff():
                    print(f"{event.agent} takes over")
                case treadle.MessageAdded(origin="model"):
                    print(f"draft: {event.item.text}")
                case _:
                    pass
        result = await run.result()
    print(f"{result.agent}: {result.text}")
    print(f"{result.usage.requests} requests, {len(result.history)} items")


if __name__ == "__main__":
    asyncio.run(main())
