"""A second agent helps the first one when it repeats itself.

python examples/adviser.py
"""

import asyncio

import treadle
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel

SAME_CALLS = 2


@treadle.tool
async def search(query: str) -> str:
    """Searches the archive.

    Args:
        query: What to look for.
    """
    return "1 hit: minutes of 4 May" if query == "minutes budget" else "no hits"


def seeker(request: ModelRequest) -> str | Call:
    """A model that repeats the same search until it gets advice."""
    outputs = [item for item in request.items if isinstance(item, treadle.FunctionCallOutput)]
    if outputs and outputs[-1].text != "no hits":
        return f"I found it: {outputs[-1].text}."
    last = request.items[-1]
    advised = isinstance(last, treadle.Message) and last.role == "developer"
    return Call("search", '{"query":"minutes budget"}' if advised else '{"query":"budgte"}')


librarian = treadle.Agent(
    ScriptedModel(["The word is misspelt, and it is in the minutes: search for 'minutes budget'."]),
    name="librarian",
    instructions="You get a search without hits. Suggest a better one.",
)


async def advise(context: treadle.CompletionContext, completion: treadle.Completion) -> None:
    """Asks the librarian when the last calls are equal, and injects its advice."""
    calls = [item for item in context.history if isinstance(item, treadle.FunctionCall)]
    last = [(call.name, call.arguments) for call in calls[-SAME_CALLS:]]
    if completion.calls and len(last) == SAME_CALLS and len(set(last)) == 1:
        advice = await context.run_agent(librarian, f"No hits: {calls[-1].arguments}")
        context.inject(f"Advice: {advice.text}", role="developer")


async def main() -> None:
    """Runs the first agent; a hook asks the second one for advice."""
    agent = treadle.Agent(
        ScriptedModel([seeker] * 6),
        name="seeker",
        tools=[search],
        hooks=treadle.Hooks(after_completion=advise),
    )
    async with agent.stream("When was the budget decided?") as run:
        async for event in run:
            match event:
                case treadle.ToolCallRequested():
                    print(f"search {event.item.arguments}")
                case treadle.MessageAdded(origin="hook"):
                    print(event.item.text)
                case _:
                    pass
        print((await run.result()).text)


if __name__ == "__main__":
    asyncio.run(main())
