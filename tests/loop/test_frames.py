"""How deep the stack is under a model, which is what a reader of a traceback has to climb."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import treadle
from treadle import Agent
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

pytestmark = pytest.mark.anyio

_SOURCE = Path(treadle.__file__).parent


class Climbing:
    """A model that notes the frames of treadle above its stream, the nearest first."""

    name = provider = "climbing"

    def __init__(self) -> None:
        self.frames: list[tuple[str, str]] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        frame = sys._getframe().f_back
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(_SOURCE):
                module = path.relative_to(_SOURCE).with_suffix("").as_posix()
                self.frames.append((module, frame.f_code.co_name))
            frame = frame.f_back
        yield ItemFinished(0, Message("assistant", (OutputText("Done."),), "msg"))
        yield ResponseFinished("r", "stop", Usage())


async def test_four_frames_lie_between_drive_and_the_stream_of_a_model() -> None:
    model = Climbing()
    await Agent(model).run("hi")
    names = [name for _, name in model.frames]
    assert names[:4] == ["stream_response", "take_step", "_loop", "drive"]


async def test_eight_frames_lie_between_the_engine_and_the_stream_of_a_model() -> None:
    model = Climbing()
    agent = Agent(model, name="a")
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
    names = [name for _, name in model.frames]
    assert model.frames[-1] == ("actors/engine", "_work")
    assert len(names) == len(set(names)) <= 8
