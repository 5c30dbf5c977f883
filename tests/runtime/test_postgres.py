"""Runtimes on a PostgreSQL database, as programs open them."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgres import new_server, server

import treadle
from treadle import Agent, tool
from treadle.errors import ConfigurationError, JournalUnavailable
from treadle.journal import postgres, postgres_nodes
from treadle.testing import Call, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-postgresql.md"
NODES = PAGE.with_name("several-machines.md")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_program_of_the_page(tmp_path: Path) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "DATABASE_URL": server().url()},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"Hello Ada.\n"


def test_the_nodes_of_the_page(tmp_path: Path) -> None:
    code, *_ = re.findall(r"```python\n(.*?)```", NODES.read_text(), re.DOTALL)
    program = tmp_path / "app.py"
    program.write_text(code)
    command = [sys.executable, "-W", "error", str(program)]
    given = {"PATH": "/usr/bin:/bin", "DATABASE_URL": server().url()}
    nodes = [
        subprocess.Popen([*command, "work"], stdout=subprocess.PIPE, env=given) for _ in range(3)
    ]
    try:
        for node in nodes:
            assert node.stdout is not None
            assert node.stdout.readline() == b"ready\n"
        done = subprocess.run(command, capture_output=True, env=given, check=False)
        assert (done.returncode, done.stdout) == (0, b"Hello.\n"), done.stderr.decode()
        for node in nodes:
            node.terminate()
            assert node.wait(20) == 0
    finally:
        for node in nodes:
            node.kill()
            node.communicate()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "treadle.journal.postgres", "treadle.journal.postgres_connection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'treadle\[postgres\]'"):
        treadle.open("postgresql://host/name")


async def test_a_process_that_only_sends_is_answered_by_the_one_that_drives() -> None:
    url = server().url()
    agent = Agent(ScriptedModel(["Hello.", "Bye."]), name="a")
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent, owner="ann")
        async with treadle.open(url, agents=[agent], drive=False) as other:
            sender = await other.connect(thread.id)
            run = await sender.send("hi", key="k")
            assert (await asyncio.wait_for(run.result(), 10)).text == "Hello."
            assert (await sender.send("hi", key="k")).id == run.id
            again = await sender.send("bye")
            assert "".join([piece async for piece in again.text_stream()]) == "Bye."


SCRIPT = """
import asyncio, sys
import treadle
from treadle import Agent, tool
from treadle.testing import Call, ScriptedModel

ran = 0

@tool(idempotent=False)
async def pay() -> str:
    print("paid", flush=True)
    await asyncio.sleep(60)
    return "paid"

async def main():
    agent = Agent(ScriptedModel([[Call("pay", "{}")], "Done."]), name="a", tools=[pay])
    async with treadle.open(sys.argv[1], agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go", key="k")
        print(thread.id, run.id, flush=True)
        await run.result()

asyncio.run(main())
"""


async def test_a_killed_process_is_continued_and_pays_once() -> None:
    url = server().url()
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", SCRIPT, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(2)]
    finally:
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
    (ids,) = [line.split() for line in lines if line != "paid\n"]

    @tool(idempotent=False)
    async def pay() -> str:
        raise AssertionError("it may have been paid")

    agent = Agent(ScriptedModel(["Done."]), name="a", tools=[pay])
    async with treadle.open(url, agents=[agent]) as runtime:
        thread = await runtime.connect(ids[0])
        run = await thread.send("go", key="k")
        assert run.id == ids[1]
        assert (await run.result()).text == "Done."


async def test_runs_continue_over_a_restart_of_the_server_and_ask_nothing_twice() -> None:
    own = await asyncio.to_thread(new_server)
    try:
        turns = 12
        asked = 0

        @tool
        async def look() -> str:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.05)
            return "seen"

        agent = Agent(
            ScriptedModel([[Call("look", "{}")], "Done."] * turns),
            name="a",
            tools=[look],
        )
        async with treadle.open(own.url(), agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            first = asyncio.create_task(_talk(thread, turns))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
            assert await asyncio.wait_for(first, 30) == ["Done."] * turns
            # Each response was asked for once: the script has none left.
            assert asked == turns
            with pytest.raises(treadle.TreadleError):
                await (await thread.send("more")).result()
    finally:
        await asyncio.to_thread(own.remove)


async def test_a_shutdown_waits_for_no_server_that_stays_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "AWAY_SECONDS", 3600.0)  # only the shutdown ends a wait
    monkeypatch.setattr(postgres_nodes, "GRACE_SECONDS", 0.1)
    own = await asyncio.to_thread(new_server)
    begun, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def look() -> str:
        begun.set()
        await stopped.wait()
        return "seen"

    try:
        url = own.url()
        agent = Agent(ScriptedModel([[Call("look", "{}")], "Lost."]), name="a", tools=[look])
        runtime = treadle.open(url, agents=[agent])
        await runtime.start()
        thread = await runtime.create_thread(agent)
        ids = [(await thread.send("go", key="1")).id]
        await begun.wait()
        ids.append((await thread.send("more", key="2")).id)
        await asyncio.to_thread(own.stop, signal.SIGQUIT)
        stopped.set()  # its result cannot be stored
        reading = asyncio.create_task(runtime.threads())
        await runtime.drain(0.5)
        await runtime.shutdown()
        with pytest.raises(JournalUnavailable):
            await reading
        told = [one for one in caplog.messages if "the shutdown waits for it no longer" in one]
        assert len(told) == 1
        await asyncio.to_thread(own.start)
        again = Agent(ScriptedModel(["Done.", "More."]), name="a", tools=[look])
        async with treadle.open(url, agents=[again]) as other:
            kept = await other.connect(thread.id)
            runs = [await kept.send(text, key=key) for text, key in (("go", "1"), ("more", "2"))]
            assert [run.id for run in runs] == ids
            assert [(await run.result()).text for run in runs] == ["Done.", "More."]
    finally:
        await asyncio.to_thread(own.remove)


async def _talk(thread: treadle.Thread, turns: int) -> list[str]:
    return [(await (await thread.send(f"{n}")).result()).text for n in range(turns)]
