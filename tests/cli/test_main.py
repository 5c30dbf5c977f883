"""The command as a person runs it: exit codes, what is printed where, one line for an error."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.forked import run_program

import treadle as package
from treadle.journal.driver_lock import DriverLock
from treadle.testing import ScriptedModel

QUESTION = "What is the weather in Paris and in Beijing, and what is 17*23?"


@pytest.fixture(autouse=True)
def a_database_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_DATABASE", str(tmp_path / "folder" / "treadle.db"))


def treadle(
    *arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "TREADLE_MODEL"}
    }
    return run_program(
        ["-m", "treadle.cli.main", *arguments],
        stdin=stdin,
        cwd=cwd,
        env={**clean, "OLLAMA_HOST": "http://127.0.0.1:9", **environ},
    )


def test_three_tools_at_once_and_a_reply_of_their_outputs() -> None:
    done = treadle("chat", QUESTION)
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "built-in demo model" in done.stderr.decode()
    for part in ('get_weather(city="Paris")', 'get_weather(city="Beijing")', "17*23", "391"):
        assert part in out
    assert out.index("Let me look up the weather in Paris…\n") < out.index('● get_weather(city="Pa')
    reply = out.rsplit("✓", 1)[1]
    assert "Paris" in reply
    assert "Beijing" in reply
    assert "391" in reply
    assert "\x1b" not in out


def test_the_prompt_may_come_from_standard_input() -> None:
    done = treadle("chat", "--model", "demo", stdin=b"what is 2**10?\n")
    assert done.returncode == 0
    assert b"1024" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", ""], "The message is empty"),
        (["chat", "--model", "nope", "hi"], "is not a model name"),
        (["chat", "--model", "openai:gpt-5", "hi"], "needs a key: set OPENAI_API_KEY"),
        (["chat", "--agent", "nope", "hi"], "module:attribute"),
        (["chat", "--agent", "nope:x", "hi"], "cannot be imported"),
        (["chat", "--agent", "json:nope", "hi"], "has no attribute 'nope'"),
        (["chat", "--agent", "json:loads", "hi"], "not a treadle.Agent"),
        (["chat", "--model", "demo", b"caf\xe9"], "not valid UTF-8"),
    ],
)
def test_bad_input_gets_one_clear_line(arguments: list[str | bytes], words: str) -> None:
    done = treadle(*arguments)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert lines[-1].startswith("Error: ")
    assert words in lines[-1]
    assert "Traceback" not in done.stderr.decode()


def test_input_that_is_not_utf8() -> None:
    done = treadle("chat", "--model", "demo", stdin=b"caf\xe9")
    assert done.returncode == 1
    assert b"standard input is not UTF-8 (byte 3)" in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = treadle("chat", "--debug", "--model", "nope", "hi")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('boom')", b"cannot be imported: ValueError: boom"),
        ("def (:", b"cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", b"cannot be imported: SystemExit: 3"),
    ],
)
def test_a_module_that_fails_on_import(tmp_path: Path, source: str, words: bytes) -> None:
    (tmp_path / "broken.py").write_text(source)
    done = treadle("chat", "--agent", "broken:agent", "hi", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert words in done.stderr


def test_a_model_together_with_an_agent_is_refused() -> None:
    done = treadle("chat", "--model", "demo", "--agent", "json:loads", "hi")
    assert done.returncode == 1
    assert b"Use only one of --model and --agent" in done.stderr


def test_standard_input_has_a_bound() -> None:
    done = treadle("chat", "--model", "demo", stdin=("a" + "é" * 5_000_000).encode())
    assert done.returncode == 1
    assert b"more than 10,000,000 bytes" in done.stderr


AGENT = """
import treadle
from treadle.models.openai import OpenAIResponses
from treadle.testing import Text, Unfinished, ScriptedModel
from treadle.errors import ConnectionFailed
good = treadle.Agent(ScriptedModel(["Hello from mine."]))
bad = treadle.Agent(ScriptedModel([ConnectionFailed("No connection to there.")]),
                 retry=treadle.RetryPolicy(max_retries=0))
limited = treadle.Agent(ScriptedModel([["a"]]))
def broken(deps):
    raise KeyError("no deps")
raising = treadle.Agent(ScriptedModel(["a"]), instructions=broken)
retry = treadle.RetryPolicy(max_retries=0)
unreachable = treadle.Agent("openai:m@http://127.0.0.1:9/v1", retry=retry)
"""


def test_an_agent_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(AGENT)
    done = treadle("chat", "--agent", "mine:good", "hi", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"Hello from mine.\n")
    for name, words in (
        ("bad", b"No connection to there."),
        ("unreachable", b"127.0.0.1"),
        ("raising", b"KeyError: 'no deps'"),
    ):
        failed = treadle("chat", "--agent", f"mine:{name}", "hi", cwd=tmp_path)
        assert failed.returncode == 1
        assert failed.stderr.count(b"\n") == 1
        assert words in failed.stderr


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m treadle.cli.main chat --model demo '{QUESTION}' | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=50, check=False)
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr
    assert done.stdout.count(b"\n") == 1


def test_conversations_are_kept_listed_and_shown() -> None:
    assert treadle("chat", "--model", "demo", "what is 17*23?").returncode == 0
    assert treadle("chat", "--model", "demo", "--last", "what is 2**10?").returncode == 0
    assert treadle("chat", "--model", "demo", "what is 1+1?").returncode == 0
    assert treadle("chat", "--model", "demo", "--memory", "what is 5+5?").returncode == 0
    listed = treadle("threads").stdout.decode().splitlines()
    assert [line.split("completed")[1].strip() for line in listed] == [
        "what is 1+1?",
        "what is 17*23?",
    ]
    thread_id = listed[1].split()[0]
    assert treadle("chat", "--model", "demo", "--thread", thread_id, "what is 3*3?").returncode == 0
    shown = treadle("show", thread_id).stdout.decode()
    assert [line for line in shown.splitlines() if line.startswith(">")] == [
        "> what is 17*23?",
        "> what is 2**10?",
        "> what is 3*3?",
    ]
    assert "391" in shown
    assert "1024" in shown
    assert treadle("show", "--last").stdout.decode() == shown


JOBS = """
import asyncio
from dataclasses import dataclass
from typing import Any
import treadle
from treadle.jobs import Job
from treadle.jobs.agent_job import AgentJob
from treadle.testing import Call, ScriptedModel

@dataclass
class Page(Job[str]):
    name: str
    error: str = ""
    async def task(self) -> str:
        if self.error:
            raise ValueError(self.error)
        return f"{self.name} read"

class Crawl(Job[str]):
    async def task(self) -> str:
        await self.submit(Page("\\x1b[2Jtwo\\nlines"))
        return "crawled"

@dataclass
class Watch(Job[None], restartable=True, announces="never"):
    path: str
    async def task(self) -> None:
        await asyncio.sleep(3600)

@treadle.tool
async def start(ctx: treadle.RunContext[Any]) -> str:
    "Starts jobs."
    for job in (Crawl(), Page("bad", "broken\\x07"), AgentJob(small, "6 * 7?")):
        await asyncio.wait([(await ctx.jobs.submit(job)).taking()])
    await ctx.jobs.submit(Watch("/x"), parent=ctx.jobs.root)
    return "started"

def works(name):
    return treadle.Agent(ScriptedModel(["Done."]), name=name, description="Works.")

small = works("small")
ask = Call("adviser", '{"message": "hi"}', "c2")
model = ScriptedModel([[Call("start", "{}", "c1")], [ask], "Done."])
agent = treadle.Agent(model, tools=[start, works("adviser").as_tool()])
"""


REMEMBERING = """
import treadle
from treadle.memory import Block, block_tools
from treadle.testing import Call, ScriptedModel

note = Call("memory_append", r'{"label": "human", "text": "Drinks tea.\\n\\nAnd milk."}', "c1")
model = ScriptedModel([note, "Noted."])
blocks = [Block("human", "Name: Ada", "Who\\nthey are.", 900), Block("rules", read_only=True)]
agent = treadle.Agent(model, tools=block_tools(), blocks=blocks)
"""


def test_the_memory_blocks_of_a_conversation(tmp_path: Path) -> None:
    (tmp_path / "remembering.py").write_text(REMEMBERING)
    chat = treadle("chat", "--agent", "remembering:agent", "I drink tea.", cwd=tmp_path)
    assert chat.returncode == 0, chat.stderr
    assert "✎ human: +Drinks tea. + +And milk." in chat.stdout.decode()
    done = treadle("show", "--blocks", "--last")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (
        "human (32 of 900 characters)  Who they are.\n"
        "  Name: Ada\n  Drinks tea.\n\n  And milk.\n"
        "rules (0 of 5,000 characters, read-only)\n"
    )
    assert treadle("chat", "--model", "demo", "what is 1+1?").returncode == 0
    assert b"no memory blocks" in treadle("show", "--blocks", "--last").stdout


def test_a_conversation_as_a_tree(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    assert treadle("chat", "--agent", "jobs:agent", "go", cwd=tmp_path).returncode == 0
    done = treadle("show", "--tree", "--last")
    assert (done.returncode, done.stderr) == (0, b"")
    drawn = done.stdout.decode()
    assert "\x1b" not in drawn
    assert "\x07" not in drawn
    ids = re.compile(r"  ((run|job|thread)_\w+|c\d)(?=  |$)")
    times = re.compile(r"  \d+\.\d s")
    lines = [times.sub("", ids.sub("", line)) for line in drawn.splitlines()]
    odd = "\ufffd[2Jtwo lines"
    assert lines == [
        "run agent  completed",
        "├─ call start  completed  started",
        "├─ job Crawl  completed  crawled",
        f"│  └─ job {odd}  completed  {odd} read",
        "├─ job bad  failed  ValueError: broken\ufffd",
        "├─ job small  completed  Done.",
        "│  └─ agent small  completed",
        "│     └─ run small  completed",
        "└─ call adviser  completed  Done.",
        "   └─ agent adviser  completed",
        "      └─ run adviser  completed",
        "background job Watch  in progress",
    ]
    thread_id = treadle("threads").stdout.decode().split()[0]
    assert treadle("show", thread_id, "--tree").stdout.decode() == drawn
    # the thread of an agent is one like any other
    (adviser,) = re.findall(r"agent adviser .* (thread_\w+)", drawn)
    assert treadle("show", "--tree", adviser).stdout.startswith(b"run adviser  completed")


def test_the_tree_of_a_conversation_in_which_nothing_has_run(tmp_path: Path) -> None:
    database = tmp_path / "folder" / "treadle.db"
    database.parent.mkdir()

    async def make() -> str:
        agent = package.Agent(ScriptedModel([]))
        async with package.open(f"sqlite:///{database}", agents=[agent]) as runtime:
            return (await runtime.create_thread(agent)).id

    thread_id = asyncio.run(make())
    for named in ("--last", thread_id):
        done = treadle("show", "--tree", named)
        assert (done.returncode, done.stdout) == (0, b"Nothing has run on this thread yet.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "--tree"], "Give the ID of a conversation"),
        (["show", "--tree", "--last"], "There are no conversations yet"),
        (["show", "--last"], "There are no conversations yet"),
        (["watch"], "Give the ID of a conversation"),
        (["show", "x", "--last"], "Give the ID of a conversation"),
        (["chat", "--last", "--memory", "hi"], "only one of"),
        (["show", "--last", "--tree", "--blocks"], "only one of"),
        (
            ["chat", "--model", "demo", "--thread", "thread_none", "hi"],
            "The thread 'thread_none' was not found",
        ),
        (["chat", "--model", "demo", "--last", "hi"], "There are no conversations yet"),
        (["chat", "--model", "demo", "--database", "/dev/null/x.db", "hi"], "cannot be created"),
    ],
)
def test_bad_names_get_one_clear_line(arguments: list[str], words: str) -> None:
    done = treadle(*arguments)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith("Error: ")
    assert words in done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("threads", "There are no conversations yet"),
        ("calls", "No call waits"),
        ("schedules", "No message is sent later"),
    ],
)
def test_an_empty_list_is_no_error(command: str, words: str, tmp_path: Path) -> None:
    for _ in range(2):
        done = treadle(command)
        assert (done.returncode, words in done.stdout.decode()) == (0, True)
        done = treadle(command, "--json")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        if not (tmp_path / "folder").exists():  # once without a database, once with an empty one
            asyncio.run(an_empty_database(tmp_path / "folder" / "treadle.db"))


async def an_empty_database(path: Path) -> None:
    path.parent.mkdir()
    async with package.open(f"sqlite:///{path}"):
        pass


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_text("not a database at all, but long enough to be looked at as one")
    done = treadle("chat", "--model", "demo", "--database", str(other), "hi")
    assert done.returncode == 1
    assert b"Error: other.db is damaged or not a database" in done.stderr


def test_the_version() -> None:
    assert treadle("--version").stdout == b"treadle, version 0.1.0\n"


def test_a_chat_while_another_program_drives_has_a_database_of_its_own(tmp_path: Path) -> None:
    database = tmp_path / "folder" / "treadle.db"
    assert treadle("chat", "--model", "demo", "what is 1+1?").returncode == 0
    lock = DriverLock(database)
    lock.acquire()
    try:
        done = treadle("chat", "--model", "demo", "what is 2+3?")
        assert (done.returncode, b"5" in done.stdout) == (0, True)
        assert b"kept in" in done.stderr
        assert (tmp_path / "folder" / "treadle-demo.db").exists()
        # What is named is used, or nothing.
        for named in (["--last"], ["--database", str(database)]):
            done = treadle("chat", "--model", "demo", *named, "what is 1+1?")
            assert done.returncode == 1
            assert b"does not know the agent 'demo'" in done.stderr
        assert treadle("show", "--last").returncode == 0
    finally:
        lock.release()


def test_a_damaged_conversation_is_exported_and_repaired(tmp_path: Path) -> None:
    assert treadle("chat", "--model", "demo", "what is 2**10?").returncode == 0
    database = tmp_path / "folder" / "treadle.db"
    thread_id = treadle("threads").stdout.split()[0].decode()
    whole = treadle("export", thread_id).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in whole[1:]] == list(range(1, len(whole)))
    done = treadle("repair", thread_id)
    assert (done.returncode, done.stdout) == (0, b"Nothing is damaged.\n")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE event SET body = '{' WHERE position & 4294967295 = 2")
        connection.execute("INSERT INTO inbox (n, body) SELECT n, '{' FROM thread")
    connection.close()
    assert treadle("export", thread_id).stdout.splitlines() == [*whole[:2], b"{", *whole[3:]]
    file = tmp_path / "events.jsonl"
    done = treadle("export", thread_id, str(file))
    assert done.stdout == f"Wrote {len(whole)} lines to {file}.\n".encode()
    assert file.read_bytes().splitlines() == [*whole[:2], b"{", *whole[3:]]
    done = treadle("import", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: Line 3 of the export is not an event")
    done = treadle("export", thread_id, str(file))
    assert (done.returncode, done.stderr) == (
        1,
        b"Error: events.jsonl already exists; name a new file.\n",
    )
    done = treadle("repair", thread_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        b"Removed 1 damaged event: 2.\nRemoved 1 damaged entry from its inbox.\n"
    )
    assert treadle("repair", thread_id).stdout == b"Nothing is damaged.\n"
    assert treadle("chat", "--model", "demo", "--thread", thread_id, "what is 3*3?").returncode == 0


def test_a_conversation_moves_to_another_database(tmp_path: Path) -> None:
    assert treadle("chat", "--model", "demo", "what is 2**10?").returncode == 0
    thread_id = treadle("threads").stdout.split()[0].decode()
    file, database = tmp_path / "one.jsonl", tmp_path / "new" / "folder" / "other.db"
    assert treadle("export", thread_id, str(file)).returncode == 0
    to = ("--database", str(database))
    done = treadle("import", "--keep-id", str(file), *to)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (
        0, f"Imported the conversation {thread_id}.\n", b"",
    )  # fmt: skip
    assert treadle("export", thread_id, *to).stdout == file.read_bytes()
    done = treadle("import", "--keep-id", "-", *to, stdin=file.read_bytes())
    assert (done.returncode, b"exists already" in done.stderr) == (1, True)
    done = treadle("import", "--json", "--owner", "ann", "-", *to, stdin=file.read_bytes())
    copy = json.loads(done.stdout)["thread_id"]
    assert b"1024" in treadle("show", copy, *to).stdout
    done = treadle("import", "-", *to, stdin=b"")
    assert (done.returncode, b"not the header of an export" in done.stderr) == (1, True)
    done = treadle("import", str(tmp_path / "none"), *to)
    assert (done.returncode, done.stderr) == (1, b"Error: none does not exist.\n")


@pytest.mark.parametrize("command", [["export"], ["repair"], ["delete", "--yes"]])
def test_what_cannot_be_exported_repaired_or_deleted(command: list[str], tmp_path: Path) -> None:
    done = treadle(*command, "thread_none")
    assert (done.returncode, b"There are no conversations yet" in done.stderr) == (1, True)
    assert treadle("chat", "--model", "demo", "hi").returncode == 0
    done = treadle(*command, "thread_none")
    assert (done.returncode, b"thread_none" in done.stderr) == (1, True)
    thread_id = treadle("threads").stdout.split()[0].decode()
    lock = DriverLock(tmp_path / "folder" / "treadle.db")
    lock.acquire()
    try:
        done = treadle(*command, thread_id)
    finally:
        lock.release()
    assert (b"driven by another process" in done.stderr) == (command != ["export"])
    assert treadle("show", thread_id).returncode == 0


def test_a_conversation_is_deleted_and_no_other_is_resumed(tmp_path: Path) -> None:
    database = tmp_path / "folder" / "treadle.db"
    database.parent.mkdir()
    url = f"sqlite:///{database}"

    async def make() -> tuple[str, str]:
        agent = package.Agent(ScriptedModel(["Under a heliotrope."]), name="lost")
        async with package.open(url, agents=[agent]) as runtime:
            first = await runtime.create_thread(agent)
            await (await first.send("Where?")).result()
            assert await runtime.search("heliotrope")  # which makes the index
            other = await runtime.create_thread(agent)
        async with package.open(url, drive=False) as runtime:
            for id in (first.id, other.id):  # no process answers: each waits for its agent
                await (await runtime.connect(id)).send("And then?")
        return first.id, other.id

    deleted, kept = asyncio.run(make())
    assert b"heliotrope" in database.with_name("treadle.db-archive").read_bytes()
    before = treadle("export", kept).stdout
    done = treadle("delete", deleted)
    assert (done.returncode, done.stderr) == (
        1, b"Error: Standard input is not a terminal to ask on; add --yes.\n",
    )  # fmt: skip
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE event SET body = '{' WHERE position & 4294967295 = 2")
    connection.close()
    done = treadle("delete", deleted, "--yes")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (
        0, f"Deleted the conversation {deleted}.\n", b"",
    )  # fmt: skip
    for file in database.parent.iterdir():
        assert file.is_socket() or b"heliotrope" not in file.read_bytes(), file
    assert treadle("export", kept).stdout == before
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM inbox").fetchone() == (1,)
    connection.close()
    done = treadle("delete", "--last", "--yes", "--json")
    assert json.loads(done.stdout) == {"thread_id": kept, "deleted": True}
    assert treadle("threads", "--json").stdout == b""
    done = treadle("delete", "--last", "--yes", "--json")
    assert done.returncode == 1
    assert "no conversations" in json.loads(done.stderr)["error"]["message"]
