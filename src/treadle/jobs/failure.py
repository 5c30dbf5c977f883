"""Failures: where they go, and which of them have not been seen."""

from typing import Literal, get_args

from treadle.errors import ConfigurationError, JobError

OnFailure = Literal["fail_fast", "collect"]
"""The effect on the parent if a child fails that no code awaits.

`"fail_fast"`: the other children are cancelled, and the parent fails with the same exception.
`"collect"`: the parent continues, and lists the failure in its `errors`.
"""

MAX_KEPT = 100


def require_on_failure(name: str, value: object) -> None:
    """Raises `ConfigurationError` if the parameter `name` is not an `OnFailure`."""
    if value not in get_args(OnFailure):
        raise ConfigurationError(f"{name} is {value!r}; it must be fail_fast or collect.")


class Failure:
    """The exception a node ended with; `seen` once a caller has got it."""

    __slots__ = ("_left_out_of", "exception", "seen")

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception
        self.seen = False
        self._left_out_of: FailureLog | None = None

    def take(self) -> BaseException:
        """Returns the exception, and marks it as seen."""
        if not self.seen:
            log, self._left_out_of, self.seen = self._left_out_of, None, True
            if log is not None:
                log.left_out -= 1
        return self.exception

    def leave_out_of(self, log: "FailureLog") -> None:
        """Makes `log` count the failure without keeping it, until it is seen."""
        self._left_out_of = log
        log.left_out += 1


class FailureLog:
    """The failures of a tree that have not been seen.

    It keeps 100 of them and counts the others in `left_out`, so that a tree may fail forever.
    """

    def __init__(self) -> None:
        self._kept: list[Failure] = []
        self.left_out = 0

    def add(self, failure: Failure) -> None:
        """Keeps a failure until it is seen."""
        if failure.seen:
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept = [kept for kept in self._kept if not kept.seen]
        if len(self._kept) < MAX_KEPT:
            self._kept.append(failure)
        else:
            failure.leave_out_of(self)

    def take_unseen(self) -> list[BaseException]:
        """Returns the unseen exceptions, each once; the last one counts those not kept."""
        unseen = [failure for failure in self._kept if not failure.seen]
        self._kept = []
        exceptions = list({id(failure.exception): failure.take() for failure in unseen}.values())
        if self.left_out:
            exceptions.append(JobError(f"{self.left_out} more unseen failures were not kept."))
        return exceptions
