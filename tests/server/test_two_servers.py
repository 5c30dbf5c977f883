"""Two servers on one PostgreSQL database, of which one is killed in mid-text."""

import asyncio
import signal
from pathlib import Path

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
