"""The fold of the page and the state of treadle agree at every event of real conversations."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.families import node
from tests.page.stage import ask_person, fail, reply, transfer, work

from treadle import Agent, Runtime, Thread, ThreadRun
from treadle.journal.memory import MemoryJournal
from treadle.runtime.thread_view import view_of
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.needs("node")]

CHECK = Path(__file__).with_name("js") / "fold_check.mjs"


async def _talk(thread: Thread) -> None:
    for wish in ("hello", "think", "work", "fail", "search"):
        await (await thread.send(wish)).result(raise_on_incomplete=False)


async def _answer(thread: Thread) -> None:
    run = await thread.send("pay")
    await thread.approve(await _waits(run))
    await run.result(raise_on_incomplete=False)
    run = await thread.send("pay")
    await thread.approve(await _waits(run), arguments={"note": "", "iban": "X1", "amount": 5})
    await run.result(raise_on_incomplete=False)
    run = await thread.send("ask")
    await thread.submit_tool_output(await _waits(run), "blue")
    await run.result(raise_on_incomplete=False)
    run = await thread.send("pay")
    await thread.deny(await _waits(run), "no")
    await run.result(raise_on_incomplete=False)


async def _interrupt(thread: Thread) -> None:
    first = await thread.send("story")
    await asyncio.sleep(0.5)
    second = await thread.send("hello")
    third = await thread.send("work", on_busy="steer")
    await asyncio.sleep(0.5)
    await first.cancel()
    await second.result(raise_on_incomplete=False)
    await third.result(raise_on_incomplete=False)
    last = await thread.send("story again")
    await asyncio.sleep(0.5)
    await last.finish()
    await last.result(raise_on_incomplete=False)


async def _add(thread: Thread) -> None:
    await thread.add(
        [
            {"role": "user", "content": "Work."},
            {"type": "function_call", "call_id": "call_1", "name": "work", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "done"},
            {"role": "assistant", "content": "It is done."},
        ]
    )
    await (await thread.send("hello")).result()


async def _waits(run: ThreadRun) -> str:
    """Waits until the run needs an answer; returns the call."""
    async for event in run.events():
        if event.type == "run.requires_action":
            return event.call_ids[0]
    raise AssertionError("The run ended.")


@pytest.mark.parametrize("play", [_talk, _answer, _interrupt, _add])
async def test_the_view_of_each_state_continues_to_the_same_lines(
    play: Callable[[Thread], Awaitable[None]],
) -> None:
    journal = MemoryJournal()
    agent = Agent(
        ScriptedModel([reply] * 100), name="stage", tools=[transfer, ask_person, work, fail]
    )
    events: list[tuple[int, object]] = []
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)

        async def read() -> None:
            async with thread.subscribe() as subscription:
                async for envelope in subscription.envelopes():
                    events.append((envelope.seq, json.loads(envelope.json)))
                    if envelope.seq == last:
                        return

        last = 0
        reader = asyncio.create_task(read())
        await play(thread)
        last = await journal.last_seq(thread.id)
        if events[-1][0] < last:
            await reader
        reader.cancel()
        info = await thread.info()
        states = [
            {
                "seq": seq,
                "state": json.loads(
                    msgspec.json.encode(view_of(info, await journal.load(thread.id, at=seq)))
                ),
            }
            for seq in range(last + 1)
        ]
    given = json.dumps({"events": events, "states": states})
    ended = await asyncio.to_thread(_check, given)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _check(given: str) -> subprocess.CompletedProcess[str]:
    command = [str(node()), str(CHECK)]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=50, check=False
    )
