"""A job may call its own attributes and methods as it likes: they are not those of its node."""

import asyncio
from typing import Any

import pytest

from treadle.jobs import Commander, Job, handler
from treadle.jobs.lifecycle import Lifecycle

pytestmark = pytest.mark.anyio

NAMES = [
    "_callbacks",
    "_children",
    "_context",
    "_depth",
    "_errors",
    "_id",
    "_is_settled",
    "_listener",
    "_name",
    "_open",
    "_parent",
    "_policy",
    "_result",
    "_state",
    "_task",
    "_tree",
    "_waiters",
    "_work",
]


@handler
async def nothing(node: Any) -> None:
    pass


@pytest.mark.parametrize("name", NAMES)
async def test_of_attributes(name: str) -> None:
    class Own(Job[object]):
        def __init__(self) -> None:
            setattr(self, name, "before")

        async def task(self) -> object:
            before = getattr(self, name)
            setattr(self, name, "after")
            await self.submit(nothing())
            await asyncio.sleep(1)
            return before, getattr(self, name)

    job = Own().on("settled", lambda: None)
    async with Commander() as commander:
        await commander.submit(job)
        assert await job == ("before", "after")
    assert (job.name, job.state) == ("Own", "completed")


async def test_of_methods() -> None:
    class Own(Job[str]):
        async def task(self) -> str:
            return await self._body() + self._call() + self._start()

        async def _body(self) -> str:
            return "a"

        def _call(self) -> str:
            return "b"

        def _start(self) -> str:
            return "c"

        def _fail(self) -> None:
            raise AssertionError

        _stop = _report = _leave = _enter = _tell = _fail

    async with Commander() as commander:
        assert await (await commander.submit(Own())) == "abc"


def test_what_a_node_keeps_for_itself_has_a_name_of_its_own() -> None:
    private = {name for name in vars(Lifecycle) if name.startswith("_") and name[1] != "_"}
    strays = {name for name in private if not name.startswith("_node_")}
    assert not {name for name in strays if "Lifecycle" not in name}


async def test_a_child_that_cannot_be_placed_leaves_its_parent_whole() -> None:
    class Odd(Job[None]):
        @property
        def on_failure(self) -> Any:  # type: ignore[override]
            raise ValueError("odd")

    async def parent() -> str:
        with pytest.raises(ValueError, match="odd"):
            await commander.submit(Odd())
        return "done"

    async with Commander() as commander:
        assert await (await commander.submit(parent)) == "done"
    assert commander.root.state == "completed"
