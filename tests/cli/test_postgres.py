"""The command on a PostgreSQL database."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.postgres import pooler, server

import treadle as package
from treadle import Agent
from treadle.cli.database import Database, database_of, shown, url_of
from treadle.errors import ThreadDamaged, ThreadNotFound
from treadle.testing import Pause, ScriptedModel, Text

SECRET = "s3cret"


def treadle(*arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "treadle.cli.main", *arguments],
        capture_output=True,
        env={**os.environ, "TREADLE_MODEL": "demo", **environ},
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("option", "environ", "wanted"),
    [
        ("postgresql://h/x", {}, "postgresql://h/x"),
        ("", {"TREADLE_DATABASE": "postgres://h/x"}, "postgres://h/x"),
        (None, {"TREADLE_DATABASE": "a.db"}, Path("a.db")),
        (Path("b.db"), {"TREADLE_DATABASE": "postgres://h/x"}, Path("b.db")),
        ("b.db", {}, Path("b.db")),
    ],
)
def test_which_database(option: Database | None, environ: dict[str, str], wanted: Database) -> None:
    assert database_of(option, environ) == wanted


@pytest.mark.parametrize(
    ("database", "wanted"),
    [
        (Path("a/b.db"), "a/b.db"),
        ("postgresql://h/x", "postgresql://h/x"),
        ("postgresql://ann@h:5432/x", "postgresql://ann@h:5432/x"),
        (f"postgresql://ann:{SECRET}@h:5432/x", "postgresql://ann@h:5432/x"),
        (f"postgresql://:{SECRET}@h/x", "postgresql://@h/x"),
        (f"postgresql://h/x?user=a&password={SECRET}", "postgresql://h/x"),
    ],
)
def test_no_password_is_shown(database: Database, wanted: str) -> None:
    assert shown(database) == wanted
    assert url_of("postgresql://h/x") == "postgresql://h/x"


async def converse(url: str) -> str:
    agent = Agent(ScriptedModel(["Hello."]), name="a")
    async with package.open(url, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        return thread.id


@pytest.mark.needs("postgres")
@pytest.mark.real_clock
def test_a_conversation(tmp_path: Path) -> None:
    url = server().url()
    source = tmp_path / "treadle.db"
    asyncio.run(converse(f"sqlite:///{source}"))
    done = treadle("migrate", url, "--database", str(source))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith(
        "Copied 1 conversation to postgresql://treadle@/postgres"
    )
    listed = treadle("threads", "--json", TREADLE_DATABASE=url)
    assert listed.returncode == 0, listed.stderr.decode()
    assert json.loads(listed.stdout)["title"] == "hi"
    checked = treadle("doctor", "demo", "--database", url)
    assert f"database: ok ({shown(url)})" in checked.stdout.decode()
    for refused, why in (
        (("backup", "copy.db"), "tools of PostgreSQL"),
        (("migrate", "x.db"), "not the URL of a PostgreSQL database"),
        (("chat", "hi"), "chat with --url"),
    ):
        done = treadle(*refused, "--database", url)
        assert done.returncode == 1
        assert why in done.stderr.decode()


@pytest.mark.needs("pgbouncer")
@pytest.mark.real_clock
def test_the_pooler_is_checked() -> None:
    url = server().url()
    asyncio.run(converse(url))
    for place, words in (
        (pooler().url(), f"database: ok ({shown(url)} behind {shown(pooler().url())})"),
        (pooler().url("missing"), "does not exist"),
    ):
        checked = treadle("doctor", "demo", "--database", url, TREADLE_POOLER=place)
        assert words in checked.stdout.decode()
        assert checked.returncode == ("ok" not in words), checked.stdout


@pytest.mark.needs("postgres")
@pytest.mark.real_clock
def test_a_conversation_that_another_process_drives_is_deleted() -> None:
    url = server().url()

    async def work() -> None:
        agent = Agent(ScriptedModel([[Pause(600), Text("Late.")], "Hello."]), name="a")
        async with package.open(url, agents=[agent]) as runtime:
            thread, other = [await runtime.create_thread(agent) for _ in range(2)]
            run = await thread.send("hi")
            done = await asyncio.to_thread(
                treadle, "delete", thread.id, "--yes", TREADLE_DATABASE=url
            )
            assert (done.returncode, done.stderr) == (0, b"")
            with pytest.raises(ThreadNotFound):
                await run.result(timeout=30)
            assert [info.id for info in await runtime.threads()] == [other.id]
            assert (await (await other.send("hi")).result()).text == "Hello."

    asyncio.run(work())


@pytest.mark.needs("postgres")
@pytest.mark.real_clock
def test_a_conversation_is_repaired_while_others_are_driven() -> None:
    url = server().url()

    def repair(thread_id: str) -> dict[str, object]:
        done = treadle("repair", thread_id, "--json", TREADLE_DATABASE=url)
        assert (done.returncode, done.stderr) == (0, b"")
        return json.loads(done.stdout)

    async def work() -> None:
        agent = Agent(ScriptedModel([[Pause(600), Text("Late.")], *["Hello."] * 9]), name="a")
        damaged = await converse(url)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE event SET body = '{' WHERE position & 4294967295 = 2")
            connection.execute("DELETE FROM snapshot")
        async with package.open(url, agents=[agent]) as runtime:
            thread, other = await runtime.connect(damaged), await runtime.create_thread(agent)
            under_way = await other.send("wait")
            with pytest.raises(ThreadDamaged):
                await thread.send("and now?")
            removed = await asyncio.to_thread(repair, thread.id)
            assert removed == {"thread_id": thread.id, "events": [2], "entries": 0}
            assert (await (await thread.send("again")).result(timeout=30)).text == "Hello."
            # A conversation that a node drives is taken from it, and resumed there.
            removed = await asyncio.to_thread(repair, other.id)
            assert removed == {"thread_id": other.id, "events": [], "entries": 0}
            assert (await under_way.result(timeout=30)).text == "Hello."

    asyncio.run(work())


@pytest.mark.needs("postgres")
@pytest.mark.real_clock
def test_a_server() -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "treadle.cli.main", "serve", "demo", "--json"),
            *("--port", "0", "--database", server().url()),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "TREADLE_MODEL": "demo"},
    )
    try:
        assert process.stdout is not None
        serving = json.loads(process.stdout.readline())
        assert serving["database"] == "postgresql://treadle@/postgres"
        done = treadle("chat", "hi", "--url", serving["url"], TREADLE_KEY=serving["key"])
        assert done.returncode == 0, done.stderr.decode()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
