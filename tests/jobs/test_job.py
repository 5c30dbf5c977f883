"""Jobs: nodes that carry their own data."""

from dataclasses import dataclass

import pytest

from weft.jobs import Commander, Job

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
