"""Handlers: functions and methods that are given the node they run as."""

import asyncio
import copy
import types
from typing import Any

import pytest

from treadle.errors import NodeReused
from treadle.jobs import Commander, Handler, Job, Node, handler

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


class Base:
    @handler
    async def note(self, node: Handler[Any], text: str) -> tuple[str, str, str]:
        return type(self).__name__, type(node).__name__, text

    @classmethod
    @handler
    async def make(cls, node: Handler[Any], text: str) -> tuple[str, str, str]:
        return cls.__name__, type(node).__name__, text

    @staticmethod
    @handler
    async def plain(node: Handler[Any], *rest: object) -> tuple[str, tuple[object, ...]]:
        return type(node).__name__, rest


class Derived(Base):
    @handler
    async def note(self, node: Handler[Any], text: str) -> Any:
        return [
            await node.call(super().note(text)),
            await node.call(Base.note(self, text)),
        ]


async def test_a_method_through_its_class_and_that_of_a_class() -> None:
    async with Commander() as commander:
        expected = ("Derived", "Handler", "x")
        assert await commander.call(Derived().note("x")) == [expected, expected]
        assert await commander.call(Derived.note(Derived(), "x")) == [expected, expected]
        assert await commander.call(Derived.make("x")) == expected
        assert await commander.call(Derived().make("x")) == expected
        assert await commander.call(Base.plain("x")) == ("Handler", ("x",))
        assert await commander.call(Base.plain(Base, 1)) == ("Handler", (Base, 1))


async def test_a_classmethod_that_does_not_look_up_what_it_holds() -> None:
    """So it is from Python 3.13 on; `types.MethodType` is what it is there."""
    make = types.MethodType(vars(Base)["make"].__func__, Derived)
    async with Commander() as commander:
        assert await commander.call(make("x")) == ("Derived", "Handler", "x")


async def test_a_copy_of_a_call_runs_as_itself() -> None:
    ran = list[Node[Any]]()

    @handler
    async def note(node: Handler[None]) -> None:
        ran.append(node)

    call = note()
    copied = copy.copy(call)
    async with Commander() as commander:
        commander.call(call)
        commander.call(copied)
    assert ran == [call, copied]


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
