"""An agent for tests of the page: the last message tells what it does."""

import asyncio

from treadle import Agent, Block, HostedCall, RunContext, UrlCitation, tool
from treadle.domain.items import FunctionCallOutput, Message
from treadle.domain.usage import Usage
from treadle.memory import block_tools
from treadle.models.base import ModelRequest
from treadle.testing import Call, Hosted, Reasoning, ScriptedModel, Text
from treadle.testing.simulator.turn import Turn

STORY = "\n\n".join(
    f"Paragraph {number}: " + " ".join(f"word{number}-{at}" for at in range(20))
    for number in range(8)
)
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> "
    "[click](javascript:window.hacked=1) ![pixel](https://example.com/pixel.png) "
    "[text](https://example.com/path) **bold**"
)
RICH = (
    "# Title\n\nA list:\n\n- one\n- two\n\n```python\nprint('hello')\nfor n in range(3):\n"
    "    print(n)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThe end."
)

SOURCES = (
    UrlCitation("https://example.com/lamp", "Lamp 7 <b>oil</b>", start_index=0, end_index=4),
    UrlCitation("javascript:window.hacked=1", "A page", start_index=0, end_index=4),
)
SEARCHED = (
    Hosted(HostedCall("web_search", "ws_1", "completed", "oil for lamp 7", sources=SOURCES)),
    Hosted(HostedCall("mcp", "mcp_1", "failed", '{"shelf": 3}', "read", "docs", "It is locked.")),
    Text("Lamp 7 takes oil 3.", citations=SOURCES),
)


def reply(request: ModelRequest) -> Turn:
    outputs = [item for item in request.items if isinstance(item, FunctionCallOutput)]
    said = [item for item in request.items if isinstance(item, Message) and item.role == "user"]
    wish = said[-1].text if said else ""
    if request.items and isinstance(request.items[-1], FunctionCallOutput):
        return _turn(Text(f"The tool said: {outputs[-1].text}"))
    match wish.split(maxsplit=1)[0].lower() if wish.strip() else "":
        case "story":
            return _turn(Text(STORY), every=0.02)
        case "rich":
            return _turn(Text(RICH), every=0.002)
        case "hostile":
            return _turn(Text(HOSTILE))
        case "think":
            return _turn(Reasoning("First this, then that."), Text("Thought through."), every=0.01)
        case "pay":
            arguments = '{"note": "Rent\\u202e", "iban": "EVIL00000000", "amount": 99999}'
            return _turn(Text("I will pay."), Call("transfer", arguments))
        case "ask":
            return _turn(Call("ask_person", '{"question": "Which colour?"}'))
        case "work":
            return _turn(
                Call("work", '{"to_user": "I look into it.", "seconds": 0.5}'), every=0.005
            )
        case "remember":
            return _turn(Call("memory_append", '{"label": "human", "text": "Likes tea."}'))
        case "search":
            return _turn(*SEARCHED, every=0.005)
        case "fail":
            return _turn(Call("fail", "{}"))
        case _:
            return Turn((Text(f"You said: {wish}"),))  # of a provider that reports no usage


def _turn(*outputs: Text | Call | Hosted | Reasoning, every: float = 0.0) -> Turn:
    return Turn(outputs, usage=Usage(requests=1, input_tokens=900, output_tokens=40), every=every)


@tool(needs_approval=True)
def transfer(note: str, iban: str, amount: int) -> str:
    """Transfers money."""
    return f"{amount} were sent"


@tool(external=True)
def ask_person(question: str) -> str:
    """Asks a person."""
    raise NotImplementedError


@tool(to_user=True)
async def work(context: RunContext[None], seconds: float) -> str:
    """Works for some time."""
    context.progress("half done")
    await asyncio.sleep(seconds)
    return "worked"


@tool
def fail() -> str:
    """Fails."""
    raise ValueError("the disk is on fire")


agent = Agent(
    ScriptedModel([reply] * 10_000),
    name="stage",
    description="An agent that plays what it is asked for.",
    tools=[transfer, ask_person, work, fail, *block_tools()],
    blocks=[Block("human", "Name: Ada", description="About the person")],
    examples=["hello there", "rich text"],
)
