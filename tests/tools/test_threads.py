import threading
from concurrent.futures import wait

import pytest

from weft.tools import threads
from weft.tools.threads import ToolThreads


def test_results_and_errors() -> None:
    executor = ToolThreads()
    assert executor.submit(lambda a, b: a + b, 1, b=2).result(10) == 3
    with pytest.raises(KeyError):
        executor.submit({}.__getitem__, "x").result(10)
    with pytest.raises(RuntimeError, match="StopIteration"):
        executor.submit(next, iter(())).result(10)
    executor.shutdown()


def test_idle_threads_are_used_again() -> None:
    executor = ToolThreads()
    names = set[str]()
    for _ in range(20):
        names.add(executor.submit(lambda: threading.current_thread().name).result(10))
        while not executor._free:  # the thread is free a moment after its result
            pass
    assert executor._threads == 1


def test_beyond_the_bound_jobs_wait_their_turn() -> None:
    executor, gate = ToolThreads(max_threads=2), threading.Event()
    blocked = [executor.submit(gate.wait, 10) for _ in range(2)]
    queued = [executor.submit(int, "7") for _ in range(5)]
    assert not any(job.done() for job in queued)
    assert executor._threads == 2
    gate.set()
    wait([*blocked, *queued], 10)
    assert [job.result() for job in queued] == [7] * 5
    again = [executor.submit(int, "8") for _ in range(5)]
    assert [job.result(10) for job in again] == [8] * 5


def test_a_cancelled_job_is_not_run() -> None:
    executor, gate = ToolThreads(max_threads=1), threading.Event()
    ran: list[int] = []
    first = executor.submit(gate.wait, 10)
    second = executor.submit(ran.append, 1)
    third = executor.submit(ran.append, 3)
    assert second.cancel()
    gate.set()
    wait([first, third], 10)
    assert ran == [3]


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE_SECONDS", 0.001)
    executor = ToolThreads()
    seen: list[threading.Thread] = []
    executor.submit(lambda: seen.append(threading.current_thread())).result(10)
    seen[0].join(10)
    assert not seen[0].is_alive()
    assert (executor._threads, executor._free) == (0, 0)
    assert executor.submit(int, "7").result(10) == 7


def test_threads_do_not_hold_up_exit() -> None:
    executor, gate = ToolThreads(), threading.Event()
    executor.submit(gate.wait, 10)
    workers = [t for t in threading.enumerate() if t.name == "weft tool"]
    assert workers
    assert all(thread.daemon for thread in workers)
    gate.set()
