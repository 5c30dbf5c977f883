"""Failures: where they go, and which of them nobody has seen."""

from collections.abc import Sequence
from typing import Literal

OnFailure = Literal["fail_fast", "collect"]
"""What the failure of a child that nobody awaits does to its parent.

`"fail_fast"`: the other children are cancelled, and the parent fails with the same exception.
`"collect"`: the parent goes on, and lists it in its `errors`.
"""

MAX_KEPT = 100


class Failure:
    """An exception a node ended with; `seen` once somebody was given it."""

    __slots__ = ("exception", "seen")

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception
        self.seen = False

    def take(self) -> BaseException:
        """Returns the exception, which is seen from now on."""
        self.seen = True
        return self.exception


class FailureLog:
    """The failures of a tree that nobody has seen yet.

    It keeps the first 100 of them and counts the others, so that a tree may fail for ever.
    """

    def __init__(self) -> None:
        self._kept: list[Failure] = []
        self._left_out = 0

    def add(self, failure: Failure) -> None:
        """Keeps a failure until it is seen."""
        if failure.seen:
            return
        if len(self._kept) >= MAX_KEPT:
            self._kept = [kept for kept in self._kept if not kept.seen]
        if len(self._kept) < MAX_KEPT:
            self._kept.append(failure)
        else:
            self._left_out += 1

    def take_unseen(self) -> BaseException | None:
        """Returns what nobody has seen: the exception, a group of several, or None."""
        failures = [failure for failure in self._kept if not failure.seen]
        exceptions = list({id(f.exception): f.take() for f in failures}.values())
        if len(exceptions) + self._left_out < 2:
            return exceptions[0] if exceptions else None
        return _group(exceptions, self._left_out)


def _group(exceptions: Sequence[BaseException], left_out: int) -> BaseException:
    more = f"; the first {len(exceptions)} are here" if left_out else ""
    text = f"{len(exceptions) + left_out} failures of jobs that nobody has seen{more}"
    return BaseExceptionGroup(text, exceptions)
