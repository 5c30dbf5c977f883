"""How many transactions a turn makes, and what is kept when a tool runs or a reader reads."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from treadle import Agent, Runtime, TextDelta, tool
from treadle.actors.journaled import PATIENCE
from treadle.domain.events import RunCompleted, StepStarted, ToolOutputRecorded, ToolStarted
from treadle.journal.base import Batch
from treadle.journal.memory import MemoryJournal
from treadle.journal.sqlite import SqliteJournal
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio


class CountingJournal(SqliteJournal):
    """Keeps the types of the events of each transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.groups: list[list[type]] = []

    async def open(self) -> None:
        await super().open()
        assert self._writer is not None
        commit = self._writer._commit

        def counted(writes: Sequence[object]) -> Sequence[object]:
            outcomes = commit(writes)
            batches = [write for write in writes if isinstance(write, Batch)]
            kinds = [type(entry.event) for batch in batches for entry in batch.entries]
            if kinds:
                self.groups.append(kinds)
            return outcomes

        self._writer._commit = counted  # type: ignore[assignment]


async def test_what_nothing_waits_for_is_kept_with_what_comes_next(tmp_path: Path) -> None:
    journal = CountingJournal(tmp_path / "treadle.db")
    started: list[int] = []

    @tool
    async def note(number: int) -> str:
        """Notes a number."""
        started.append(sum(kinds.count(ToolStarted) for kinds in journal.groups))
        return "noted"

    calls = [[Call("note", json.dumps({"number": n}))] for n in range(10)]
    agent = Agent(ScriptedModel([*calls, "Done."]), tools=[note])
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Note ten numbers.")).result()
    assert started == list(range(1, 11))  # each start was kept before its tool ran
    assert len(journal.groups) <= 14


async def test_a_turn_of_text_makes_two_transactions(tmp_path: Path) -> None:
    journal = CountingJournal(tmp_path / "treadle.db")
    agent = Agent(ScriptedModel([[Pause(1.0), Text("It rains.")]]))
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("How is the weather?")
        assert StepStarted in journal.groups[-1]
        await run.result()
    assert len(journal.groups) == 2


async def test_an_output_is_shown_before_the_next_response_begins() -> None:
    @tool
    async def look() -> str:
        """Looks outside."""
        return "rain"

    agent = Agent(
        ScriptedModel([[Call("look", "{}")], [Pause(60.0), Text("It rains.")]]), tools=[look]
    )
    async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        loop = asyncio.get_running_loop()
        shown: dict[type, float] = {}
        async for event in await thread.send("How is the weather?"):
            shown.setdefault(type(event), loop.time())
        assert shown[ToolOutputRecorded] - shown[ToolStarted] <= 2 * PATIENCE
        assert shown[RunCompleted] - shown[ToolStarted] == pytest.approx(60.0, abs=0.1)


async def test_a_delta_waits_no_longer_than_the_journal_takes() -> None:
    agent = Agent(ScriptedModel([[Text("It "), Pause(1.0), Text("rains.")]]))
    async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        loop = asyncio.get_running_loop()
        before = loop.time()
        async for event in await thread.send("How is the weather?"):
            if isinstance(event, TextDelta):
                break
        assert loop.time() - before < PATIENCE
