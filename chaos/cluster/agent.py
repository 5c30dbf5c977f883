"""The agent of the nodes: what it says follows from the message, so that it can be checked."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from chaos.cluster.records import Asked, ToolRan
from chaos.evidence import Evidence
from treadle import Agent, RunContext, tool
from treadle.domain.items import FunctionCallOutput, Message
from treadle.models.base import ModelRequest
from treadle.streaming.demux import StreamEvent
from treadle.testing import Call, ScriptedModel, Text, Turn

PIECES = 30
ROUNDS = 2
"""Rounds of two tool calls before the answer."""


def needs_approval(message: str) -> bool:
    """Whether the answer to a message has a call that needs an approval, after all others."""
    return hashlib.sha256(message.encode()).digest()[0] < 80


def steps_of(message: str) -> int:
    """Returns how many responses the answer to a message takes."""
    return ROUNDS + 1 + needs_approval(message)


def text_of(message: str) -> str:
    """Returns what the agent answers to a message."""
    words = [hashlib.sha256(f"{message} {n}".encode()).hexdigest()[:6] for n in range(PIECES)]
    return " ".join(words)


class ClusterModel:
    """Calls tools in some rounds, then answers with a text, at `seconds` for each delta."""

    name = provider = "cluster"

    def __init__(self, evidence: Evidence, seconds: float) -> None:
        self._evidence = evidence
        self._seconds = seconds

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        """Streams the response that follows from the request."""
        message, done = "", 0
        for item in request.items:
            if isinstance(item, Message) and item.role == "user":
                message, done = item.text, 0
            elif isinstance(item, FunctionCallOutput):
                done += 1
        step = done // 2 if done <= 2 * ROUNDS else ROUNDS + 1
        self._evidence.add(Asked(message, step))
        if step < ROUNDS:
            turn = Turn((Call("once", "{}"), Call("again", "{}")), every=self._seconds)
        elif step < steps_of(message) - 1:
            turn = Turn((Call("asked", "{}"),), every=self._seconds)
        else:
            turn = Turn((Text(text_of(message), deltas=PIECES),), every=self._seconds)
        async for event in ScriptedModel([turn]).stream(request):
            yield event


def agent_on(evidence: Evidence, seconds: float) -> Agent:
    """Returns the agent, whose tools write down that they ran."""

    @tool(idempotent=False)
    async def once(ctx: RunContext) -> str:
        """Must not run twice for one call."""
        evidence.add(ToolRan(ctx.thread_id, ctx.call_id or "", "once"))
        await asyncio.sleep(seconds)
        return "done"

    @tool(idempotent=True)
    async def again(ctx: RunContext) -> str:
        """May run twice for one call."""
        evidence.add(ToolRan(ctx.thread_id, ctx.call_id or "", "again"))
        await asyncio.sleep(seconds)
        return "done"

    @tool(idempotent=False, needs_approval=True)
    async def asked(ctx: RunContext) -> str:
        """Must not run twice for one call, nor without an approval."""
        evidence.add(ToolRan(ctx.thread_id, ctx.call_id or "", "asked"))
        return "done"

    tools = [once, again, asked]
    return Agent(ClusterModel(evidence, seconds), name="cluster", tools=tools, instructions="")
