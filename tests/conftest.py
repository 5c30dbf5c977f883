"""What every test has: a virtual clock, no network, an alarm for blocking calls, and journals."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter
from tests import families

import treadle
from treadle import Runtime
from treadle.journal.memory import MemoryJournal
from treadle.journal.sqlite import SqliteJournal
from treadle.testing import VirtualClockLoop, forbid_network

# To collect the tests makes millions of objects and no garbage; it takes a third longer otherwise.
gc.disable()

# pydantic looks for its plugins once, at the first model, which may be on an event loop.
TypeAdapter(int)

# Clients of tests trust no certificates; to read those of the system takes each of them 20 ms.
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)
os.environ.pop("SSL_CERT_FILE", None)

# How long an example takes depends on the load of the machine; its result does not.
settings.register_profile("any_load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_load")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: tests on the real clock wait most of the time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files on the real clock, which wait, evenly among those that need the cores.

    A worker takes a file at a time, in this order: what a file starts, it starts once. That is
    `--dist loadfile --no-loadscope-reorder`; the groups of pytest-xdist 3.8 have no effect with
    pytest 9.2. Files on the real clock are taken from the last to the first: the campaigns and the
    type checkers, which need the most time, are behind the folders.
    """
    real = {item.path for item in items if item.get_closest_marker("real_clock")}
    files = list(dict.fromkeys(item.path for item in items))
    waiting = [file for file in reversed(files) if file in real]
    working = [file for file in files if file not in real]
    places = {
        file: place / len(kind) for kind in (waiting, working) for place, file in enumerate(kind)
    }
    items.sort(key=lambda item: places[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    families.require(item)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    line = families.left_out(terminalreporter.getreports("skipped"))
    if line:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def collections_skip_the_imports() -> None:
    """Hides what was imported from the garbage collector, which tests call explicitly.

    A full collection after each test of jobs took 0.1 s, nearly all of it for imported modules. The
    young objects are looked through every 5,000 instead of every 700: a tenth of all CPU was that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)
    gc.enable()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Async tests run on a virtual clock; a test that needs the real one overrides this."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    with forbid_network():
        yield


@cache
def _alarm() -> BlockBuster:
    """Builds the alarm once: to wrap all functions takes 2 ms, to put them in place 0.1 ms."""
    alarm = BlockBuster(scanned_modules=["treadle"], excluded_modules=["treadle.testing"])
    # Coverage measures treadle's code on the loop, and keeps its findings under a lock of its own.
    alarm.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
    # Opening a database follows the symbolic links of its path, once.
    alarm.functions["os.path.abspath"].can_block_in("runtime/runtime.py", {"_database"})
    # `has_reached` looks up one row, so that `subscribe` can refuse a position where it is called.
    for name in ("execute", "fetchone"):
        for kind in ("sqlite3.Connection", "sqlite3.Cursor"):
            if (function := alarm.functions.get(f"{kind}.{name}")) is not None:
                function.can_block_in("treadle/journal/sqlite.py", {"has_reached"})
    # The file of a time zone is small, and read once: a schedule is made in one turn of the loop.
    for name in ("os.stat", "io.BufferedReader.read"):
        alarm.functions[name].can_block_in("schedules/times.py", {"time_zone"})
    return alarm


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A blocking call of treadle's own code on the event loop raises."""
    alarm = _alarm()
    alarm.activate()
    try:
        yield
    finally:
        alarm.deactivate()


@pytest.fixture(params=["memory", "sqlite"])
def open_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Runtime]:
    """Opens a runtime on each kind of journal; opened again, it finds what was there before."""
    memory = MemoryJournal()

    def open_one(*agents: treadle.Agent, **options: object) -> Runtime:
        if request.param == "memory":
            return Runtime(memory, agents=agents, **options)  # type: ignore[arg-type]
        path = tmp_path / "treadle.db"
        index = tmp_path / "treadle.db-archive"
        return Runtime(SqliteJournal(path), agents=agents, index=index, **options)  # type: ignore[arg-type]

    return open_one
