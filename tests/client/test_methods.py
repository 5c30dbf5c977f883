"""A client has the methods of a runtime, with the same parameters."""

import inspect

import pytest

from treadle import (
    Archive,
    DeskSubscription,
    Files,
    Memory,
    RunSubscription,
    RuntimeView,
    Thread,
    ThreadRun,
)
from treadle.client import (
    Client,
    RemoteArchive,
    RemoteDesk,
    RemoteFiles,
    RemoteMemory,
    RemoteRun,
    RemoteSubscription,
    RemoteThread,
    RemoteView,
)

LEFT_OUT: dict[type, set[str]] = {
    Archive: {"follow"},
    RunSubscription: {"call_with_next", "leave", "statistics", "take", "wait", "wake"},
}
"""What a client does not have; a new method belongs here and into docs/reference/client.md."""

MORE = {
    Client: {"agents", "by", "register", "shutdown", "start"},
    RemoteView: {"by"},
    RemoteRun: {"is_driven"},
    RemoteSubscription: {"connect"},
}
PAIRS = [
    (RuntimeView, Client),
    (RuntimeView, RemoteView),
    (Thread, RemoteThread),
    (ThreadRun, RemoteRun),
    (RunSubscription, RemoteSubscription),
    (DeskSubscription, RemoteDesk),
    (Memory, RemoteMemory),
    (Files, RemoteFiles),
    (Archive, RemoteArchive),
]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("local", "remote"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_client_has_the_same_methods(local: type, remote: type) -> None:
    same = public(local) - LEFT_OUT.get(local, set())
    assert same <= public(remote)
    assert public(remote) - same == MORE.get(remote, set())
    for name in same - {"by", "owner"}:
        one, other = getattr(local, name), getattr(remote, name)
        if not callable(one):
            continue
        assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(other), name
        given, taken = inspect.signature(one).parameters, inspect.signature(other).parameters
        assert list(given) == list(taken), name
        assert {p.kind for p in given.values()} == {p.kind for p in taken.values()}, name
