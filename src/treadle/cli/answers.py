"""`treadle calls`, `approve`, `deny` and `answer`: what runs wait for, answered from anywhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import click
import msgspec

from treadle.cli.database import Database, database_option
from treadle.cli.failure import debug_option
from treadle.cli.open_calls import in_full
from treadle.cli.plain_text import clean
from treadle.cli.stdin import read_text
from treadle.cli.target import (
    AnyRuntime,
    AnyThread,
    is_empty,
    json_option,
    url_option,
    with_target,
)
from treadle.domain.events import object_in
from treadle.domain.page import MAX_PAGE
from treadle.journal.base import WaitingCall


class _Answered(msgspec.Struct):
    """What the commands that answer print as JSON."""

    thread_id: str
    call_id: str
    answer: str


NONE_WAITS = "No call waits for an answer."


@click.command()
@click.argument("thread_id", metavar="ID", required=False)
@url_option
@json_option
@database_option
@debug_option
def calls(thread_id: str | None, url: str | None, as_json: bool, database: Database | None) -> int:
    """List the calls that wait for an answer, of all conversations or of the conversation ID."""

    if is_empty(url, database):
        if not as_json:
            click.echo(NONE_WAITS)
        return 0

    async def work(runtime: AnyRuntime) -> int:
        after, count = "", 0
        while True:
            page = await runtime.calls(thread_id=thread_id or "", limit=MAX_PAGE, after=after)
            for call in page:
                click.echo(msgspec.json.encode(call) if as_json else _shown(call))
            count += len(page)
            if not page.next:
                break
            after = page.next
        if not count and not as_json:
            click.echo(NONE_WAITS)
        return 0

    return asyncio.run(with_target(url, database, work))


def _shown(call: WaitingCall) -> str:
    """Returns a call with all its arguments, and the command that answers it."""
    minutes = max(time.time() - call.since, 0) / 60
    verb = "approve" if call.awaits == "approval" else "answer"
    head = f"{call.agent}, {minutes:.0f} min: treadle {verb} {call.thread_id} {call.call.call_id}"
    return "\n".join([clean(head), *(f"  {line}" for line in in_full(call.call))])


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("call_id", metavar="CALL")
@click.option(
    "--arguments",
    metavar="JSON",
    help="Run it with these instead of those of the model; - reads standard input.",
)
@url_option
@json_option
@database_option
@debug_option
def approve(
    thread_id: str,
    call_id: str,
    arguments: str | None,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Let the call CALL of the conversation ID run; treadle calls lists them."""
    edited = None if arguments is None else _object(arguments)
    return _answer(
        url,
        database,
        thread_id,
        lambda thread: thread.approve(call_id, arguments=edited),
        _Answered(thread_id, call_id, "approved") if as_json else None,
    )


def _object(arguments: str) -> dict[str, object]:
    text = read_text() if arguments == "-" else arguments
    found = object_in(text)
    if found is None:
        raise click.BadParameter("it is not a JSON object.", param_hint="--arguments")
    return found


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("call_id", metavar="CALL")
@click.option("--reason", default="", help="Why; the model reads it.")
@url_option
@json_option
@database_option
@debug_option
def deny(
    thread_id: str,
    call_id: str,
    reason: str,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Deny the call CALL of the conversation ID."""
    done = _Answered(thread_id, call_id, "denied") if as_json else None
    return _answer(url, database, thread_id, lambda thread: thread.deny(call_id, reason), done)


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("call_id", metavar="CALL")
@click.argument("output")
@click.option("--error", "is_error", is_flag=True, help="The output tells that the call failed.")
@url_option
@json_option
@database_option
@debug_option
def answer(
    thread_id: str,
    call_id: str,
    output: str,
    is_error: bool,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Give the output of the call CALL of the conversation ID; - reads standard input."""
    text = read_text() if output == "-" else output
    return _answer(
        url,
        database,
        thread_id,
        lambda thread: thread.submit_tool_output(call_id, text, is_error=is_error),
        _Answered(thread_id, call_id, "answered") if as_json else None,
    )


def _answer(
    url: str | None,
    database: Database | None,
    thread_id: str,
    give: Callable[[AnyThread], Awaitable[None]],
    done: _Answered | None,
) -> int:
    """Answers a call, and prints `done` as JSON."""

    async def work(runtime: AnyRuntime) -> int:
        await give(await runtime.connect(thread_id))
        if done is not None:
            click.echo(msgspec.json.encode(done))
        return 0

    return asyncio.run(with_target(url, database, work))
