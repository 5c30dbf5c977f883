import gc
import threading
import weakref
from concurrent.futures import Future, wait
from typing import Any

import pytest

from treadle import executor as module
from treadle.executor import DaemonExecutor


def test_results_and_errors() -> None:
    executor = DaemonExecutor()
    assert executor.submit(lambda a, b: a + b, 1, b=2).result(10) == 3
    with pytest.raises(KeyError):
        executor.submit({}.__getitem__, "x").result(10)
    with pytest.raises(RuntimeError, match="StopIteration"):
        executor.submit(next, iter(())).result(10)
    with pytest.raises(RuntimeError, match="GeneratorExit"):
        executor.submit(_raise, GeneratorExit()).result(10)
    executor.shutdown()


def _raise(error: BaseException) -> None:
    raise error


def test_idle_threads_are_used_again() -> None:
    executor = DaemonExecutor()
    names = set[str]()
    for _ in range(20):
        names.add(executor.submit(lambda: threading.current_thread().name).result(10))
        while not executor._free:  # the thread is free a moment after its result
            pass
    assert executor._threads == 1


def test_beyond_the_bound_jobs_wait_their_turn() -> None:
    executor, gate = DaemonExecutor(max_threads=2), threading.Event()
    blocked = [executor.submit(gate.wait, 10) for _ in range(2)]
    queued = [executor.submit(int, "7") for _ in range(5)]
    assert not any(job.done() for job in queued)
    assert executor._threads == 2
    gate.set()
    jobs: list[Future[Any]] = [*blocked, *queued]
    wait(jobs, 10)
    assert [job.result() for job in queued] == [7] * 5
    again = [executor.submit(int, "8") for _ in range(5)]
    assert [job.result(10) for job in again] == [8] * 5


def test_a_job_that_is_left_behind_does_not_count() -> None:
    executor, gate = DaemonExecutor(max_threads=2), threading.Event()
    for round in range(1, 8):
        hanging = [executor.submit(gate.wait, 10) for _ in range(2)]
        waiting = executor.submit(int, "7")
        while not all(job.running() for job in hanging):
            pass
        assert not waiting.done()
        assert not hanging[0].cancel()
        assert waiting.result(10) == 7
        assert not hanging[1].cancel()
        assert not hanging[1].cancel()  # counted once
        assert executor.left_behind == 2 * round
    gate.set()
    while executor.left_behind:
        pass
    assert executor.submit(int, "8").result(10) == 8


def test_the_pool_grows_within_a_bound() -> None:
    executor, gate = DaemonExecutor(max_threads=1), threading.Event()
    blocked = [executor.submit(gate.wait, 10) for _ in range(20)]
    assert executor.is_full
    assert [executor.grow() for _ in range(8)] == [*[True] * 7, False]
    assert executor.size == 8
    gate.set()
    wait(blocked, 10)
    while executor.is_full:
        pass
    assert not executor.grow()


def test_a_thread_that_the_system_does_not_give_for_a_job_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor, gate = DaemonExecutor(max_threads=1), threading.Event()
    blocked = executor.submit(gate.wait, 10)
    waiting = executor.submit(int, "7")

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", NoThread)
        assert not executor.grow()
    gate.set()
    assert blocked.result(10)
    assert waiting.result(10) == 7


def test_a_cancelled_job_is_not_run() -> None:
    executor, gate = DaemonExecutor(max_threads=1), threading.Event()
    ran: list[int] = []
    first = executor.submit(gate.wait, 10)
    second = executor.submit(ran.append, 1)
    third = executor.submit(ran.append, 3)
    assert second.cancel()
    gate.set()
    jobs: list[Future[Any]] = [first, third]
    wait(jobs, 10)
    assert ran == [3]


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.001)
    executor = DaemonExecutor()
    seen: list[threading.Thread] = []
    executor.submit(lambda: seen.append(threading.current_thread())).result(10)
    seen[0].join(10)
    assert not seen[0].is_alive()
    assert (executor._threads, executor._free) == (0, 0)
    assert executor.submit(int, "7").result(10) == 7


def test_threads_do_not_hold_up_exit() -> None:
    executor, gate = DaemonExecutor(), threading.Event()
    executor.submit(gate.wait, 10)
    workers = [t for t in threading.enumerate() if t.name == "treadle executor"]
    assert workers
    assert all(thread.daemon for thread in workers)
    gate.set()


def test_a_thread_that_the_system_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, ran = DaemonExecutor(), list[int]()

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start"):
        patch.setattr(threading, "Thread", NoThread)
        executor.submit(ran.append, 1)
    executor.submit(ran.append, 2).result(10)
    assert ran == [2]
    assert executor._threads == 1


def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Big:
        def work(self) -> None: ...

    executor, big = DaemonExecutor(), Big()
    reference = weakref.ref(big)
    executor.submit(big.work).result(10)
    del big
    while not executor._free:  # the thread is free a moment after its result
        pass
    gc.collect()
    assert reference() is None


def test_the_bound_is_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DaemonExecutor(0)


def test_a_thread_that_is_promised_a_job_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    class Watched(DaemonExecutor):
        def _leave(self) -> bool:
            left = super()._leave()
            asked.set()
            return left

    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.001)
    executor = Watched()
    future: Future[object] = module._JobFuture(executor._leave_behind)
    assert executor._take_place()
    executor._start()
    assert asked.wait(10)
    executor._jobs.put((future, lambda: 7))
    assert future.result(10) == 7
