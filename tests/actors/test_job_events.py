"""What a thread is told of its jobs."""

import asyncio

import pytest

from treadle.actors.job_events import (
    MAX_OUTPUT_CHARS,
    ending_of,
    interruption_of,
    restart_of,
    told_of,
)
from treadle.domain.events import JobSettled
from treadle.domain.result import RunResult
from treadle.domain.state import OpenJob
from treadle.domain.usage import Usage
from treadle.errors import ServerFailed
from treadle.jobs import Commander, Node
from treadle.tools.output import Image

pytestmark = pytest.mark.anyio

JOB = OpenJob("job_1", "count", "run_1")
BACK = OpenJob("job_2", "count", "run_1", background=True)


async def ended(work: object) -> Node[object]:
    """A node that has settled, with `work` as what it returned or raised."""

    async def body() -> object:
        await asyncio.sleep(1)
        if isinstance(work, BaseException):
            raise work
        return work

    async with Commander(on_failure="collect") as commander:
        node = await commander.submit(body)
        await node.settling()
        _ = node.exception
    return node


RESULT = RunResult(
    run_id="r", thread_id="t",
    output="out", text="what it said", refusal="", items=[], history=[], usage=Usage(),
    status="completed", stop_reason="end_turn", steps=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (None, ""),
        ("text", "text"),
        ({"a": [1, 2]}, '{"a":[1,2]}'),
        (b"bytes", ""),
        (object(), ""),
        (Image(b"png"), ""),
        (RESULT, "what it said"),
        ("\udc80", "?"),
    ],
)
async def test_a_result_is_told_as_text(result: object, shown: str) -> None:
    settled = ending_of(await ended(result), JOB, 1.5)
    assert settled == JobSettled(
        run_id="run_1", job_id="job_1", outcome="completed", output=shown, seconds=1.5
    )


async def test_long_results_are_cut() -> None:
    settled = ending_of(await ended("x" * 100_000), BACK, 1.0)
    assert len(settled.output) < MAX_OUTPUT_CHARS + 100
    assert settled.announcement is not None
    assert len(settled.announcement.text) < MAX_OUTPUT_CHARS + 200


async def test_an_error_is_told_in_words() -> None:
    settled = ending_of(await ended(ValueError("no such file")), BACK, 1.0)
    assert (settled.outcome, settled.code) == ("failed", "job_failed")
    assert settled.message == "ValueError: no such file"
    assert settled.wakes
    assert settled.announcement is not None
    assert settled.announcement.text == (
        "[The background job count has failed.] ValueError: no such file"
    )


async def test_an_error_of_treadles_keeps_its_code() -> None:
    settled = ending_of(await ended(ServerFailed("Out of order.")), JOB, 1.0)
    assert (settled.code, settled.message) == ("server_failed", "Out of order.")
    assert settled.announcement is None


def test_an_error_that_cannot_be_shown() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert told_of(Broken()) == "Broken: (its message cannot be shown)"


@pytest.mark.parametrize(("announces", "wakes"), [("wake", True), ("quiet", False)])
def test_the_end_of_a_process_is_announced(announces: str, wakes: bool) -> None:
    job = OpenJob("job_2", "count", "run_1", background=True, announces=announces)  # type: ignore[arg-type]
    settled = interruption_of(job, " Its class is not known here.")
    assert (settled.outcome, settled.code, settled.wakes) == ("failed", "interrupted", wakes)
    assert settled.announcement is not None
    assert settled.message in settled.announcement.text


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        OpenJob("job_2", "count", "run_1", background=True, announces="never"),
        OpenJob("job_3", "count", "run_1", parent="job_2", background=True),
    ],
)
def test_only_a_job_of_the_thread_itself_announces_its_end(job: OpenJob) -> None:
    assert interruption_of(job, "").announcement is None


def test_another_start() -> None:
    job = OpenJob(
        "job_2", "count", "run_1", "job_1", True, "helper", "quiet", "m:Count", '{"n":1}', 3
    )
    event = restart_of(job)
    assert (event.job_id, event.parent, event.attempt) == ("job_2", "", 4)
    assert (event.agent, event.announces, event.kind, event.arguments, event.background) == (
        "helper", "never", "m:Count", '{"n":1}', True,
    )  # fmt: skip
