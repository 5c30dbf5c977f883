"""Jobs as data: what is stored comes back, and what cannot come back is refused at once."""

import dataclasses
import datetime
import enum
import gc
import sys
import types
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs import stored_strings

from treadle.errors import ConfigurationError, JobNotRestartable
from treadle.jobs.job import Job
from treadle.jobs.stored import MAX_ARGUMENTS, kind_of, restored, stored

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Place:
    """Data within data."""

    city: str
    at: tuple[float, float]
    seen: datetime.datetime | None = None


@dataclass
class Base(Job[None], restartable=True):
    text: str
    count: int = 0

    async def task(self) -> None:
        """Does nothing."""


@dataclass
class Everything(Base):
    """All kinds of fields that be valid JSON data."""

    ratio: float = 0.5
    is_new: bool = False
    nothing: None = None
    words: list[str] = field(default_factory=list[str])
    by_number: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    place: Place | None = None
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    when: datetime.datetime | None = None
    color: Color = Color.RED
    either: int | str = 0
    raw: bytes = b""
    some: frozenset[int] = frozenset()
    made: int = field(default=0, kw_only=True)


def fields_of(job: Job[Any]) -> dict[str, object]:
    return {one.name: getattr(job, one.name) for one in dataclasses.fields(job)}  # type: ignore[arg-type]


def again(job: Job[Any]) -> Job[Any]:
    """The job after a crash: a new one of the same class and fields."""
    made = restored(*stored(job))
    assert made is not job
    assert type(made) is type(job)
    assert made.state == "pending"
    return made


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**100), 2**100)
floats = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(timezones=st.none() | st.just(datetime.UTC))
places = st.builds(Place, texts, st.tuples(floats, floats), st.none() | times)


@given(
    st.builds(
        Everything,
        text=texts,
        count=numbers,
        ratio=floats,
        is_new=st.booleans(),
        words=st.lists(texts, max_size=3),
        by_number=st.dictionaries(st.integers(-9, 9), st.lists(numbers, max_size=2), max_size=3),
        place=st.none() | places,
        places=st.dictionaries(texts, places, max_size=2),
        when=st.none() | times,
        color=st.sampled_from(Color),
        either=st.integers(0, 9) | texts,
        raw=st.binary(max_size=9),
        some=st.frozensets(st.integers(0, 9)),
        made=numbers,
    )
)
def test_what_is_stored_comes_back(job: Everything) -> None:
    before, after = fields_of(job), fields_of(again(job))
    assert after == before
    assert [type(value) for value in after.values()] == [type(value) for value in before.values()]


def test_the_kind_is_the_place_of_the_class() -> None:
    kind, arguments = stored(Base("x"))
    assert kind == kind_of(Base) == f"{__name__}:Base"
    assert arguments == '{"text":"x","count":0}'


# Fields of all sorts


@dataclass
class Computed(Job[int], restartable=True):
    """Keeps something that is not data next to its data."""

    number: int
    client: object = field(init=False, repr=False)
    double: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.client = object()
        self.double = 2 * self.number

    async def task(self) -> int:
        """Returns a number."""
        return self.double


def test_what_a_job_computes_for_itself_is_not_stored() -> None:
    job = Computed(4)
    assert stored(job)[1] == '{"number":4}'
    made = again(job)
    assert isinstance(made, Computed)
    assert made.double == 8
    assert made.client is not job.client


@dataclass
class Fetch(Job[T], Generic[T], restartable=True):
    """A job that is generic."""

    value: T
    more: list[T]

    async def task(self) -> T:
        """Returns its value."""
        return self.value


@dataclass
class FetchNumber(Fetch[int]):
    """A job of a generic class."""


@pytest.mark.parametrize("cls", [Fetch, FetchNumber])
def test_a_generic_class(cls: type[Fetch[int]]) -> None:
    assert fields_of(again(cls(1, [2, 3]))) == {"value": 1, "more": [2, 3]}


@pytest.mark.parametrize("cls", [stored_strings.Written, stored_strings.Inherits])
def test_annotations_that_are_strings(cls: type[stored_strings.Written]) -> None:
    job = cls(stored_strings.Page("a", 1), datetime.date(2024, 2, 29))
    assert fields_of(again(job)) == fields_of(job)


@dataclass
class Elsewhere(stored_strings.Written):
    """Inherits fields whose annotations mean something in another module."""

    own: Color = Color.BLUE


def test_fields_that_another_module_defines() -> None:
    job = Elsewhere(stored_strings.Page("a", 1), datetime.date(2024, 2, 29), own=Color.RED)
    assert fields_of(again(job)) == fields_of(job)


class Undecorated(Base):
    """A class below a dataclass that adds no fields."""


def test_a_class_without_fields_of_its_own() -> None:
    made = again(Undecorated("x", 3))
    assert fields_of(made) == {"text": "x", "count": 3}


@dataclass
class Named(Job[None], restartable=True):
    """A name may be a field."""

    name: str

    async def task(self) -> None:
        """Does nothing."""


def test_a_name_is_stored_as_any_field() -> None:
    assert again(Named("a")).name == "a"


# Other versions


def test_a_field_that_is_gone_and_one_that_is_new() -> None:
    made = restored(kind_of(Base), '{"text":"x","color":"red"}')
    assert fields_of(made) == {"text": "x", "count": 0}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{}", "missing 1 required positional argument: 'text'"),
        ('{"text":1}', "Expected `str`, got `int`"),
        ('{"text":"x","count":"y"}', "Expected `int`, got `str`"),
        ("[]", "Expected `object`, got `array`"),
        ("{", "truncated"),
    ],
)
def test_fields_of_another_version_that_do_not_fit(arguments: str, problem: str) -> None:
    with pytest.raises(JobNotRestartable, match="does not take the fields it had") as raised:
        restored(kind_of(Base), arguments)
    assert problem in str(raised.value)
    assert kind_of(Base) in str(raised.value)


@dataclass
class Picky(Job[None], restartable=True):
    number: int

    def __post_init__(self) -> None:
        if self.number == 13:
            raise LookupError("no thirteen")

    async def task(self) -> None:
        """Does nothing."""


def test_a_class_that_refuses_what_it_took_before() -> None:
    with pytest.raises(JobNotRestartable, match="no thirteen") as raised:
        restored(kind_of(Picky), '{"number":13}')
    assert isinstance(raised.value.__cause__, LookupError)


def test_what_is_not_known_here() -> None:
    with pytest.raises(JobNotRestartable, match=r"job nowhere:Lost is known here; import its"):
        restored("nowhere:Lost", "{}")


@dataclass
class NoMore(Base, restartable=False):
    """Was restartable once."""


def test_a_class_that_is_no_longer_restartable() -> None:
    with pytest.raises(JobNotRestartable, match="is known here"):
        restored(kind_of(NoMore), '{"text":"x"}')


MODULE = """
from dataclasses import dataclass
from treadle.jobs.job import Job

class Family(Job[None]):
    async def task(self) -> None: ...

@dataclass
class Twice(Family, restartable=True):
    version: int = VERSION
"""


def test_of_two_classes_of_one_name_the_last_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: list[types.ModuleType] = []
    for version in (1, 2, 3):
        module = types.ModuleType("stored_twice")
        monkeypatch.setitem(sys.modules, "stored_twice", module)
        exec(MODULE.replace("VERSION", str(version)), vars(module))
        modules.append(module)
        made = restored("stored_twice:Twice", "{}")
        assert type(made) is module.Twice
        assert fields_of(made) == {"version": version}
    del modules, module, made
    gc.collect()


# What is refused


class Plain(Job[None], restartable=True):
    async def task(self) -> None:
        """Does nothing."""


@dataclass
class Odd(Job[None], restartable=True):
    """Takes anything at all."""

    what: Any

    async def task(self) -> None:
        """Does nothing."""


@dataclass
class Exact(Job[None], restartable=True):
    number: float

    async def task(self) -> None:
        """Does nothing."""


@dataclass
class Unknown(Job[None], restartable=True):
    what: "NobodyKnows"  # type: ignore[name-defined]  # noqa: F821

    async def task(self) -> None:
        """Does nothing."""


@dataclass
class MadeOfMore(Job[None], restartable=True):
    """Is made with something that is not a field."""

    number: int
    more: dataclasses.InitVar[int]

    def __post_init__(self, more: int) -> None:
        self.number += more

    async def task(self) -> None:
        """Does nothing."""


class MadeOtherwise(Base):
    """Is made with something else than its fields."""

    def __init__(self, words: list[str]) -> None:
        super().__init__(" ".join(words))


def deep() -> list[object]:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (Plain(), "must be a dataclass"),
        (Odd(object()), "be valid JSON data: .*object"),
        (Odd(print), "be valid JSON data"),
        (Odd({1: {2}, (1, 2): 3}), "be valid JSON data"),
        (Odd("\ud800"), "be valid JSON data"),
        (Odd(deep()), "be valid JSON data"),
        (Exact(float("nan")), "Expected `float`, got `null`"),
        (Exact("no number"), "Expected `float`, got `str`"),  # type: ignore[arg-type]
        (Unknown(1), "be valid JSON data: name 'NobodyKnows' is not defined"),
        (MadeOfMore(1, 2), "what it is made of: missing a required argument: 'more'"),
        (MadeOtherwise(["a"]), "what it is made of: missing a required argument: 'words'"),
    ],
)
def test_what_could_not_be_made_again_is_refused(job: Job[Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        stored(job)
    assert str(raised.value).startswith(f"{type(job).__name__} is restartable, so ")


def test_a_class_of_a_function_is_refused() -> None:
    @dataclass
    class Local(Base):
        pass

    with pytest.raises(ConfigurationError, match="a class of a module"):
        stored(Local("x"))


def test_too_large_is_counted_in_bytes() -> None:
    around = len('{"what":""}')
    kind, arguments = stored(Odd("x" * (MAX_ARGUMENTS - around)))
    assert len(arguments) == MAX_ARGUMENTS
    assert fields_of(restored(kind, arguments))["what"] == "x" * (MAX_ARGUMENTS - around)
    for text in ("x" * (MAX_ARGUMENTS - around + 1), "ü" * (MAX_ARGUMENTS // 2)):
        with pytest.raises(ConfigurationError, match="more than 1,000,000 bytes"):
            stored(Odd(text))
