"""Jobs: nodes that carry their own data."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from treadle.jobs import END, Commander, Graph, Job

pytestmark = pytest.mark.anyio


@dataclass
class Greet(Job[str]):
    person: str

    async def task(self) -> str:
        return f"Hello {self.person}!"


class Plain(Job[None]):
    def __init__(self) -> None:  # it need not call that of its base
        self.data = 7


class Restarted(Job[None], restartable=True, announces="never"):
    pass


class Inherits(Restarted):
    pass


class Differs(Restarted, restartable=False, announces="quiet"):
    pass


async def test_a_dataclass_can_be_a_job() -> None:
    async with Commander() as commander:
        greet = Greet("Ada")
        assert await (await commander.submit(greet)) == "Hello Ada!"
        assert (greet.name, greet.person) == ("Greet", "Ada")


def test_jobs_are_equal_to_themselves_only() -> None:
    assert Greet("Ada") != Greet("Ada")
    greet = Greet("Ada")
    assert {greet: 1}[greet] == 1

    @dataclass
    class Compared(Greet):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Compared) and other.person == self.person

        def __hash__(self) -> int:
            return hash(self.person)

    assert Compared("Ada") == Compared("Ada")

    @dataclass
    class Inherits(Compared):
        more: int = 0

    assert Inherits("Ada", 1) == Inherits("Ada", 2)
    assert hash(Inherits("Ada", 1)) == hash(Inherits("Ada", 2))


@dataclass(frozen=True)
class Frozen(Job[str]):
    name: str

    async def task(self) -> str:
        return f"{self.name} #{self.id}"


@dataclass(frozen=True, slots=True)
class FrozenSlots(Frozen):
    more: str = ""

    async def task(self) -> str:
        return self.name + self.more


@dataclass(frozen=True)
class FrozenToo(Frozen):
    more: str = ""

    async def task(self) -> str:
        with pytest.raises(FrozenInstanceError):
            self.more = "changed"  # type: ignore[misc]
        await self.submit(Frozen("child"))
        return self.more


async def test_a_frozen_dataclass_can_be_a_job() -> None:
    async with Commander() as commander:
        assert await (await commander.submit(Frozen("Ada"))) == "Ada #1"
        job = FrozenToo("Bea", "more")
        job.on("settled", lambda: None)
        assert await (await commander.submit(job)) == "more"
        graph = Graph[str, str](steps={"greet": Frozen}, edges={"greet": END}, start="greet")
        assert await (await commander.submit(graph("Cid"))) == "greet #5"
        assert await (await commander.submit(FrozenSlots("Dan", "!"))) == "Dan!"
    assert job.drawing() == "Bea #2 completed\n  child #3 completed"


@pytest.mark.parametrize(
    ("job", "restartable", "announces"),
    [
        (Plain, False, "wake"),
        (Restarted, True, "never"),
        (Inherits, True, "never"),
        (Differs, False, "quiet"),
    ],
)
def test_what_a_class_declares(job: type[Job[None]], restartable: bool, announces: str) -> None:
    assert job.restartable is restartable
    assert job.announces == announces
