import asyncio
import selectors
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from treadle import Agent, Runtime
from treadle.errors import TestingError
from treadle.journal.sqlite import SqliteJournal
from treadle.testing import ScriptedModel
from treadle.testing.clock import NothingScheduled, VirtualClockLoop, has_other_threads, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"loop_factory": VirtualClockLoop})


async def test_anyio_plugin_runs_tests_on_the_virtual_clock():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    started = time.monotonic()
    await asyncio.sleep(3600)
    assert loop.time() == 3600
    assert time.monotonic() - started < 1


async def test_timers_fire_in_their_order_and_at_their_time():
    loop = asyncio.get_running_loop()
    start = loop.time()
    fired: list[tuple[str, float]] = []

    async def note(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        fired.append((name, loop.time() - start))

    async with asyncio.TaskGroup() as tasks:
        for name, delay in (("c", 3), ("a", 1), ("b", 2), ("day", 86400 * 3)):
            tasks.create_task(note(name, delay))
    assert fired == [("a", 1), ("b", 2), ("c", 3), ("day", 86400 * 3)]


async def test_timeout_fires_before_a_later_sleep_ends():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.sleep(6)
    assert asyncio.get_running_loop().time() == 5


async def test_time_stands_still_while_a_worker_is_busy():
    release = threading.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, release.set)
    loop.call_later(3600, pytest.fail)
    assert await asyncio.to_thread(release.wait, 10)
    assert loop.time() == 0.05


async def test_a_timeout_around_a_blocked_worker_still_fires():
    release = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.to_thread(release.wait, 10)
    release.set()
    assert asyncio.get_running_loop().time() == 0.02


async def test_busy_holds_the_clock_for_foreign_threads():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    done = asyncio.Event()
    # Longer than the grace, shorter than the timer.
    thread = threading.Timer(0.05, loop.call_soon_threadsafe, (done.set,))
    thread.start()
    with loop.busy():
        async with asyncio.timeout(60):
            await done.wait()
    thread.join()
    assert loop.time() == 0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the loop really waits before its jumps, at the most."""
    asked: list[float] = []
    select = selectors.DefaultSelector.select

    def noted(selector: selectors.DefaultSelector, timeout: float | None = None) -> object:
        asked.append(timeout or 0)
        return select(selector, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", noted)
    return asked


async def test_idle_threads_of_an_executor_need_no_grace(waits: list[float]):
    await asyncio.to_thread(int)
    assert threading.active_count() > 1
    waits.clear()
    await asyncio.sleep(60)
    assert waits
    assert not any(waits)


async def test_other_threads_are_given_a_grace(waits: list[float]):
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(10,))
    thread.start()
    try:
        await asyncio.sleep(60)
    finally:
        end.set()
        thread.join()
    assert max(waits) == 0.002


async def test_the_threads_of_a_runtime_need_no_grace(tmp_path: Path):
    journal, index = SqliteJournal(tmp_path / "treadle.db"), tmp_path / "treadle.db-archive"
    agent = Agent(ScriptedModel("Hello."))
    async with Runtime(journal, agents=[agent], index=index) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Hi")
        await run.result()
        await thread.archive.insert("A note.")
        assert await thread.archive.search("note")
        assert {one.name.split("_")[0] for one in threading.enumerate()} >= {
            "treadle-journal",
            "treadle-reader",
            "treadle-archive",
        }
        assert not has_other_threads()


async def test_sockets_of_the_same_loop_are_served_before_time_jumps():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            await asyncio.sleep(10)
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with asyncio.timeout(11):
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
        assert loop.time() == 30
        writer.close()
        await writer.wait_closed()


async def test_a_child_process_keeps_time_from_jumping():
    code = "import sys; sys.stdin.read(); print('done')"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate(b"")
    assert output == b"done\n"
    assert asyncio.get_running_loop().time() == 0


async def test_a_shell_command_keeps_time_from_jumping():
    process = await asyncio.create_subprocess_shell("exit 3")
    async with asyncio.timeout(30):
        assert await process.wait() == 3
    assert asyncio.get_running_loop().time() == 0


def test_a_wait_that_nothing_ends_is_an_error_that_names_the_task():
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingScheduled, match=r"wait_for_ever.*test_clock") as caught:
        run(wait_for_ever())
    assert isinstance(caught.value, TestingError)
    assert caught.value.code == "nothing_scheduled"


def test_a_foreign_thread_may_still_end_the_wait():
    async def main() -> str:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Timer(0.02, loop.call_soon_threadsafe, (future.set_result, "woken"))
        thread.start()
        try:
            return await future
        finally:
            thread.join()

    assert run(main()) == "woken"


def test_run_returns_and_raises_what_the_coroutine_does():
    async def main(fail: bool) -> int:
        await asyncio.sleep(60)
        if fail:
            raise LookupError
        return 7

    assert run(main(False)) == 7
    with pytest.raises(LookupError):
        run(main(True))


def test_an_open_listener_is_waited_for_rather_than_reported():
    async def main() -> bytes:
        arrived = asyncio.get_running_loop().create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set_result(await reader.read())
            writer.close()

        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            thread = threading.Timer(0.02, _send, (address, b"late"))
            thread.start()
            try:
                return await arrived
            finally:
                thread.join()

    assert run(main()) == b"late"


def _send(address: tuple[str, int], data: bytes) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(data)
