import asyncio
import json
import os
import signal

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

import treadle
from treadle import Agent, tool
from treadle.cli.chat import EXIT_CANCELLED, EXIT_WAITING, _follow, answer_once, converse
from treadle.cli.interrupt import InterruptCancels
from treadle.cli.screen import Screen
from treadle.cli.slash import Chat
from treadle.cli.transcript import Transcript
from treadle.domain.items import FunctionCallOutput, Message
from treadle.errors import ServerFailed
from treadle.models.base import ModelRequest
from treadle.models.retry import RetryPolicy
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    """A terminal lives in real time."""
    return "asyncio"


@pytest.fixture
def written() -> list[str]:
    return []


def chat_on(
    runtime: treadle.Runtime, thread: treadle.Thread, agent: Agent, written: list[str]
) -> Chat:
    transcript = Transcript(written.append)
    return Chat(runtime, thread, transcript, agent=agent, command="treadle chat")


async def talk(agent: Agent, keys: str, written: list[str]) -> str:
    with create_pipe_input() as pipe:
        pipe.send_text(keys)
        session: PromptSession[str] = PromptSession(input=pipe, output=DummyOutput())
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            await converse(chat_on(runtime, thread, agent, written), 0, session)
    return "".join(written)


async def test_a_conversation_keeps_its_history(written: list[str]) -> None:
    model = ScriptedModel(["Hello.", "Again."])
    text = await talk(Agent(model), "hi\n\n/help\nagain\n/quit\n", written)
    assert "Hello.\n" in text
    assert "Again.\n" in text
    assert text.count("Ctrl-C stops an answer") == 2
    assert [len(request.items) for request in model.requests] == [1, 3]


@pytest.mark.parametrize("keys", ["\x03\x03", "\x04", "typed\x03\x03\x03"])
async def test_ctrl_c_twice_and_ctrl_d_leave(keys: str, written: list[str]) -> None:
    text = await talk(Agent(ScriptedModel([])), keys, written)
    assert "Error" not in text
    assert text.count("once more") == (keys != "\x04")


async def test_one_ctrl_c_at_the_prompt_does_not_end_the_chat(written: list[str]) -> None:
    """It was meant for an answer that has just ended, or clears what was typed."""
    model = ScriptedModel(["Hello.", "Again."])
    text = await talk(Agent(model), "\x03hi\nno\x03again\n\x03/help\n/quit\n", written)
    assert "Again." in text
    assert [request.items[-1].text for request in model.requests] == ["hi", "again"]  # type: ignore[union-attr]


async def test_a_failed_answer_does_not_end_the_conversation(written: list[str]) -> None:
    model = ScriptedModel([ServerFailed("Out of order."), "Back."])
    agent = Agent(model, retry=RetryPolicy(max_retries=0))
    text = await talk(agent, "hi\nagain\n/quit\n", written)
    assert "Error: Out of order." in text
    assert "Back." in text


async def test_an_error_of_the_agents_own_code_does_not_end_the_conversation(
    written: list[str],
) -> None:
    def instructions(deps: None) -> str:
        if len(written) < 5:
            raise KeyError("no deps")
        return ""

    agent = Agent(ScriptedModel(["Back."]), instructions=instructions)
    text = await talk(agent, "hi\n/help\n/help\n/help\nagain\n/quit\n", written)
    assert "KeyError: 'no deps'" in text
    assert "Back." in text


def interrupted(request: ModelRequest) -> list[Text | Pause]:
    os.kill(os.getpid(), signal.SIGINT)
    return [Pause(30), Text("too late")]


async def test_ctrl_c_stops_an_answer_and_keeps_the_conversation(written: list[str]) -> None:
    text = await talk(Agent(ScriptedModel([interrupted, "Again."])), "hi\nagain\n/quit\n", written)
    assert "(Cancelled.)" in text
    assert "too late" not in text
    assert "Again." in text


async def once(agent: Agent, written: list[str]) -> int:
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        return await answer_once(chat_on(runtime, thread, agent, written), "hi")


async def test_an_interrupted_answer_has_its_own_exit_code(written: list[str]) -> None:
    assert await once(Agent(ScriptedModel([interrupted])), written) == EXIT_CANCELLED


@tool(needs_approval=True)
async def remove(name: str) -> str:
    """Needs a person."""
    return f"removed {name}"


@tool(external=True)
async def look(where: str) -> str:
    """Is answered by a person."""
    raise AssertionError(where)


CALLS = [Call("remove", '{"name":"x"}'), Call("look", '{"where":"out"}')]


async def test_without_a_terminal_an_approval_leaves_the_run_waiting(written: list[str]) -> None:
    agent = Agent(ScriptedModel([CALLS]), tools=[remove, look])
    assert await once(agent, written) == EXIT_WAITING
    assert "treadle chat --thread thread_" in "".join(written)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ("y", "removed x"),
        ("n", "The call was denied."),
        ("", "The call was denied."),
        ("not today", "The call was denied: not today"),
    ],
)
async def test_a_person_is_asked(answer: str, output: str, written: list[str]) -> None:
    model = ScriptedModel([CALLS, "Done."])
    agent = Agent(model, tools=[remove, look])
    text = await talk(agent, f"hi\n{answer}\nrain\n/quit\n", written)
    assert '? remove\n  name: "x"' in text
    outputs = [i.text for i in model.requests[1].items if isinstance(i, FunctionCallOutput)]
    assert outputs == [output, "rain"]
    assert text.rstrip().endswith("Done.")


async def test_ctrl_c_at_a_question_cancels_the_run(written: list[str]) -> None:
    agent = Agent(ScriptedModel([CALLS, "Again."]), tools=[remove, look])
    text = await talk(agent, "hi\n\x03again\n/quit\n", written)
    assert "(Cancelled.)" in text
    assert "Again." in text


async def test_a_run_that_was_left_is_shown_and_goes_on(written: list[str]) -> None:
    agent = Agent(ScriptedModel([CALLS, "Done."]), tools=[remove, look])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        assert await answer_once(chat_on(runtime, thread, agent, written), "hi") == EXIT_WAITING
        written.clear()
        with create_pipe_input() as pipe:
            pipe.send_text("y\nrain\n/quit\n")
            session: PromptSession[str] = PromptSession(input=pipe, output=DummyOutput())
            await converse(chat_on(runtime, thread, agent, written), 0, session)
    assert '● remove(name="x")' in "".join(written)
    assert "Done." in "".join(written)


async def said(thread: treadle.Thread, text: str) -> None:
    """Waits until the model has said it."""
    async for event in thread.subscribe():
        if isinstance(event, treadle.MessageAdded) and event.item.text == text:
            return


async def test_a_run_that_a_job_wakes_is_shown_while_the_person_writes(written: list[str]) -> None:
    @tool
    async def remind(ctx: treadle.RunContext) -> str:
        """Reminds."""
        await ctx.jobs.submit(asyncio.sleep, 0.1, "of the tea", parent=ctx.jobs.root)
        return "will do"

    model = ScriptedModel([Call("remind", "{}"), "Later.", "The tea!", "Fine."])
    agent = Agent(model, tools=[remind])
    with create_pipe_input() as pipe:
        session: PromptSession[str] = PromptSession(input=pipe, output=DummyOutput())
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            talking = asyncio.create_task(
                converse(chat_on(runtime, thread, agent, written), 0, session)
            )
            pipe.send_text("remind me\n")
            await said(thread, "Later.")
            pipe.send_text("I wr")
            await said(thread, "The tea!")
            pipe.send_text("ote\n/quit\n")
            await talking
            texts = [item.text for item in await thread.history() if isinstance(item, Message)]
    assert texts[-2:] == ["I wrote", "Fine."]
    text = "".join(written)
    assert text.index("Later.") < text.index("The tea!") < text.index("Fine.")


async def test_jobs_that_are_left_in_the_background_are_named(written: list[str]) -> None:
    @tool
    async def remind(ctx: treadle.RunContext) -> str:
        """Reminds."""
        await ctx.jobs.submit(asyncio.sleep, 60, parent=ctx.jobs.root)
        return "will do"

    agent = Agent(ScriptedModel([Call("remind", "{}"), "Later."]), tools=[remind])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        assert await answer_once(chat_on(runtime, thread, agent, written), "hi") == 0
    assert "(In the background: sleep; see treadle chat --thread thread_" in "".join(written)


@tool(needs_approval=True)
async def transfer(note: str, iban: str, amount: float) -> str:
    """Needs a person."""
    raise AssertionError(note, iban, amount)


async def test_a_person_reads_the_text_and_all_arguments_before_the_question(
    written: list[str],
) -> None:
    note = "Rent for November, as agreed. " * 20 + "\u202eecnis\u2066\u200b\x1b[8m\n\ufe0f"
    arguments = json.dumps({"note": note, "iban": "EVIL00", "amount": 99999})
    asked: list[str] = []

    async def ask(question: str) -> str:
        asked.append("".join(written))
        return "n"

    calls = [Text("I pay the rent now."), Call("transfer", arguments)]
    agent = Agent(ScriptedModel([calls, "Done."]), tools=[transfer])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        transcript = Transcript(written.append, width=80)
        await answer_once(Chat(runtime, thread, transcript, agent=agent), "hi", ask)
        # A later chat shows all of it again, although the run waits already.
        later = Agent(ScriptedModel([calls, "Done."]), tools=[transfer], name="later")
        other = await runtime.create_thread(later)
        run = await other.send("hi")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
        written.clear()
        screen = Screen(other, transcript, 0)
        async with InterruptCancels() as interrupt:
            await _follow(screen, run, interrupt, ask)
    assert len(asked) == 2
    for shown in asked:
        lines = shown.splitlines()
        start = next(n for n, line in enumerate(lines) if "? transfer" in line)
        assert "I pay the rent now." in "".join(lines[:start])
        escapes = "\\u202eecnis\\u2066\\u200b\\u001b[8m\\n\\ufe0f"
        assert lines[start + 1] == f'  note: "{"Rent for November, as agreed. " * 20}{escapes}"'
        assert lines[start + 2 : start + 4] == ['  iban: "EVIL00"', "  amount: 99999\x1b[0m"]


@tool
def look_up(word: str) -> str:
    """Looks a word up."""
    return f"{word}: a word"


async def test_the_commands_in_a_chat(written: list[str]) -> None:
    called = [Text("**One**"), Call("look_up", '{"word":"x"}', "c1")]
    model = ScriptedModel([called, "Done.", "Elsewhere.", "Copied."])
    agent = Agent(model, name="helper", tools=[look_up])
    keys = (
        "/fork\n/tools\n/model\n/model nope\n/usage\n/tree\nhi\n/usage\n/tree\n/fork\nand\n"
        "/new\nhello\n/tools now\n/nonsense here\n/quit\n"
    )
    text = await talk(agent, keys, written)
    for words in (
        "There is nothing to copy yet.",
        "look_up  Looks a word up.",
        "Model: that of the agent helper.",
        "Error: 'nope' is not a model name",
        "0 requests",
        "Nothing has run on this thread yet.",
        "2 requests",
        "run helper  completed",
        "The original: treadle chat --thread thread_",
        "(A new conversation.)",
        "/tools takes no argument",
        "There is no command /nonsense; /help lists them.",
    ):
        assert words in text, words
    assert [len(request.items) for request in model.requests] == [1, 4, 6, 1]


async def test_what_looks_like_a_command_and_is_a_message(written: list[str]) -> None:
    model = ScriptedModel(["A file.", "A command."])
    await talk(Agent(model), "/etc/hosts has what?\n /help\n/quit\n", written)
    assert [request.items[-1].text for request in model.requests] == [  # type: ignore[union-attr]
        "/etc/hosts has what?",
        "/help",
    ]


async def test_another_model_from_the_next_message_on(written: list[str]) -> None:
    model = ScriptedModel(["Hello."])
    text = await talk(Agent(model), "hi\n/model demo\nwhat is 17*23?\n/model\n/quit\n", written)
    assert "small demo model" in text
    assert text.count("Model: demo.") == 2
    assert len(model.requests) == 1
