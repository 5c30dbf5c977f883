"""The agent of the conversations: one tool of each kind, all of which leave a trace."""

import asyncio

import weft
from chaos.evidence import Evidence
from chaos.records import Ran
from weft.models.openai import OpenAIResponses

SCENARIO = "sim:reasoning=3,deltas=12,calls=6,rounds=2,every=3"
WORKER_SCENARIO = "sim:deltas=6,calls=2,rounds=1,every=3"

IDEMPOTENT = "repeatable"
NEEDS_APPROVAL = "approved"
EXTERNAL = "outside"
WORKER = "worker"


def chaos_agent(base_url: str, evidence: Evidence) -> weft.Agent:
    """Returns the agent, whose model is the simulator at `base_url`."""

    def ran(context: weft.RunContext) -> None:
        evidence.add(Ran(context.call_id, context.tool_name, context.idempotency_key))

    @weft.tool
    async def effect(context: weft.RunContext, text: str) -> str:
        """Does something that must not be done twice."""
        ran(context)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @weft.tool(idempotent=True)
    async def repeatable(context: weft.RunContext, text: str) -> str:
        """Does something that may be done again, with the same key."""
        ran(context)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @weft.tool
    def threaded(context: weft.RunContext, text: str) -> str:
        """Does something in a thread that must not be done twice."""
        ran(context)
        return f"done {len(text)}"

    @weft.tool(needs_approval=True)
    async def approved(context: weft.RunContext, text: str) -> str:
        """Does something a person must allow."""
        ran(context)
        return f"done {len(text)}"

    @weft.tool(external=True)
    async def outside(text: str) -> str:
        """Is answered by the client."""
        raise AssertionError("an external tool is never called")

    worker = weft.Agent(
        OpenAIResponses(WORKER_SCENARIO, api_key="none", base_url=base_url),
        name=WORKER,
        tools=[effect, repeatable],
    )
    model = OpenAIResponses(SCENARIO, api_key="none", base_url=base_url)
    tools = [effect, repeatable, threaded, approved, outside, worker.as_tool()]
    hooks = weft.Hooks(after_completion=_note)
    return weft.Agent(model, name="chaos", tools=tools, to_user=True, hooks=hooks)


async def _note(context: weft.CompletionContext, completion: weft.Completion) -> None:
    """Leaves a note behind each response, and takes its time before and after."""
    await asyncio.sleep(0.005)
    context.inject(note_of(context.run_id, completion.number), role="developer")
    await asyncio.sleep(0.005)


def note_of(run_id: str, step: int) -> str:
    """What the hook says behind a step."""
    return f"note {run_id} {step}"
