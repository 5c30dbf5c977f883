import asyncio
from types import TracebackType
from typing import Self

import pytest

from treadle.per_loop import PerLoop


class Thing:
    """Counts its openings and closings."""

    log: list[str]

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        self.log.append("open")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.sleep(0)
        self.log.append("close")


def test_one_for_each_loop_and_closed_with_it() -> None:
    log: list[str] = []
    things = PerLoop(lambda: Thing(log))

    async def use() -> None:
        first, second = await asyncio.gather(things.get(), things.get())
        assert first is second is await things.get()
        log.append("use")

    asyncio.run(use())
    asyncio.run(use())
    assert log == ["open", "use", "close"] * 2


def test_what_failed_to_open_is_tried_again() -> None:
    attempts: list[int] = []

    class Flaky(Thing):
        async def __aenter__(self) -> Self:
            attempts.append(1)
            if len(attempts) == 1:
                raise ConnectionError("not yet")
            return await super().__aenter__()

    async def use() -> None:
        things = PerLoop(lambda: Flaky([]))
        with pytest.raises(ConnectionError):
            await things.get()
        assert isinstance(await things.get(), Flaky)

    asyncio.run(use())
