"""Two servers on one PostgreSQL database, of which one is killed in mid-text."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from tests.postgres import server
from tests.server.serving import Client, Frame, frames, serving
from tests.server.test_process import TEXT, ask, follow, started, writing
from tests.server.test_shutdown import folded

import treadle
from treadle import Agent
from treadle.cli.database import with_access
from treadle.cli.keys import keys
from treadle.errors import JournalUnavailable
from treadle.journal import postgres_access
from treadle.journal.postgres_access import Access, AccessRows
from treadle.server.keys import Keys, add_row, new_key
from treadle.server.settings import ServerSettings
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_server_that_writes_is_killed(tmp_path: Path) -> None:
    database = ("--no-auth", "--database", await asyncio.to_thread(lambda: server().url()))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with started(tmp_path / "two", *database) as two:
        async with started(tmp_path / "one", *database) as one:
            ids = [(await ask(one.http))["thread_id"] for _ in range(4)]
            staying: list[list[Frame]] = [[] for _ in ids]
            moving: list[list[Frame]] = [[] for _ in ids]
            reading = [
                asyncio.ensure_future(follow(process, id, frames))
                for process, all_frames in ((two, staying), (one, moving))
                for id, frames in zip(ids, all_frames, strict=True)
            ]
            await writing(staying + moving)
            one.process.send_signal(signal.SIGKILL)
            await asyncio.wait(reading[len(ids) :])
        assert not any(folded(frames) for frames in staying + moving)
        # Those who watch at the other server notice nothing but a text that begins again.
        reading[len(ids) :] = [
            asyncio.ensure_future(follow(two, id, frames))
            for id, frames in zip(ids, moving, strict=True)
        ]
        async with asyncio.timeout(40):
            await asyncio.gather(*reading)
        for frames in staying + moving:
            assert folded(frames) == [TEXT]
            assert frames[-1].event == "run.completed"
            seqs = [frame.data["seq"] for frame in frames if "seq" in frame.data]
            assert seqs == list(range(1, len(seqs) + 1))
        assert all(any(one.event == "step.interrupted" for one in frames) for frames in staying)
        output = "".join(two.lines)
        assert "Traceback" not in output, output


@pytest.fixture
async def two_servers() -> AsyncIterator[tuple[list[Client], str]]:
    """Two servers on one database, whose keys are in it."""
    url = await asyncio.to_thread(lambda: server().url())
    agent = Agent(ScriptedModel(["Hi."] * 9), name="a")
    async with AsyncExitStack() as stack:
        yield (
            [
                await stack.enter_async_context(
                    serving(treadle.open(url, agents=[agent]), ServerSettings())
                )
                for _ in range(2)
            ],
            url,
        )


TwoServers = tuple[list[Client], str]


async def answered(client: Client, headers: dict[str, str], status: int) -> None:
    """Waits until requests with these headers get a status, for less than five seconds."""
    for _ in range(50):
        if (await client.send("GET", "/me", headers=headers)).status_code == status:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"It is not {status} yet.")


async def test_a_key_that_is_revoked_is_refused_by_all_servers(two_servers: TwoServers) -> None:
    (one, two), url = two_servers
    key, stored = new_key(owner="ada")
    headers = {"authorization": f"Bearer {key}"}
    assert (await one.send("GET", "/me", headers=headers)).status_code == 401
    await with_access(url, lambda rows: add_row(rows, stored))
    for client in (one, two):
        await answered(client, headers, 200)
    thread_id = (await one.call("POST", "/threads", {}, headers=headers))["id"]
    events = f"/api/v1/threads/{thread_id}/events"
    async with two.http.stream("GET", events, headers=headers) as stream:
        assert stream.status_code == 200
        assert await with_access(url, lambda rows: rows.remove_key(stored.id))
        assert not await with_access(url, lambda rows: rows.remove_key(stored.id))
        async with asyncio.timeout(5):
            (frame,) = [frame async for frame in frames(stream.aiter_bytes()) if frame.event]
        assert (frame.event, frame.data["reason"]) == ("stream.ended", "not_authenticated")
    for client in (one, two):
        await answered(client, headers, 401)


async def test_a_session_that_is_ended_is_refused_by_all_servers(two_servers: TwoServers) -> None:
    (one, two), url = two_servers
    key, stored = new_key()
    await with_access(url, lambda rows: add_row(rows, stored))
    await asyncio.sleep(1.1)
    begun = await one.send("POST", "/session", headers={"authorization": f"Bearer {key}"})
    assert begun.status_code == 200
    sessions: list[dict[str, str]] = []
    for client in (one, two):
        origin = str(client.http.base_url).rstrip("/")
        cookie = begun.headers["set-cookie"].partition(";")[0]
        sessions.append({"cookie": cookie, "origin": origin})
    for client, session in zip((one, two), sessions, strict=True):
        assert (await client.send("GET", "/me", headers=session)).status_code == 200
    ended = await two.send("DELETE", "/session", headers=sessions[1])
    assert ended.status_code == 204
    assert (await two.send("GET", "/me", headers=sessions[1])).status_code == 401
    await answered(one, sessions[0], 401)
    # A server that starts later knows it as well.
    agent = Agent(ScriptedModel([]), name="a")
    async with serving(treadle.open(url, agents=[agent]), ServerSettings()) as third:
        origin = str(third.http.base_url).rstrip("/")
        session = {"cookie": sessions[0]["cookie"], "origin": origin}
        assert (await third.send("GET", "/me", headers=session)).status_code == 401


async def test_sessions_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_access, "MAX_READ", 4)
    monkeypatch.setattr(postgres_access, "OVERLAP", 1)
    url = await asyncio.to_thread(lambda: server().url())
    keys, end = Keys(), time.time() + 1000

    async def read(rows: AccessRows) -> None:
        for n in range(10):
            await rows.end_session(f"k.{n}", end)
        keys.use_rows(rows)
        await keys.refresh()

    await with_access(url, read)
    assert all(keys.has_ended(f"k.{n}", end) for n in range(10))


async def test_while_the_database_is_away_the_keys_read_last_count(
    two_servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _), url = two_servers
    key, stored = new_key()
    headers = {"authorization": f"Bearer {key}"}
    await with_access(url, lambda rows: add_row(rows, stored))
    await asyncio.sleep(1.1)
    assert (await one.send("GET", "/me", headers=headers)).status_code == 200

    async def away(*_: object) -> Access:
        raise JournalUnavailable("away")

    monkeypatch.setattr(AccessRows, "read", away)
    await asyncio.sleep(1.1)
    assert (await one.send("GET", "/me", headers=headers)).status_code == 200
    assert (await one.send("GET", "/me", headers={})).status_code == 401


async def test_the_command_keeps_keys_in_the_database(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = await asyncio.to_thread(lambda: server().url())

    async def run(*arguments: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(
                keys.main, [*arguments, "--database", url], standalone_mode=False
            )
        printed = capsys.readouterr()
        return ended.value.code, printed.out + printed.err

    code, key = await run("create", "--name", "Ann")
    assert code == 0
    assert key.startswith("tk_")
    id = key.split("_")[1]
    assert (await run("list"))[1].startswith(f"{id} all owners admin never ends Ann")
    assert await run("revoke", id) == (0, f"Revoked {id}.\n")
    assert "no keys yet" in (await run("list"))[1]
    code, refusal = await run("revoke", "x")
    assert code != 0
    assert "has no key 'x'" in refusal


async def test_a_server_listens_for_others_where_it_is_told_to(tmp_path: Path) -> None:
    url = await asyncio.to_thread(lambda: server().url())
    config = tmp_path / "treadle.toml"
    config.write_text('[server]\nnode_name = "localhost"\n')
    async with started(tmp_path, "--no-auth", "--database", url, "--config", str(config)):
        (address,) = await asyncio.to_thread(addresses, url)
        assert address.startswith("tcp://:")
        assert "@localhost:" in address


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ('node_host = "0.0.0.0"', "TLS"),
        ('node_certificate = "node.pem"', "belong together"),
        ("node_port = 70000", "not a port"),
        ('restate_ingress = "restate"', "ingress="),
        ('restate_ingress = "http://x"\nrestate_host = "0.0.0.0"', "identity_keys"),
    ],
)
async def test_settings_of_a_node_that_do_not_fit(tmp_path: Path, given: str, word: str) -> None:
    config = tmp_path / "treadle.toml"
    config.write_text(f"[server]\n{given}\n")
    with pytest.raises(AssertionError, match=word):
        async with started(
            tmp_path, "--no-auth", "--database", "postgresql:///x", "--config", str(config)
        ):
            pass


def addresses(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [address for (address,) in connection.execute("SELECT address FROM node")]
