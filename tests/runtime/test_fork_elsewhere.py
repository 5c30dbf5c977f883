"""A fork needs no driver: any process that reads a database can copy a thread."""

from pathlib import Path

import pytest

import treadle
from treadle import Agent
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_process_that_does_not_drive_forks_a_thread(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = Agent(ScriptedModel(["Hello.", "In the copy."]), name="helper")
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Hi.")).result()
        async with treadle.open(url, agents=[agent], drive=False) as reader:
            copy = await (await reader.connect(thread.id)).fork()
            result = await (await copy.send("And?")).result(timeout=30)
        assert result.text == "In the copy."
        texts = [item.text for item in await (await runtime.connect(copy.id)).history()]  # type: ignore[union-attr]
        assert texts == ["Hi.", "Hello.", "And?", "In the copy."]
        assert len(await thread.history()) == 2
