"""Permits: how many threads may run at a time, and which of those that wait is the next."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from itertools import count
from typing import TypeVar

from msgspec import Struct

from treadle.errors import ConfigurationError

T = TypeVar("T")


class RunLimits(Struct, frozen=True):
    """At most how many threads of an owner, and of a node, run at a time; None is no limit.

    Threads without an owner count for their node only.
    """

    per_owner: int | None = None
    per_node: int | None = None

    @property
    def are_set(self) -> bool:
        """Whether there are any."""
        return self.per_owner is not None or self.per_node is not None

    def __post_init__(self) -> None:
        for name, most in (("owner", self.per_owner), ("node", self.per_node)):
            if most is not None and (isinstance(most, bool) or not most > 0):
                raise ConfigurationError(
                    f"max_runs_per_{name}={most!r} must be above 0; None is no limit."
                )


NO_LIMITS = RunLimits()


class LimitedNode:
    """A node with its limits; `wake` lets a thread be driven that has got its permit."""

    def __init__(self, limits: RunLimits, wake: Callable[[str], None]) -> None:
        self.limits = limits
        self.wake = wake


class _Asked(Struct, frozen=True):
    number: int  # in the order in which they asked
    thread_id: str
    owner: str
    node: LimitedNode


class Permits:
    """The permits of the nodes of one process.

    The threads of an owner get them in the order in which they asked; the owners take turns.
    """

    def __init__(self) -> None:
        self._given: dict[str, _Asked] = {}
        self._unused: set[str] = set()  # those of them that waited, and have not asked again
        self._asked: dict[str, _Asked] = {}  # those that wait
        # The same by owner and node: a search reads only the first of each, however many wait.
        self._waiting: dict[str, dict[LimitedNode, OrderedDict[str, _Asked]]] = {}
        self._numbers = count()
        self._of_owner: Counter[str] = Counter()
        self._of_node: Counter[LimitedNode] = Counter()
        self._waiting_of_node: Counter[LimitedNode] = Counter()

    def ask(self, thread_id: str, owner: str, node: LimitedNode) -> bool:
        """Returns whether a thread may run now; else it waits, and its node is woken in time.

        A thread that has a permit asks for another run: those that wait come first.
        """
        if thread_id in self._unused:
            self._unused.discard(thread_id)
            return True
        self._take_back(thread_id)
        if thread_id not in self._asked:
            one = _Asked(next(self._numbers), thread_id, owner, node)
            self._asked[thread_id] = one
            nodes = self._waiting.setdefault(owner, {})
            nodes.setdefault(node, OrderedDict())[thread_id] = one
            self._waiting_of_node[node] += 1
        return thread_id in self._give(self._owners_beside(owner, node), thread_id)

    def end(self, thread_id: str) -> None:
        """Takes the permit of a thread back, or forgets that it waits for one."""
        one = self._take_back(thread_id)
        if one is not None:
            self._give(self._owners_beside(one.owner, one.node))
        elif thread_id in self._asked:
            self._forget(self._asked[thread_id])

    def leave(self, node: LimitedNode) -> None:
        """Ends the permits of a node that has stopped."""
        for one in [one for one in self._asked.values() if one.node is node]:
            self._forget(one)
        for one in [one for one in self._given.values() if one.node is node]:
            self._take_back(one.thread_id)
        self._give(self._waiting)

    def room(self, node: LimitedNode) -> int | None:
        """Returns how many more threads of a node may run; None is any number."""
        most = node.limits.per_node
        return None if most is None else most - self._of_node[node]

    def _owners_beside(self, owner: str, node: LimitedNode) -> Iterable[str]:
        """Returns the owners that may have got room by what a thread of a node gave back."""
        return (owner,) if node.limits.per_node is None else self._waiting

    def _take_back(self, thread_id: str) -> _Asked | None:
        one = self._given.pop(thread_id, None)
        if one is not None:
            self._unused.discard(thread_id)
            _decrease(self._of_owner, one.owner)
            _decrease(self._of_node, one.node)
        return one

    def _forget(self, one: _Asked) -> None:
        """Removes one from those that wait."""
        del self._asked[one.thread_id]
        _decrease(self._waiting_of_node, one.node)
        nodes = self._waiting.pop(one.owner)
        del nodes[one.node][one.thread_id]
        if not nodes[one.node]:
            del nodes[one.node]
        if nodes:
            self._waiting[one.owner] = nodes  # behind the other owners

    def _give(self, owners: Iterable[str], asking: str = "") -> set[str]:
        """Gives what there is; wakes those that get one, except the one that asks."""
        given = set[str]()
        while (one := self._next(owners)) is not None:
            self._forget(one)
            self._given[one.thread_id] = one
            self._of_owner[one.owner] += 1
            self._of_node[one.node] += 1
            given.add(one.thread_id)
            if one.thread_id != asking:
                self._unused.add(one.thread_id)
                one.node.wake(one.thread_id)
            owners = self._owners_beside(one.owner, one.node)
        return given

    def _next(self, owners: Iterable[str]) -> _Asked | None:
        full = set[LimitedNode]()
        for owner in owners:
            firsts = list[_Asked]()
            for node, threads in self._waiting.get(owner, {}).items():
                most = node.limits.per_owner
                if self.room(node) == 0:
                    full.add(node)
                    if len(full) == len(self._waiting_of_node):
                        return None
                elif not owner or most is None or self._of_owner[owner] < most:
                    firsts.append(next(iter(threads.values())))
            if firsts:
                return min(firsts, key=lambda one: one.number)
        return None


def _decrease(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
