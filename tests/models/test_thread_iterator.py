"""A synchronous iterator in its thread: bounded, closed, and never in the way of the loop."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from treadle.models.thread_iterator import ThreadIterator

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

PATIENCE = 10.0


@pytest.fixture
def anyio_backend() -> str:
    """Threads live in real time."""
    return "asyncio"


class Numbers:
    """Counts up, notes how far it came and where, and when it was closed."""

    def __init__(self, end: int | None = None, error: BaseException | None = None) -> None:
        self.given = 0
        self.threads: set[int] = set()
        self.closed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.blocked = threading.Event()
        self._end = end
        self._error = error

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.threads.add(threading.get_ident())
        if not self.gate.is_set():
            self.blocked.set()
            assert self.gate.wait(PATIENCE)
        if self.given == self._end:
            if self._error is not None:
                raise self._error
            raise StopIteration
        self.given += 1
        return self.given

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed.set()


async def until_set(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE)


async def test_all_items_in_order_from_one_thread() -> None:
    numbers = Numbers(1000)
    assert [n async for n in ThreadIterator(numbers, 8)] == list(range(1, 1001))
    await until_set(numbers.closed)
    assert len(numbers.threads) == 1
    assert threading.get_ident() not in numbers.threads


async def test_it_runs_ahead_of_the_reader_by_no_more_than_the_limit() -> None:
    numbers = Numbers()
    iterator = ThreadIterator(numbers, 3)
    assert await anext(iterator) == 1
    for _ in range(50):
        await asyncio.to_thread(lambda: None)
        assert numbers.given <= 1 + 3
    iterator.leave()
    await until_set(numbers.closed)


async def test_the_loop_goes_on_while_the_iterator_waits() -> None:
    numbers = Numbers(1)
    numbers.gate.clear()
    iterator = ThreadIterator(numbers, 3)
    first = asyncio.ensure_future(anext(iterator))
    await until_set(numbers.blocked)
    assert not first.done()
    numbers.gate.set()
    assert await first == 1
    assert [n async for n in iterator] == []


async def test_what_it_raises_is_raised_after_what_it_gave() -> None:
    iterator = ThreadIterator(Numbers(2, KeyError("lost")), 8)
    assert [await anext(iterator), await anext(iterator)] == [1, 2]
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            await anext(iterator)


async def test_an_iterator_that_cannot_be_closed() -> None:
    assert [n async for n in ThreadIterator([1, 2], 1)] == [1, 2]
    with pytest.raises(TypeError, match="not iterable"):
        await anext(ThreadIterator(17, 1))  # type: ignore[arg-type]


async def test_a_generator_is_closed_when_the_reader_leaves() -> None:
    closed = threading.Event()

    def generate() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    iterator = ThreadIterator(generate(), 2)
    assert await anext(iterator) == 1
    iterator.leave()
    await until_set(closed)


async def test_a_busy_iterator_is_closed_when_it_has_its_next_item() -> None:
    numbers = Numbers()
    numbers.gate.clear()
    iterator = ThreadIterator(numbers, 2)
    reader = asyncio.ensure_future(anext(iterator))
    await until_set(numbers.blocked)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    iterator.leave()
    assert not numbers.closed.is_set()
    numbers.gate.set()
    await until_set(numbers.closed)


async def test_who_left_gets_nothing_more() -> None:
    untouched = Numbers()
    iterator = ThreadIterator(untouched, 2)
    iterator.leave()
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    await until_set(untouched.closed)
    assert untouched.given == 0


def test_a_loop_that_is_closed_meanwhile_ends_it() -> None:
    numbers = Numbers()

    async def begin() -> None:
        assert await anext(ThreadIterator(numbers, 100_000)) == 1

    numbers.gate.set()
    asyncio.run(begin())
    assert numbers.closed.wait(PATIENCE)
