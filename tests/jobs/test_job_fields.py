"""A class of jobs: its data, and what it may not take the place of."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from treadle.errors import ConfigurationError
from treadle.jobs import Commander, Job, Node, OnFailure

PUBLIC = sorted(name for name in dir(Node) if not name.startswith("_"))
SETTINGS = {"name", "on_failure", "keeps_children"}


@pytest.mark.parametrize("name", [*(n for n in PUBLIC if n not in SETTINGS), "task", "_node_state"])
def test_a_field_cannot_take_the_place_of_what_a_node_is(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Wrong cannot have a field {name}: ") as raised:
        type("Wrong", (Job,), {"__annotations__": {name: int}, name: 0})
    assert raised.value.code == "configuration"


def test_neither_can_one_that_comes_from_elsewhere() -> None:
    @dataclass
    class Data:
        id: int

    with pytest.raises(ConfigurationError, match="Mixed cannot have a field id"):

        class Mixed(Job[None], Data):
            pass

    with pytest.raises(ConfigurationError, match="Below cannot have a field result"):

        class Below(Fine):
            result: str = ""


@dataclass
class Fine(Job[str]):
    """Has a name of its own, settings, and fields like those of a node."""

    keeps_children: ClassVar[bool] = False
    on_failure: ClassVar[OnFailure | None] = "collect"

    name: str
    number: int
    identity: int = 0
    results: list[str] = field(default_factory=list[str])
    later: "LaterData | None" = None

    async def task(self) -> str:
        """Returns its name."""
        await asyncio.sleep(1)
        return self.name


@dataclass
class LaterData:
    """Is defined after the class that names it."""


async def run(job: Job[Any]) -> Any:
    async with Commander() as commander:
        return await (await commander.submit(job))


@pytest.mark.anyio
async def test_a_job_with_data_of_its_own() -> None:
    job = Fine("fine", 3)
    assert repr(job) == "Fine(name='fine', number=3, identity=0, results=[], later=None)"
    assert await run(job) == "fine"
    assert (job.id, job.state, job.result) == (1, "completed", "fine")


def test_a_name_that_is_a_field_has_no_default_but_its_own() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        Fine(number=3)  # type: ignore[call-arg]

    @dataclass
    class Called(Job[None]):
        name: str = "anybody"

    assert (Called().name, Called("me").name) == ("anybody", "me")
    assert Job[None]().name == "Job"


def test_two_jobs_of_the_same_data_are_two() -> None:
    assert Fine("a", 1) != Fine("a", 1)
    assert len({Fine("a", 1), Fine("a", 1)}) == 2


def test_a_class_may_say_what_is_equal() -> None:
    class Same(Job[None]):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Same)

        def __hash__(self) -> int:
            return 1

    assert Same() == Same()


def test_subclasses_inherit_what_the_class_promises() -> None:
    class Again(Job[None], restartable=True, announces="quiet"):
        pass

    class Below(Again):
        pass

    class NoMore(Again, restartable=False, announces="never"):
        pass

    assert (Job.restartable, Job.announces) == (False, "wake")
    assert (Below.restartable, Below.announces) == (True, "quiet")
    assert (NoMore.restartable, NoMore.announces) == (False, "never")


@pytest.mark.anyio
async def test_a_job_without_a_task_says_so() -> None:
    class Empty(Job[None]):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no task; write `async def task`"):
        await run(Empty())
