"""Which run a log record belongs to, and how it is written."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

import treadle
from treadle.logging import InRun, JsonFormatter, RunFilter, enter_call, logger_of
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

APP = logging.getLogger("app")


class Lines(logging.Handler):
    """Keeps what a program would write."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RunFilter())
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.lines.append(json.loads(line))


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    handler, root = Lines(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(before)


@treadle.tool
async def fails(n: int) -> str:
    """Fails in a task."""
    await asyncio.sleep(0)
    APP.info("in the tool")
    raise ValueError(f"no {n}")


@treadle.tool
def plain() -> str:
    """Runs in a thread."""
    APP.info("in a thread")
    return "ok"


async def test_records_of_a_run_carry_its_ids(lines: list[dict[str, object]]) -> None:
    script = [[Call("fails", '{"n": 1}', call_id="c1"), Call("plain", call_id="c2")], "Done."]
    agent = treadle.Agent(ScriptedModel(script), tools=[fails, plain])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Go.")
        await run.result()
    APP.info("after the run")
    ids = {"thread_id": thread.id, "run_id": run.id}
    found = {str(line["message"]): line for line in lines}
    assert len(found) == 4
    for message, line in found.items():
        expected = {} if message == "after the run" else ids
        assert {key: line[key] for key in ("thread_id", "run_id") if key in line} == expected
    assert found["in a thread"]["call_id"] == "c2"
    failed = next(line for line in lines if line["logger"] == "treadle.tools")
    assert (failed["call_id"], failed["level"]) == ("c1", "WARNING")


async def test_parallel_runs_are_told_apart(lines: list[dict[str, object]]) -> None:
    async def one(n: int) -> None:
        script = [Call("fails", f'{{"n": {n}}}', call_id=f"c{n}"), "Done."]
        await treadle.Agent(ScriptedModel(script), tools=[fails]).run("Go.")

    await asyncio.gather(*map(one, range(5)))
    runs = {(line["run_id"], line["call_id"]) for line in lines}
    assert len(lines) == 10
    assert len(runs) == 5
    APP.info("outside")
    assert "run_id" not in lines[-1]


def test_records_of_treadles_loggers_need_no_handler(caplog: pytest.LogCaptureFixture) -> None:
    logger = logger_of("treadle.tests")
    with InRun("thread_1", "run_1"):
        with InRun("thread_2", "run_2"):
            logger.warning("inside")
        logger.warning("between")
    logger.warning("outside")
    places = [(r.thread_id, r.run_id, r.call_id) for r in caplog.records]  # type: ignore[attr-defined]
    assert places == [("thread_2", "run_2", ""), ("thread_1", "run_1", ""), ("", "", "")]


def record_of(message: str, **extra: object) -> logging.LogRecord:
    record = logging.getLogger("app").makeRecord(
        "app", logging.ERROR, "f", 1, message, (), None, extra=extra
    )
    record.created = 0.5
    return record


def test_a_line_of_json() -> None:
    record = record_of("hé\n{}", user=7, empty="", tags=("a",))
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:00.500000+00:00",
        "level": "ERROR",
        "logger": "app",
        "message": "hé\n{}",
        "user": 7,
        "tags": ["a"],
    }


def test_a_line_of_what_is_no_json() -> None:
    loop: list[object] = []
    loop.append(loop)
    for odd in (object(), {1: object}, "\ud800", loop, {("a",): 1}):
        line = json.loads(JsonFormatter().format(record_of("m", odd=odd)))
        assert line["odd"]


def test_a_traceback() -> None:
    record = record_of("failed")
    try:
        raise ValueError("inner")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError: inner" in line["exception"]


async def test_a_call_is_left_with_its_task(lines: list[dict[str, object]]) -> None:
    async def call() -> None:
        enter_call("c1")
        APP.info("inside")

    with InRun("t", "r"):
        await asyncio.create_task(call())
        APP.info("after")
    assert [line.get("call_id") for line in lines] == ["c1", None]
