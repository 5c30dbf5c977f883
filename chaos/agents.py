"""The agent of the conversations: one tool of each kind, all of which leave a trace."""

import asyncio
import hashlib
import random
from typing import Any

import treadle
from chaos.evidence import Evidence
from chaos.files import DRAWS, content_of
from chaos.records import BoardRead, Ran, Remembered
from chaos.tasks import Desk, jobs_of_run, jobs_of_thread, submitted
from treadle.domain.blocks import AppendText
from treadle.models.openai import OpenAIResponses

SCENARIO = "sim:reasoning=3,deltas=12,calls=6,rounds=2,every=3"
OTHER_SCENARIO = "sim:reasoning=2,deltas=9,calls=6,rounds=2,every=3"
WORKER_SCENARIO = "sim:deltas=6,calls=4,rounds=1,every=3"

IDEMPOTENT = {"repeatable", "remembers", "starts_and_waits"}
NEEDS_APPROVAL = "approved"
EXTERNAL = "outside"
WORKER = "worker"
OTHER = "other"
"""The name of the model that some runs choose by their options."""

NOTES, BOARD, DRAFT = "notes", "board", "draft"
"""The blocks: of a thread, of all threads of an owner, and of a thread until it is deleted."""
SHARED = "office"
"""The shared memory in which the board is."""
BLOCKS = [
    treadle.Block(NOTES, limit=100_000),
    treadle.Block(BOARD, limit=100_000, shared=SHARED),
    treadle.Block(DRAFT, "to be deleted"),
]

Tools = list[treadle.Tool[..., Any]]


def chaos_worker(base_url: str, evidence: Evidence) -> treadle.Agent[Any, str]:
    """Returns the agent that works for calls and jobs, whose model is that at `base_url`."""
    model = OpenAIResponses(WORKER_SCENARIO, api_key="none", base_url=base_url)
    return treadle.Agent(model, name=WORKER, tools=_effects(evidence), blocks=BLOCKS)


def other_model(base_url: str) -> OpenAIResponses:
    """Returns the model that some runs choose by their options."""
    return OpenAIResponses(OTHER_SCENARIO, api_key="none", base_url=base_url)


def chaos_agent(base_url: str, desk: Desk) -> treadle.Agent[Any, str]:
    """Returns the agent of the conversations, whose model is the simulator at `base_url`."""
    evidence = desk.evidence

    @treadle.tool
    def threaded(context: treadle.RunContext, text: str) -> str:
        """Does something in a thread that must not be done twice."""
        _ran(context, evidence)
        return f"done {len(text)}"

    @treadle.tool(needs_approval=True)
    async def approved(context: treadle.RunContext, text: str) -> str:
        """Does something a person must allow."""
        _ran(context, evidence)
        return f"done {len(text)}"

    @treadle.tool(external=True)
    async def outside(text: str) -> str:
        """Is answered by the client."""
        raise AssertionError("an external tool is never called")

    @treadle.tool(name=DRAWS)
    async def draws(context: treadle.RunContext, text: str) -> list[object]:
        """Does something that must not be done twice, and returns a file."""
        _ran(context, evidence)
        return [f"done {len(text)}", treadle.File(content_of(context.call_id), "drawn.txt")]

    others = [threaded, approved, outside, draws, desk.worker.as_tool()]
    tools = [*_effects(evidence), *others, *_jobs(desk)]
    return treadle.Agent(
        OpenAIResponses(SCENARIO, api_key="none", base_url=base_url),
        name="chaos",
        tools=tools,
        to_user=True,
        hooks=NOTES_BEHIND,
        on_job_failure="collect",
        blocks=BLOCKS,
    )


def _effects(evidence: Evidence) -> Tools:
    @treadle.tool
    async def effect(context: treadle.RunContext, text: str) -> str:
        """Does something that must not be done twice."""
        _ran(context, evidence)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @treadle.tool(idempotent=True)
    async def repeatable(context: treadle.RunContext, text: str) -> str:
        """Does something that may be done again, with the same key."""
        _ran(context, evidence)
        await asyncio.sleep(0.01)
        return f"done {len(text)}"

    @treadle.tool(idempotent=True)
    async def remembers(context: treadle.RunContext, text: str) -> str:
        """Adds a line to a block, once."""
        _ran(context, evidence)
        return await _remembered(context, evidence)

    @treadle.tool
    async def remembers_once(context: treadle.RunContext, text: str) -> str:
        """Adds a line to a block, and is not called again."""
        _ran(context, evidence)
        return await _remembered(context, evidence)

    return [effect, repeatable, remembers, remembers_once]


async def _remembered(context: treadle.RunContext, evidence: Evidence) -> str:
    """Adds a line to the notes or to the board: which, is a matter of the call."""
    label = random.Random(context.call_id).choice([NOTES, BOARD])
    edited = await context.memory.edit(AppendText(label, context.call_id), key=context.call_id)
    assert edited is not None
    remembered = Remembered(context.thread_id, context.call_id, label, digest(edited.value))
    evidence.add(remembered)
    for block in await context.memory.blocks():
        if block.label == BOARD:
            evidence.add(BoardRead(context.thread_id, digest(block.value)))
    return f"{len(edited.value)} characters"


def digest(text: str) -> str:
    """Returns what stands for a text in the logs."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _jobs(desk: Desk) -> Tools:
    """The tools that start jobs: which, is a matter of the call."""
    evidence = desk.evidence

    @treadle.tool
    async def starts(context: treadle.RunContext) -> str:
        """Starts jobs of the run, and leaves them to it."""
        _ran(context, evidence)
        for job in jobs_of_run(desk, random.Random(context.call_id)):
            await submitted(context.jobs, job, evidence)
        return "started"

    @treadle.tool(idempotent=True)
    async def starts_and_waits(context: treadle.RunContext) -> str:
        """Starts jobs of the run, and waits for them."""
        _ran(context, evidence)
        jobs = jobs_of_run(desk, random.Random(context.call_id))
        nodes = [await submitted(context.jobs, job, evidence) for job in jobs]
        results = await asyncio.gather(*nodes, return_exceptions=True)
        return f"{len(results)} ended"

    @treadle.tool
    async def starts_for_later(context: treadle.RunContext) -> str:
        """Starts jobs of the thread."""
        _ran(context, evidence)
        for job in jobs_of_thread(random.Random(context.call_id)):
            await submitted(context.jobs, job, evidence, parent=context.jobs.root)
        return "started"

    return [starts, starts_and_waits, starts_for_later]


def _ran(context: treadle.RunContext, evidence: Evidence) -> None:
    evidence.add(Ran(context.call_id, context.tool_name, context.idempotency_key))


async def _note(context: treadle.CompletionContext, completion: treadle.Completion) -> None:
    """Leaves a note behind each response, and takes its time before and after."""
    await asyncio.sleep(0.005)
    context.inject(note_of(context.run_id, completion.number), role="developer")
    await asyncio.sleep(0.005)


NOTES_BEHIND = treadle.Hooks[Any](after_completion=_note)


def note_of(run_id: str, step: int) -> str:
    """What the hook says behind a step."""
    return f"note {run_id} {step}"
