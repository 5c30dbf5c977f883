"""A job: a node that carries its own data and does its work in `task`."""

from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar, get_args

from typing_extensions import Format, get_annotations

from treadle.domain.events import Announces
from treadle.errors import ConfigurationError
from treadle.jobs.failure import require_on_failure
from treadle.jobs.node import Node

T_co = TypeVar("T_co", covariant=True)


class Job(Node[T_co]):
    """A unit of work with data of its own; write a subclass with `async def task(self)`.

        @dataclass
        class Greet(Job[str]):
            person: str

            async def task(self) -> str:
                return f"Hello {self.person}!"

    `task` may submit children, and await them or not; the job has settled when all have. What it
    returns is the job's result; a handler or a job it returns runs as its child, and the result of
    that is the result. Each job is one node: make a new one for each submission.

    A field cannot have the name of an attribute of a node, such as `id` or `result`, for which the
    class raises `ConfigurationError`; `name` may be one.

    Class keywords, as in `class Greet(Job[str], restartable=True)`; subclasses inherit them:

    - `restartable`: promises that the job may be started again with the arguments it had, after the
      process has died under it (default False).
    - `announces`: how a job placed under a thread's root reports its end to the thread: with a
      message that wakes the agent (`"wake"`, the default), with one that the next run reads
      (`"quiet"`), or not at all (`"never"`).
    """

    restartable: ClassVar[bool] = False
    announces: ClassVar[Announces] = "wake"

    def __init_subclass__(
        cls,
        *,
        restartable: bool | None = None,
        announces: Announces | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        _require_free_names(cls)
        # A dataclass would compare jobs by their data and make them unhashable, but two jobs of the
        # same data are two nodes; and `asyncio.gather` wants them hashable. It leaves a class what
        # that it defines itself, so each class gets a copy of what it inherits.
        if "__eq__" not in cls.__dict__:
            compare, hashed = cls.__eq__, cls.__hash__
            cls.__eq__, cls.__hash__ = compare, hashed
        if isinstance(on_failure := cls.__dict__.get("on_failure"), str):
            require_on_failure(f"{cls.__name__}.on_failure", on_failure)
        if restartable is not None:
            cls.restartable = restartable
        if announces is not None:
            if announces not in get_args(Announces):
                raise ConfigurationError(
                    f"{cls.__name__} has announces={announces!r}; it is wake, quiet or never."
                )
            cls.announces = announces

    async def task(self) -> "T_co | Node[T_co]":
        """Does the work of the job."""
        raise NotImplementedError(f"{type(self).__name__} has no task; write `async def task`.")

    def _node_body(self) -> "Coroutine[Any, Any, T_co | Node[T_co]]":
        return self.task()


def _require_free_names(cls: type[Job[Any]]) -> None:
    """Raises `ConfigurationError` for a field that would take the place of what a node is."""
    for base in cls.__mro__:
        if base in Job.__mro__:
            continue
        for name in get_annotations(base, format=Format.FORWARDREF):
            # Other names are settings of the class, which may be set.
            if name != "name" and hasattr(getattr(Job, name, None), "__get__"):
                raise ConfigurationError(
                    f"{cls.__name__} cannot have a field {name}: each node has that already; "
                    "give the field another name."
                )
