"""Files in threads: stored once, returned for requests, removed with the last use."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import treadle
from treadle import (
    Agent,
    File,
    FunctionCallOutput,
    Hooks,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    MessageAdded,
    Runtime,
    Thread,
    tool,
)
from treadle.domain.files import Media, data_of
from treadle.errors import (
    Conflict,
    InputUnsupported,
    InvalidInput,
    ThreadNotFound,
    UnknownFile,
)
from treadle.models.anthropic import AnthropicMessages
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]

PDF = b"%PDF-1.7\n" + bytes(6000)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(6000)
REPORT = InputFile.from_bytes(PDF, "report.pdf")
PICTURE = InputImage.from_bytes(PNG, detail="low")


def media(items: Sequence[Item]) -> list[Media]:
    found: list[Media] = []
    for item in items:
        parts = item.content if isinstance(item, Message) else getattr(item, "output", ())
        found += [part for part in parts if isinstance(part, Media)]
    return found


async def events_of(thread: Thread) -> list[treadle.RecordedEvent]:
    return await thread.events(limit=1000)


async def size_of_events(thread: treadle.Thread) -> int:
    """Returns how many bytes are stored of the events, without the files."""
    lines = await thread.export()
    return sum(len(line) for line in lines if not line.startswith(b'{"type":"file"'))


async def test_a_large_file_is_stored_once_and_returns_for_requests(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send(["Read.", REPORT, PICTURE])).result()
        stored = media(await thread.history())
        assert [part.file_id[:5] for part in stored] == ["file_", "file_"]
        assert stored[0] == InputFile(
            "", "report.pdf", "", stored[0].file_id, "application/pdf", len(PDF)
        )
        assert isinstance(stored[1], InputImage)
        assert stored[1].detail == "low"
        assert await size_of_events(thread) < 3000
        assert media(model.requests[0].items) == [REPORT, PICTURE]
        assert await thread.files.get(stored[0].file_id) == PDF
        info = await thread.files.info(stored[0].file_id)
        assert (info.name, info.media_type, info.size) == ("report.pdf", "application/pdf", 6009)
    async with open_runtime(agent) as runtime:  # another process has the contents as well
        thread = await runtime.connect(thread.id)
        await (await thread.send("Again.")).result()
        assert media(model.requests[1].items) == [REPORT, PICTURE]


async def test_a_small_file_stays_in_its_message(open_runtime: Open) -> None:
    note = InputFile.from_bytes(b"hello", "a.txt")
    agent = Agent(ScriptedModel(["Fine."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send([note])).result()
        assert media(await thread.history()) == [note]


async def test_a_file_is_put_first_and_sent_by_its_id(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        info = await runtime.files.put(PDF, name="/tmp/../report.pdf", owner="ann")
        assert (info.name, info.media_type) == ("report.pdf", "application/pdf")
        thread = await runtime.create_thread(agent, owner="ann")
        form = {"type": "input_file", "file_id": info.id}
        await (await thread.send({"role": "user", "content": [form]})).result()
        assert media(model.requests[0].items) == [REPORT]
        await runtime.files.delete(info.id, owner="ann")
        with pytest.raises(UnknownFile):
            await runtime.files.delete(info.id, owner="ann")
        await (await thread.send("Again.")).result()  # the thread still has it
        assert media(model.requests[1].items) == [REPORT]
        assert await runtime.files.get(info.id) == PDF
        await thread.delete()
        with pytest.raises(UnknownFile):
            await runtime.files.get(info.id)


async def test_files_of_others_do_not_exist(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One."]))
    async with open_runtime(agent) as runtime:
        info = await runtime.files.put(PDF, owner="ann")
        await runtime.create_thread(agent, owner="ann")
        thread = await runtime.create_thread(agent, owner="bob")
        for part in (InputFile(file_id=info.id), InputFile(file_id=f"file_{'0' * 64}")):
            with pytest.raises(UnknownFile):
                await thread.send([part])
        assert not await events_of(thread)
        bob = runtime.for_owner("bob")
        for call in (bob.files.get, bob.files.info, bob.files.delete, thread.files.get):
            with pytest.raises(UnknownFile):
                await call(info.id)
        with pytest.raises(InvalidInput, match="one owner"):
            await bob.files.put(PDF, owner="ann")
        anns = await runtime.create_thread(agent, owner="ann")
        handle = await bob.connect(thread.id)
        handle.id = anns.id
        for use in (handle.files.put(PDF), handle.files.get(info.id), handle.files.info(info.id)):
            with pytest.raises(ThreadNotFound):
                await use
        mine = await bob.files.put(PDF)
        assert mine.id == info.id
        await runtime.delete_owner("ann")
        assert await bob.files.get(info.id) == PDF
        await runtime.delete_owner("bob")
        with pytest.raises(UnknownFile):
            await runtime.files.get(info.id)


async def test_a_file_of_another_kind_is_refused(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        info = await runtime.files.put(PDF)
        thread = await runtime.create_thread(agent)
        for part in (InputImage(file_id=info.id), InputAudio(file_id=info.id)):
            with pytest.raises(InvalidInput, match="application/pdf"):
                await thread.send([part])
        with pytest.raises(InvalidInput, match="must be bytes"):
            await runtime.files.put("text")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="empty"):
            await runtime.files.put(b"")
        with pytest.raises(InvalidInput, match="50 MiB"):
            await runtime.files.put(bytes(50 * 1024 * 1024 + 1))
        with pytest.raises(InvalidInput, match="remove_event"):
            await thread.files.delete(info.id)


async def test_files_of_tools_are_stored(open_runtime: Open) -> None:
    @tool
    async def draw() -> list[object]:
        """Draws."""
        return ["Here:", File(PDF, "plan.pdf"), treadle.Image(PNG)]

    model = ScriptedModel([[Call("draw", "{}")], "Done."])
    agent = Agent(model, tools=[draw])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Draw.")).result()
        output = (await thread.history())[2]
        assert isinstance(output, FunctionCallOutput)
        assert isinstance(output.output[0], InputText)
        assert [part.media_type for part in media([output])] == ["application/pdf", "image/png"]
        assert all(part.file_id for part in media([output]))
        sent = media(model.requests[1].items)
        assert sent[0] == InputFile.from_bytes(PDF, "plan.pdf")
        assert await size_of_events(thread) < 5000


async def test_what_hooks_add_is_stored(open_runtime: Open) -> None:
    def after_completion(ctx: treadle.CompletionContext, done: treadle.Completion) -> None:
        if done.number == 1:
            ctx.inject([REPORT])
            ctx.replace_history([Message("user", [PICTURE, "Look."], "m")])
            ctx.continue_with("Go on.")

    agent = Agent(ScriptedModel(["One.", "Two."]), hooks=Hooks(after_completion=after_completion))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Begin.")).result()
        assert [part.media_type for part in media(await thread.history())] == ["image/png"]
        assert await size_of_events(thread) < 5000


async def test_forks_share_files_and_deletion_keeps_what_is_used(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send([REPORT])).result()
        (part,) = media(await thread.history())
        copy = await thread.fork()
        await thread.delete()
        await (await copy.send("And?")).result()
        assert media(model.requests[1].items) == [REPORT]
        number = next(e.seq for e in await events_of(copy) if isinstance(e, MessageAdded))
        await copy.remove_event(number)
        with pytest.raises(UnknownFile):
            await runtime.files.get(part.file_id)


async def test_a_key_names_a_message_with_its_file(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send([REPORT], key="k")
        again = await thread.send([REPORT], key="k")
        assert first.id == again.id
        with pytest.raises(Conflict):
            await thread.send([PICTURE], key="k")
        await first.result()


@pytest.mark.real_clock
async def test_a_sender_in_another_process_stores_the_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    model = ScriptedModel(["One."])
    agent = Agent(model)
    async with treadle.open(url, agents=[agent]) as driver:
        thread = await driver.create_thread(agent)
        async with treadle.open(url, agents=[agent], drive=False) as sender:
            handle = await sender.connect(thread.id)
            run = await handle.send(["Read.", REPORT])
            await run.result()
    assert media(model.requests[0].items) == [REPORT]


async def test_a_model_that_does_not_read_a_file_fails_before_its_request(
    open_runtime: Open,
) -> None:
    audio = InputAudio.from_bytes(b"ID3" + bytes(5000))

    class Deaf(ScriptedModel):
        def refusal(self, part: Media) -> str:
            return "Audio cannot be sent: no ears." if isinstance(part, InputAudio) else ""

    model = Deaf(["Better.", [Call("sing", "{}")], "Done."])

    @tool
    async def sing() -> object:
        """Sings."""
        return audio

    agent = Agent(model, tools=[sing])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send(["Listen.", audio])
        with pytest.raises(InputUnsupported, match=r"no ears\. Choose another model"):
            await run.result()
        assert not model.requests
        assert (await (await thread.send("Then read.")).result()).output == "Better."
        assert (await (await thread.send("Sing.")).result()).output == "Done."


async def test_a_real_model_names_what_it_does_not_read() -> None:
    model = AnthropicMessages("claude-x", api_key="k", base_url="http://127.0.0.1:9")
    agent = Agent(model)
    with pytest.raises(InputUnsupported, match="Audio cannot be sent: the API reads no audio"):
        await agent.run([InputAudio.from_bytes(b"ID3" + bytes(8))])
    with pytest.raises(InputUnsupported, match="not kept here"):
        await agent.run([InputFile(file_id=f"file_{'0' * 64}")])


async def test_contents_that_are_gone_are_left_out(open_runtime: Open) -> None:
    model = ScriptedModel(["One.", "Two."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send([REPORT])).result()
        stored = media(await thread.history())
    async with open_runtime(agent) as runtime:
        await runtime.journal.files.drop_owner("")
        thread = await runtime.create_thread(agent)
        run = await thread.send("Read what another thread has.")
        await run.result()
        assert media(await thread.history()) == []
        with pytest.raises(UnknownFile):
            await thread.files.get(stored[0].file_id)


async def test_files_of_a_history_are_stored_with_the_thread(open_runtime: Open) -> None:
    model = ScriptedModel(["A report."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        view = runtime.for_owner("ann")
        known = await view.files.put(PNG, name="cat.png")
        history = [Message("user", (InputText("Read."), REPORT), "m"), Message("user", (
            InputImage(file_id=known.id),
        ), "n")]  # fmt: skip
        thread = await view.create_thread(agent, history=history, key="k")
        assert (await view.create_thread(agent, history=history, key="k")).id == thread.id
        report, picture = media(await thread.history())
        assert (report.size, picture.size) == (len(PDF), len(PNG))
        assert await size_of_events(thread) < 3000
        assert await thread.files.get(report.file_id) == PDF
        await view.files.delete(known.id)
        assert await thread.files.get(known.id) == PNG
        copy = await thread.fork()
        await (await thread.send("What is it?")).result()
        sent = media(model.requests[0].items)
        contents = [base64.b64decode(data_of(part).partition(",")[2]) for part in sent]
        assert contents == [PDF, PNG]
        await thread.delete()
        assert await copy.files.get(report.file_id) == PDF
        await copy.delete()
        with pytest.raises(UnknownFile):
            await view.files.get(report.file_id)


async def test_a_history_with_a_foreign_file_makes_no_thread(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        known = await runtime.for_owner("bob").files.put(PDF, name="secret.pdf")
        history = [Message("user", (REPORT, InputFile(file_id=known.id)), "m")]
        with pytest.raises(UnknownFile):
            await runtime.for_owner("ann").create_thread(agent, history=history)
        assert await runtime.threads() == []


async def test_a_file_of_a_scheduled_message(open_runtime: Open) -> None:
    model = ScriptedModel(["A report."])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        message = Message("user", (InputText("Read."), REPORT), "m")
        schedule = await thread.schedule(message, after=60, key="k")
        again = await thread.schedule(message, after=60, key="k")
        assert again.id == schedule.id
        (part,) = media([(await thread.schedules())[0].item])
        assert await thread.files.get(part.file_id) == PDF
        assert await size_of_events(thread) < 3000
        await asyncio.sleep(70)
        assert media(await thread.history())[0].file_id == part.file_id
        missing = Message("user", (InputFile(file_id="file_" + "0" * 64),), "n")
        with pytest.raises(UnknownFile):
            await thread.schedule(missing, after=60)
