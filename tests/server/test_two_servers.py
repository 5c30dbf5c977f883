"""Two servers on one PostgreSQL database, of which one is killed in mid-text."""

import asyncio
import signal
from pathlib import Path

import psycopg
import pytest
from tests.postgres import server
from tests.server.serving import Frame
from tests.server.test_process import TEXT, ask, follow, started, writing
from tests.server.test_shutdown import folded

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
