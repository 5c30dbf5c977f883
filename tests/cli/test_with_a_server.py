"""The commands that work on conversations, with a server and with a database that it drives."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.forked import run_program
from tests.server.test_process import started

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

AGENT = """
import treadle
from treadle import Agent, tool
from treadle.testing import Call, Pause, ScriptedModel, Text

@tool(needs_approval=True)
def pay(amount: int) -> str:
    return f"paid {amount}"

@tool(external=True)
def ask(question: str) -> str:
    raise NotImplementedError

turns = [
    "Hello.",
    [Call("pay", '{"amount": 5}', "c1"), Call("pay", '{"amount": 6}', "c2"),
     Call("ask", '{"question": "Why?"}', "c3")],
    "Done.",
    [Pause(600), Text("Late.")],
    "Chatted.",
]
agent = Agent(ScriptedModel(turns), name="clerk", tools=[pay, ask])
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def treadle(folder: Path, *arguments: str, given: str = "", code: int = 0) -> str:
    """Runs a command; returns what it prints."""
    done = await asyncio.to_thread(
        run_program,
        ["-m", "treadle", *arguments],
        env={**os.environ, "NO_COLOR": "1"},
        stdin=given.encode(),
        cwd=folder,
        warn="error",
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout.decode() + (done.stderr.decode() if code else "")


async def events_of(folder: Path, thread: str) -> list[Any]:
    """Returns the events of a conversation of the database."""
    lines = await treadle(folder, "show", thread, "--json", "--database", "treadle.db")
    return [json.loads(line)["event"] for line in lines.splitlines()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("by_url", [True, False])
async def test_a_conversation(
    tmp_path: Path, by_url: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.server.test_process.AGENT", AGENT)
    async with started(tmp_path, "--no-auth") as server:
        url = ["--url", f"http://127.0.0.1:{server.port}"]
        where = url if by_url else ["--database", "treadle.db"]
        sent = json.loads(await treadle(tmp_path, "send", "Hi.", "--wait", "--json", *url))
        assert (sent["text"], sent["status"]) == ("Hello.", "completed")
        thread = sent["thread_id"]
        (listed,) = (await treadle(tmp_path, "threads", "--json", *where)).splitlines()
        assert json.loads(listed)["id"] == thread
        for _ in range(2):  # with a key, it is sent once
            again = await treadle(
                tmp_path, "send", "Pay.", "--thread", thread, "--key", "k", *where
            )
            assert again.split()[0] == thread
        for _ in range(100):
            waiting = (await treadle(tmp_path, "calls", thread, "--json", *where)).splitlines()
            if len(waiting) == 3:
                break
        shown = await treadle(tmp_path, "calls", *where)
        assert f"treadle approve {thread} c1\n  pay\n    amount: 5" in shown
        assert "requires_action" in await treadle(
            tmp_path, "threads", "--status", "requires_action", "--json", *where
        )
        for given, problem in (('{"amount": "x"}', "amount"), ("[1]", "not a JSON object")):
            edit = ("approve", thread, "c1", "--arguments", given, *where)
            assert problem in await treadle(tmp_path, *edit, code=1 if "{" in given else 2)
        edit = ("approve", thread, "c1", "--arguments")
        await treadle(tmp_path, *edit, '{"amount": 6}', *where)
        await treadle(tmp_path, *edit, "-", *where, given='{"amount": 6}')
        await treadle(tmp_path, "deny", thread, "c2", "--reason", "Too much.", *where)
        await treadle(tmp_path, "answer", thread, "c3", "-", *where, given="Because. 🌱")
        assert "c9" in await treadle(tmp_path, "approve", thread, "c9", *where, code=1)
        run = again.split()[1]
        for _ in range(100):
            if "completed" in await treadle(tmp_path, "threads", *where):
                break
        text = await treadle(tmp_path, "show", thread, "--database", "treadle.db")
        for words in ("paid 6", "denied: Too much.", "Because. 🌱", "Done."):
            assert words in text
        (message, *_) = [
            event["item"]["id"]
            for event in await events_of(tmp_path, thread)
            if event["type"] == "message.added"
        ]
        for command, pinned in (("pin", True), ("unpin", False)):
            done = json.loads(await treadle(tmp_path, command, thread, message, "--json", *where))
            assert done == {"thread_id": thread, "message_id": message, "pinned": pinned}
            assert await treadle(tmp_path, command, thread, message, *where) == ""  # once more
        for _ in range(100):
            pins = [one for one in await events_of(tmp_path, thread) if "pinned" in one["type"]]
            if len(pins) == 2:
                break
        assert [one.get("pinned", True) for one in pins] == [True, False]
        unknown = await treadle(tmp_path, "pin", thread, "msg_none", *where, code=1)
        assert "The history has no message 'msg_none'" in unknown
        await treadle(tmp_path, "send", "Wait.", "--last", *where)
        await treadle(tmp_path, "cancel", thread, *where)
        assert "no run in progress" in (
            await treadle(tmp_path, "cancel", thread, *where, code=1)
        ) or "cancel" in await treadle(tmp_path, "threads", *where)
        await treadle(tmp_path, "cancel", thread, run, *where)  # it has ended
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "treadle", "watch", thread, "--json", *where,
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert watching.stdout is not None
        first = json.loads(await watching.stdout.readline())
        assert (first["position"], first["event"]["type"]) == ("1", "message.added")
        watching.kill()
        await watching.wait()
        if by_url:
            chatted = await treadle(tmp_path, "chat", "And?", "--thread", thread, *url)
            assert "Chatted." in chatted
        deleted = await treadle(tmp_path, "delete", thread, "--yes", *where, code=not by_url)
        words = f"Deleted the conversation {thread}." if by_url else "serve, use --url instead."
        assert words in deleted
        assert (thread in await treadle(tmp_path, "threads", *where)) == (not by_url)


async def test_what_is_refused(tmp_path: Path) -> None:
    for arguments, words in {
        ("threads", "--url", "http://x", "--database", "y"): "only one of --url and --database",
        ("chat", "hi", "--url", "http://x", "--memory"): "--url does not go with",
        ("send", "hi"): "--thread ID or --last",
        ("threads", "--url", "http://127.0.0.1:1"): "could not be reached",
        ("threads", "--url", "http://u:secret@x"): "contains a user",
    }.items():
        output = await treadle(tmp_path, *arguments, code=1)
        assert words in output
        assert "secret" not in output
        assert len(output.splitlines()) == 1
