"""The agent of the conversations: one tool of each kind, all of which leave a trace."""

import asyncio

import weft
from chaos.evidence import Evidence
from weft.models.openai import OpenAIResponses

SCENARIO = "sim:deltas=12,calls=5,rounds=2,every=3"


def chaos_agent(base_url: str, evidence: Evidence) -> weft.Agent:
    """Returns the agent, whose model is the simulator at `base_url`."""

    @weft.tool
    async def effect(context: weft.RunContext, text: str) -> str:
        """Does something that must not be done twice."""
        evidence.add("effects", context.call_id)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @weft.tool(idempotent=True)
    async def repeatable(context: weft.RunContext, text: str) -> str:
        """Does something that may be done again, with the same key."""
        evidence.add("repeats", context.call_id, context.idempotency_key)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @weft.tool
    def threaded(context: weft.RunContext, text: str) -> str:
        """Does something in a thread that must not be done twice."""
        evidence.add("effects", context.call_id)
        return f"done {len(text)}"

    @weft.tool(needs_approval=True)
    async def approved(context: weft.RunContext, text: str) -> str:
        """Does something a person must allow."""
        evidence.add("effects", context.call_id)
        return f"done {len(text)}"

    @weft.tool(external=True)
    async def outside(text: str) -> str:
        """Is answered by the client."""
        raise AssertionError("an external tool is never called")

    model = OpenAIResponses(SCENARIO, api_key="none", base_url=base_url)
    return weft.Agent(model, name="chaos", tools=[effect, repeatable, threaded, approved, outside])
