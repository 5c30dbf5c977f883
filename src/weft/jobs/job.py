"""A job: a node that carries its own data and says in `task` what it does."""

from collections.abc import Coroutine
from typing import Any, ClassVar, Literal, TypeVar

from weft.jobs.node import Node

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

    A class declared `restartable=True` promises that it may be started again with the arguments it
    had, after the process has died under it: see `weft.jobs.stored`.
    """

    restartable: ClassVar[bool] = False
    announces: ClassVar[Literal["wake", "quiet", "never"]] = "wake"

    def __init_subclass__(
        cls,
        *,
        restartable: bool | None = None,
        announces: Literal["wake", "quiet", "never"] | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        if restartable is not None:
            cls.restartable = restartable
        if announces is not None:
            cls.announces = announces

    async def task(self) -> "T_co | Node[T_co]":
        """Does the work of the job."""
        raise NotImplementedError(f"{type(self).__name__} has no task; write `async def task`.")

    def _body(self) -> "Coroutine[Any, Any, T_co | Node[T_co]]":
        return self.task()
