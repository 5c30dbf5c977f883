"""Handlers: functions and methods that are given the node they run as."""

import asyncio
from typing import Any

import pytest

from weft.errors import NodeReused
from weft.jobs import Commander, Handler, Job, Node, handler

pytestmark = pytest.mark.anyio


@handler
async def double(node: Handler[int], number: int, *, times: int = 2) -> int:
    """Doubles a number."""
    assert node.state == "active"
    return number * times


async def test_a_function() -> None:
    async with Commander() as commander:
        call = double(4, times=3)
        assert (call.state, call.name, call.parent) == ("pending", "double", None)
        assert await commander.call(call) == 12
        assert await (await commander.submit(double(4))) == 8
        with pytest.raises(NodeReused):
            commander.call(call)
    assert double.__doc__ == "Doubles a number."


async def test_a_method_of_a_job_and_of_anything_else() -> None:
    class Speaker:
        def __init__(self) -> None:
            self.said = list[str]()

        @handler
        async def say(self, node: Handler[None], text: str) -> None:
            self.said.append(f"{node.name}: {text}")

    class Talks(Job[str]):
        def __init__(self, speaker: Speaker) -> None:
            self.speaker = speaker

        async def task(self) -> str | Node[str]:
            self.call(self.speaker.say("Hello"))
            return self.end("!")

        @handler
        async def end(self, node: Handler[str], mark: str) -> str:
            assert node.parent is self
            return f"end{mark}"

    speaker = Speaker()
    async with Commander() as commander:
        assert await (await commander.submit(Talks(speaker))) == "end!"
    assert speaker.said == ["Speaker.say: Hello"]
    assert isinstance(Speaker.say, type(double))


async def test_callbacks_of_a_handler() -> None:
    seen = list[Any]()
    async with Commander() as commander:
        call = commander.call(double(1).on("settled", seen.append, "settled"))
        await call
        await asyncio.sleep(0)
    assert seen == ["settled"]


async def test_a_handler_places_children_and_handlers() -> None:
    @handler
    async def count(node: Handler[int], down: int) -> int | Node[int]:
        if down == 0:
            return len(node.ancestors)
        return count(down - 1)

    async with Commander() as commander:
        assert await commander.call(count(5)) == 6
