"""A support agent: a worker process runs it, a desk in another process answers what it asks.

python examples/support.py
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import treadle
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel

ORDERS = {"A-17": 240, "A-18": 30}


@treadle.tool
async def find_order(number: str) -> str:
    """Finds an order.

    Args:
        number: The number of the order, such as A-17.
    """
    return f"{number}: {ORDERS[number]} euros, paid" if number in ORDERS else "no such order"


@treadle.tool
def find_rule(topic: str) -> str:
    """Finds a rule of the shop.

    Args:
        topic: What the rule is about.
    """
    return f"{topic}: within 30 days, to the account that paid"


@treadle.tool(needs_approval=lambda arguments: arguments["euros"] > 100, idempotent=True)
async def refund(context: treadle.RunContext, number: str, euros: int) -> str:
    """Refunds an order.

    Args:
        number: The number of the order.
        euros: The amount.
    """
    context.progress(f"refunding {number} of {context.owner}")
    return f"refunded {euros} euros"


@treadle.tool(external=True)
async def ask_customer(question: str) -> None:
    """Asks the customer, who may answer much later.

    Args:
        question: The question.
    """


def last_words(request: ModelRequest) -> str:
    """A model that reports the outputs of its last calls."""
    outputs = [item.text for item in request.items if isinstance(item, treadle.FunctionCallOutput)]
    return f"Done: {'; '.join(outputs[-2:])}"


def support_agent() -> treadle.Agent[None, str]:
    """Returns the agent; a real one has a model such as "openai:gpt-5"."""
    model = ScriptedModel(
        [
            [
                Call("find_order", json.dumps({"number": "A-17"})),
                Call("find_rule", json.dumps({"topic": "refunds"})),
            ],
            [
                Call("refund", json.dumps({"number": "A-17", "euros": 240})),
                Call("ask_customer", json.dumps({"question": "Was the parcel damaged?"})),
            ],
            last_words,
        ]
    )
    return treadle.Agent(
        model,
        name="support",
        instructions="Help customers of the shop.",
        tools=[find_order, find_rule, refund, ask_customer],
    )


async def desk(url: str) -> None:
    """The desk: answers the calls of all threads, until the first run is done."""
    async with (
        treadle.open(url, drive=False) as runtime,
        runtime.subscribe(
            types=[treadle.RunRequiresAction, treadle.RunCompleted], after="start"
        ) as events,
    ):
        async for event in events:
            if event.type == "run.completed":
                break
            for call in await runtime.calls():
                await answer(runtime, call)


async def answer(runtime: treadle.Runtime, waiting: treadle.WaitingCall) -> None:
    """Approves or answers a call, as a person would."""
    print(f"desk: {waiting.awaits} of {waiting.tool} {waiting.arguments} for {waiting.owner}")
    thread = await runtime.connect(waiting.thread_id)
    if waiting.awaits == "approval":
        await thread.approve(waiting.call.call_id)
    else:
        await thread.submit_tool_output(waiting.call.call_id, "Yes, the box was crushed.")


async def work(url: str) -> None:
    """The worker: runs the agent for a customer, while the desk works in another process."""
    async with treadle.open(url, agents=[support_agent()]) as runtime:
        command = (sys.executable, __file__, "desk", url)
        process = await asyncio.create_subprocess_exec(*command)
        thread = await runtime.create_thread("support", owner="ada")
        run = await thread.send("I want my money back for order A-17.")
        print(f"worker: {await run.text()}", flush=True)
        await process.wait()


def main() -> None:
    """Is the worker, or in the second process the desk."""
    if sys.argv[1:2] == ["desk"]:
        asyncio.run(desk(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(f"sqlite:///{Path(folder, 'treadle.db')}"))


if __name__ == "__main__":
    main()
