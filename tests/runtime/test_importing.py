"""Threads as files: exported and imported again, on every journal."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.postgres import server

import treadle
from treadle import Agent, Block, Runtime, Thread, tool
from treadle.actors.thread_export import MAX_LINE, read_export
from treadle.domain.files import InputFile
from treadle.errors import (
    Conflict,
    ExportInvalid,
    InvalidInput,
    JournalClosed,
    ThreadNotFound,
    UnknownFile,
)
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
REPORT = InputFile.from_bytes(PDF, "report.pdf")


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Needs a person."""
    return f"paid {amount}"


def pays(call_id: str = "c1") -> list[Call]:
    return [Call("pay", '{"amount": 3}', call_id)]


def an_agent(*script: object) -> Agent:
    return Agent(ScriptedModel(list(script)), name="a", tools=[pay], blocks=[Block("notes")])


async def awaiting(thread: Thread, message: treadle.Input) -> treadle.ThreadRun:
    run = await thread.send(message)
    async for event in run:
        if event.type == "run.requires_action":
            break
    return run


async def a_conversation(runtime: Runtime, agent: Agent, **options: Any) -> Thread:
    """Returns a thread at rest with all that a thread can contain."""
    options = {"metadata": {"n": 1, "name": "é\0"}, **options}
    thread = await runtime.create_thread(agent, **options)
    run = await awaiting(thread, ["Read.", REPORT])
    await (await runtime.for_owner(None, by="ann").connect(thread.id)).approve("c1")
    await run.result()
    await (await thread.send("More.", key="k1")).result()
    await thread.memory.append("notes", "likes tea")
    await thread.archive.insert("A fact about \u2028 zebras.")
    first = next(one for one in await thread.events() if one.type == "message.added")
    await thread.update(title="Renamed", metadata={"n": 2, "name": None})
    await thread.pin(first.item.id)
    return thread


def body(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def header(lines: list[bytes]) -> dict[str, Any]:
    return json.loads(lines[0])


def with_header(lines: list[bytes], **fields: Any) -> list[bytes]:
    changed = header(lines)
    changed["thread"] |= fields.pop("thread", {})
    return [json.dumps({**changed, **fields}).encode(), *lines[1:]]


async def same(one: Thread, other: Thread) -> None:
    """Asserts that two threads are the same except for their ids."""
    mine, its = await one.export(), await other.export()
    assert body(mine) == body(its)
    expected, found = header(mine), header(its)
    for each in (expected, found):
        for name in ("id", "owner", "key", "key_digest"):
            each["thread"].pop(name, None)
    assert expected == found
    assert await one.state() == await other.state()
    assert await one.usage() == await other.usage()
    runs = [replace(run, thread_id="") for run in await one.runs()]
    assert runs == [replace(run, thread_id="") for run in await other.runs()]
    infos = [await one.info(), await other.info()]
    names = ("agent", "metadata", "title", "status", "created_at", "updated_at", "expires_at")
    for name in names:
        assert getattr(infos[0], name) == getattr(infos[1], name), name


async def test_an_export_is_imported_whole(open_runtime: Open) -> None:
    agent = an_agent(pays(), "Paid.", "More.", "Again.")
    async with open_runtime(agent) as runtime:
        thread = await a_conversation(runtime, agent, owner="alice")
        lines = await thread.export()
        alice = runtime.for_owner("alice", by="alice")
        copy = await alice.import_thread(lines)
        assert copy.is_new
        assert copy.id != thread.id
        await same(thread, copy)
        assert header(lines)["format"] == 1
        assert header(lines)["treadle"] == treadle.__version__
        file_id = next(line["id"] for line in map(json.loads, lines) if line["type"] == "file")
        assert await copy.files.get(file_id) == PDF
        assert await copy.files.info(file_id) == await thread.files.info(file_id)
        await thread.delete()
        assert await copy.files.get(file_id) == PDF
        (found,) = await alice.search("Renamed OR more", limit=1)
        assert found.passage.thread_id == copy.id
        assert [one.passage.text for one in await copy.archive.search("zebras")]
        assert (await alice.spending()).tokens == (await runtime.spending(owner="alice")).tokens
        run = await copy.send("Again.")  # it continues
        assert (await run.result()).output == "Again."
    async with open_runtime(agent) as runtime:
        reopened = await runtime.connect(copy.id)
        assert (await reopened.history())[-1].text == "Again."


async def test_the_forms_of_lines(open_runtime: Open) -> None:
    agent = an_agent(pays(), "Paid.", "More.")
    async with open_runtime(agent) as runtime:
        lines = await (await a_conversation(runtime, agent)).export()
        for form in (lines, b"\n".join(lines), b"\r\n".join(lines) + b"\n"):
            copy = await runtime.import_thread(form)
            await same(await runtime.connect(header(lines)["thread"]["id"]), copy)
        copy = await runtime.import_thread([line.decode() for line in lines])
        text = "\n".join(line.decode() for line in lines)
        assert body(await (await runtime.import_thread(text)).export()) == body(lines)


@pytest.mark.real_clock
@pytest.mark.needs("postgres")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_from_one_kind_of_database_to_the_next(tmp_path: Path) -> None:
    agent = an_agent(*[pays(), "Paid.", "More."])
    urls = [None, server().url(), f"sqlite:///{tmp_path / 'treadle.db'}", server().url()]
    lines: list[bytes] = []
    for url in urls:
        async with treadle.open(url, agents=[agent]) as runtime:
            if not lines:
                first = await a_conversation(runtime, agent)
                lines = await first.export()
            one = await runtime.import_thread(lines)
            other = await runtime.import_thread(await one.export())
            await same(one, other)
            found = await one.export()
            assert body(found) == body(lines)
            assert header(found)["thread"] | {"id": ""} == header(lines)["thread"] | {"id": ""}
            with pytest.raises(Conflict):
                await runtime.import_thread(found, keep_id=True)
            await one.delete()
            restored = await runtime.import_thread(found, keep_id=True)
            assert await restored.export() == found


async def test_a_thread_that_was_deleted_comes_back(open_runtime: Open) -> None:
    agent = an_agent("One.", "Two.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, owner="alice", key="k")
        run = await thread.send("Hi.", key="m")
        await run.result()
        lines = await thread.export()
        with pytest.raises(Conflict, match="exists already"):
            await runtime.import_thread(lines, owner="alice", keep_id=True)
        await thread.delete()
        with pytest.raises(InvalidInput, match="pass owner='alice'"):
            await runtime.import_thread(lines, owner="bob", keep_id=True)
        with pytest.raises(InvalidInput, match="view of all owners"):
            await runtime.for_owner("alice").import_thread(lines, keep_id=True)
        restored = await runtime.import_thread(lines, owner="alice", keep_id=True)
        assert restored.id == thread.id
        assert await restored.export() == lines
        assert (await runtime.connect(key="k", owner="alice")).id == thread.id
        again = await runtime.create_thread(agent, owner="alice", key="k")
        assert (again.id, again.is_new) == (thread.id, False)
        assert (await restored.send("Hi.", key="m")).id == run.id
        copy = await runtime.import_thread(lines, owner="bob")
        assert ((await copy.info()).owner, (await copy.info()).key) == ("bob", "")
        with pytest.raises(ThreadNotFound):
            await runtime.for_owner("alice").connect(copy.id)
        assert (await (await restored.send("More.")).result()).output == "Two."


async def test_what_was_under_way_is_ended(open_runtime: Open) -> None:
    agent = an_agent(pays(), "Paid.", "Later.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await awaiting(thread, "Pay.")
        queued = await thread.send("Next.")
        await thread.schedule("Wake up.", after=60)
        lines = await thread.export()
        copy = await runtime.import_thread(lines)
        assert (await copy.export())[1 : len(lines)] == body(lines)
        assert {one.id: one.status for one in await copy.runs()} == {
            run.id: "cancelled",
            queued.id: "cancelled",
        }
        assert not [*await copy.pending_calls(), *await copy.schedules()]
        assert [one.thread_id for one in await runtime.calls()] == [thread.id]
        assert [one.thread_id for one in await runtime.schedules()] == [thread.id]
        assert (await copy.info()).status == "cancelled"
        await thread.approve("c1")
        assert (await queued.result()).output == "Later."


async def test_a_subscription_is_told_of_the_new_thread_only(open_runtime: Open) -> None:
    agent = an_agent(pays(), "Paid.", "More.")
    async with open_runtime(agent) as runtime:
        lines = await (await a_conversation(runtime, agent)).export()
        async with runtime.subscribe() as desk:
            copy = await runtime.import_thread(lines)
            other = await runtime.create_thread(agent)
            told = [await anext(desk) for _ in range(2)]
        assert [(one.event.type, one.thread_id) for one in told] == [
            ("thread.created", copy.id),
            ("thread.created", other.id),
        ]


async def test_an_imported_thread_that_is_not_stored_is_kept_for_a_while(
    open_runtime: Open,
) -> None:
    agent = an_agent("One.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, store=False)
        await (await thread.send("Hi.")).result()
        lines = await thread.export()
        await thread.delete()
        copy = await runtime.import_thread(lines)
        await asyncio.sleep(500)
        assert not (await copy.info()).store
        await asyncio.sleep(200)
        with pytest.raises(ThreadNotFound):
            await copy.info()


async def test_an_imported_thread_expires(open_runtime: Open) -> None:
    agent = an_agent("One.")
    async with open_runtime(agent) as runtime:
        at = datetime.now(UTC) + timedelta(seconds=100)
        thread = await runtime.create_thread(agent, expires_at=at)
        await thread.update(expires_at=at + timedelta(seconds=100))
        lines = await thread.export()
        copy = await runtime.import_thread(lines)
        await same(thread, copy)
        await asyncio.sleep(210)
        with pytest.raises(ThreadNotFound):
            await copy.info()
        with pytest.raises(ExportInvalid, match="Line 1 of the export has expires_at in the past"):
            await runtime.import_thread(lines)
        kept = await runtime.import_thread(with_header(lines, thread={"expires_at": None}))
        assert (await kept.info()).expires_at is None


async def test_a_thread_without_events(open_runtime: Open) -> None:
    async with open_runtime(agent := Agent(ScriptedModel(["One."]), name="a")) as runtime:
        thread = await runtime.create_thread(agent, metadata={"a": 1})
        await asyncio.sleep(50)
        copy = await runtime.import_thread(await thread.export())
        await same(thread, copy)
        assert (await (await copy.send("Hi.")).result()).output == "One."


async def test_a_process_that_does_not_drive_imports(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = an_agent(pays(), "Paid.", "More.", "Again.")
    async with (
        treadle.open(url, agents=[agent]) as runtime,
        treadle.open(url, drive=False) as sender,
    ):
        thread = await a_conversation(runtime, agent)
        copy = await sender.import_thread(await thread.export())
        await same(thread, copy)
        here = await runtime.connect(copy.id)
        assert (await (await here.send("Again.")).result()).output == "Again."
    with pytest.raises(JournalClosed):
        await runtime.import_thread([])


# What is refused, before anything is stored


def _file(content: bytes, **fields: object) -> bytes:
    made = {"type": "file", "id": "file_" + "0" * 64, "media_type": "text/plain", "size": 1}
    return json.dumps({**made, "content": base64.b64encode(content).decode(), **fields}).encode()


def _swapped(lines: list[bytes], one: int, other: int) -> list[bytes]:
    changed = [*lines]
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def _at(lines: list[bytes], index: int, *given: bytes) -> list[bytes]:
    return [*lines[:index], *given, *lines[index + 1 :]]


def _event(lines: list[bytes], index: int, **fields: object) -> list[bytes]:
    return _at(lines, index, json.dumps({**json.loads(lines[index]), **fields}).encode())


BAD: dict[str, tuple[Callable[[list[bytes]], object], int, str]] = {
    "nothing": (lambda _: [], 1, "not the header"),
    "an empty text": (lambda _: "", 1, "not the header"),
    "no header": (lambda x: x[1:], 1, "not the header"),
    "not JSON": (lambda x: [b"{", *x[1:]], 1, "not the header"),
    "a list": (lambda x: [b"[]", *x[1:]], 1, "not the header"),
    "not UTF-8": (lambda x: [b'"\xff"', *x[1:]], 1, "not the header"),
    "deep": (lambda x: [b"[" * 100_000, *x[1:]], 1, "not the header"),
    "a newer format": (lambda x: with_header(x, format=2, treadle="9.1"), 1, "install treadle 9.1"),
    "no format": (lambda x: [b'{"type":"export"}', *x[1:]], 1, "the format 0"),
    "no counts": (lambda x: with_header(x, events="x"), 1, "not a valid header"),
    "no agent": (lambda x: with_header(x, thread={"agent": ""}), 1, "shared memory"),
    "a path as id": (lambda x: with_header(x, thread={"id": "../x"}), 1, "which no thread"),
    "the id of a memory": (lambda x: with_header(x, thread={"id": "memory_1"}), 1, "no thread"),
    "a long title": (lambda x: with_header(x, thread={"title": "x" * 501}), 1, "500 characters"),
    "metadata": (lambda x: with_header(x, thread={"metadata": []}), 1, "not a valid header"),
    "a negative time": (lambda x: with_header(x, thread={"created_at": -1}), 1, "a time"),
    "a huge time": (lambda x: with_header(x, thread={"updated_at": 1e300}), 1, "a time"),
    "cut": (lambda x: x[:-1], 0, "it was cut"),
    "cut to its header": (lambda x: x[:1], 1, "it was cut"),
    "cut in a line": (lambda x: [*x[:-1], x[-1][:-3]], 0, "is not an event"),
    "one more": (lambda x: [*x, x[-1]], 0, "is more than the"),
    "twice": (lambda x: _at(x, 3, x[3], x[3]), 5, "where 3 must follow"),
    "the order": (lambda x: _swapped(x, 3, 4), 4, "where 2 must follow"),
    "a gap": (lambda x: [*x[:3], *x[4:]], 4, "where 2 must follow"),
    "an empty line": (lambda x: _at(x, 3, b"", x[3]), 4, "is empty"),
    "another type": (lambda x: _event(x, 2, item=3), 3, "is not an event"),
    "a newer type": (lambda x: _event(x, 3, type="tool.paused"), 4, "a newer version"),
    "a newer one removed": (
        lambda x: _at(x, 3, b'{"type":"event.removed","seq":2,"at":1,'
                      b'"event":{"type":"tool.paused","seq":2}}'),
        4, "a newer version",
    ),
    "a damaged type": (lambda x: _event(x, 3, type="Tool?"), 4, "is not an event"),
    "out of place": (lambda x: _event(x, 2, type="step.completed", step=1), 3, "cannot follow"),
    "a time of an event": (lambda x: _event(x, 3, at=-5), 4, "which is not one"),
    "a live event": (lambda x: _at(x, 3, b'{"type":"text.delta","seq":2}'), 4, "is not an event"),
    "a number": (lambda x: [*x[:3], 3, *x[4:]], 0, "must be bytes or a text, not 3"),
    "half a surrogate": (lambda x: [x[0].decode(), "\ud800"], 2, "not valid UTF-8"),
    "too long": (lambda x: [x[0], b"x" * (MAX_LINE + 1)], 2, "is too long"),
    "a file late": (lambda x: _swapped(x, 1, 2), 3, "needs before it"),
    "a file twice": (lambda x: [x[0], x[1], *x[1:]], 3, "a second time"),
    "another content": (lambda x: _at(x, 1, _file(b"x")), 2, "another content"),
    "an empty file": (lambda x: _at(x, 1, _file(b"")), 2, "is refused: empty"),
    "not base64": (lambda x: _at(x, 1, _file(b"x").replace(b"eA==", b"?")), 2, "not a valid file"),
    "half a file": (lambda x: _at(x, 1, b'{"type":"file"}'), 2, "not a valid file"),
    "a file is missing": (lambda x: _at(x, 1), 0, "0 of 1 files"),
    "a header between": (lambda x: _at(x, 3, x[0]), 4, "is not an event"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_what_is_refused(name: str, open_runtime: Open) -> None:
    change, line, words = BAD[name]
    agent = Agent(ScriptedModel(["One."]), name="a")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent, metadata={"n": 1})
        await (await thread.send(["Read.", REPORT])).result()
        lines = await thread.export()
        assert [json.loads(each)["type"] for each in lines[:3]] == [
            "export", "file", "message.added",
        ]  # fmt: skip
        await thread.delete()
        with pytest.raises(ExportInvalid, match=words) as refused:
            await runtime.import_thread(change(lines))
        assert refused.value.line == line or not line
        assert not refused.value.retryable
        assert await runtime.threads() == []
        with pytest.raises(UnknownFile):
            await runtime.files.get(json.loads(lines[1])["id"])


async def test_ids_fit_into_an_index(open_runtime: Open) -> None:
    agent = an_agent(pays(), "Paid.", "More.", "Fine.")
    async with open_runtime(agent) as runtime:
        thread = await a_conversation(runtime, agent)
        lines = await thread.export()
        (at,) = [n for n, line in enumerate(lines) if b'"archive.inserted"' in line]

        def named(name: str) -> list[bytes]:
            return _at(lines, at, json.dumps(json.loads(lines[at]) | {"passage_id": name}).encode())

        for name in ("x" * 6000, "é" * 1001):
            with pytest.raises(ExportInvalid, match="has the passage_id"):
                await runtime.import_thread(named(name))
        copy = await runtime.import_thread(named("é" * 1000))
        found = [one.passage.id for one in await copy.archive.search("zebras")]
        assert "é" * 1000 in found
        with pytest.raises(ExportInvalid, match="has the key"):
            await runtime.import_thread(with_header(lines, thread={"key": "k" * 2001}))


@pytest.mark.parametrize("lines", [None, 3, {"a": 1}])
async def test_what_has_no_lines(lines: Any, open_runtime: Open) -> None:
    async with open_runtime(an_agent()) as runtime:
        with pytest.raises(InvalidInput, match="a file opened for reading"):
            await runtime.import_thread(lines)


async def test_media_types_and_names_are_told_anew(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One."]), name="a")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send(["Read.", REPORT])).result()
        lines = await thread.export()
        forged = json.loads(lines[1]) | {"media_type": "text/html", "name": "../../x.html"}
        copy = await runtime.import_thread(_at(lines, 1, json.dumps(forged).encode()))
        info = await copy.files.info(forged["id"])
        assert (info.media_type, info.name, info.size) == ("application/pdf", "x.html", len(PDF))


async def test_a_file_that_other_owners_have_is_not_reached(open_runtime: Open) -> None:
    agent = an_agent("One.")
    async with open_runtime(agent) as runtime:
        secret = await runtime.for_owner("bob").files.put(PDF + b"secret")
        thread = await runtime.create_thread(agent, owner="alice")
        await (await thread.send(f"Show {secret.id}.")).result()
        lines = await thread.export()
        assert header(lines)["files"] == 0  # a text that looks like the id of a file
        copy = await runtime.for_owner("alice").import_thread(lines)
        with pytest.raises(UnknownFile):
            await copy.files.get(secret.id)


async def test_a_cancelled_import_leaves_all_or_nothing(open_runtime: Open) -> None:
    agent = an_agent("One.")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send(["Read.", REPORT])).result()
        lines = await thread.export()
        for turns in range(12):
            task = asyncio.ensure_future(runtime.import_thread(lines))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for info in await runtime.threads(limit=100):
            assert body(await (await runtime.connect(info.id)).export()) == body(lines)


# Any file


@pytest.fixture(scope="module")
def exported() -> list[bytes]:
    async def make() -> list[bytes]:
        agent = an_agent(pays(), "Paid.", "More.")
        async with treadle.open(agents=[agent]) as runtime:
            return await (await a_conversation(runtime, agent)).export()

    return asyncio.run(make())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_is_refused_or_harmless(exported: list[bytes], data: st.DataObject) -> None:
    text = bytearray(b"\n".join(exported))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text) - 1))
        match data.draw(st.sampled_from(["cut", "byte", "drop", "copy"])):
            case "cut":
                del text[max(start, 1) :]
            case "byte":
                text[start] = data.draw(st.integers(0, 255))
            case "drop":
                del text[start : start + data.draw(st.integers(1, 400))]
            case _:
                text[start:start] = text[start : start + data.draw(st.integers(1, 400))]
        if not text:
            break
    try:
        imported = read_export(bytes(text), "thread_x", time.time())
    except ExportInvalid:
        return
    assert [one.seq for one in imported.seed.entries] == list(
        range(1, len(imported.seed.entries) + 1)
    )


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_lines_in_any_order_are_refused(exported: list[bytes], data: st.DataObject) -> None:
    lines = data.draw(st.permutations(exported))
    if lines == exported:
        return
    with pytest.raises(ExportInvalid):
        read_export(lines, "thread_x", time.time())


def test_a_thread_is_at_rest_wherever_its_export_ends(exported: list[bytes]) -> None:
    for count in range(len(exported)):
        with pytest.raises(ExportInvalid):
            read_export(exported[:count], "thread_x", time.time())
        if not count:
            continue
        kept = exported[:count]
        files = sum(b'"type":"file"' in line[:20] for line in kept)
        whole = with_header(kept, events=count - 1 - files, files=files)
        imported = read_export(
            whole, "thread_x", time.time()
        )  # wherever the thread was, it is at rest
        state = imported.seed.state
        assert (state.active_run, state.queue, state.jobs, state.schedules) == (None, (), {}, {})
