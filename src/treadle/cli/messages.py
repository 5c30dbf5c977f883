"""`treadle send` and `treadle cancel`: start a run and end one, from any process."""

import asyncio

import click
import msgspec

from treadle.cli.database import Database, database_option, find_thread
from treadle.cli.failure import debug_option
from treadle.cli.plain_text import clean
from treadle.cli.target import AnyRun, AnyRuntime, AnyThread, json_option, url_option, with_target
from treadle.client.client import Client
from treadle.domain.entries import OnBusy
from treadle.errors import ConfigurationError, RunNotInProgress


@click.command()
@click.argument("text")
@click.option("--thread", "thread_id", metavar="ID", help="The conversation.")
@click.option("--last", is_flag=True, help="The most recent conversation.")
@click.option("--agent", default="", metavar="NAME", help="The agent that answers.")
@click.option(
    "--on-busy",
    type=click.Choice(["queue", "steer", "reject", "cancel"]),
    default="queue",
    show_default=True,
    help="What becomes of the message while a run is active.",
)
@click.option("--key", default="", help="Sent again with the same key, a message is sent once.")
@click.option("--wait", is_flag=True, help="Wait for the answer and print it.")
@click.option("--timeout", type=float, help="How long to wait, in seconds.")
@url_option
@json_option
@database_option
@debug_option
def send(
    text: str,
    thread_id: str | None,
    last: bool,
    agent: str,
    on_busy: OnBusy,
    key: str,
    wait: bool,
    timeout: float | None,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Send TEXT to a conversation, or with --url to a new one; print its id and that of the run.

    The process that drives the conversation answers.
    """
    if (thread_id is not None) and last:
        raise ConfigurationError("Use only one of --thread and --last.")
    is_new = thread_id is None and not last
    if is_new and url is None:
        raise ConfigurationError(
            "Name the conversation with --thread ID or --last. A new one needs an agent: use "
            "treadle chat, or --url."
        )

    async def work(runtime: AnyRuntime) -> int:
        if is_new and isinstance(runtime, Client):
            thread: AnyThread = await runtime.create_thread(agent)
        else:
            thread = await find_thread(runtime, thread_id)
        run = await thread.send(text, on_busy=on_busy, key=key, agent=agent)
        return await _report(run, wait=wait, timeout=timeout, as_json=as_json)

    return asyncio.run(with_target(url, database, work))


async def _report(run: AnyRun, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    if not run.is_driven:
        note = "No process drives this database; the message waits until one does."
        click.echo(note, err=True)
    sent: dict[str, object] = {"thread_id": run.thread_id, "run_id": run.id}
    if not wait:
        click.echo(msgspec.json.encode(sent) if as_json else f"{run.thread_id}  {run.id}")
        return 0
    result = await run.result(timeout=timeout, raise_on_incomplete=False)
    if as_json:
        sent |= {
            "status": result.status,
            "stop_reason": result.stop_reason,
            "text": result.text,
            "usage": result.usage,
            "cost": result.cost,
        }
        click.echo(msgspec.json.encode(sent))
    else:
        click.echo(clean(result.text))
    if not result.is_complete:
        click.echo(f"The run ended early: {result.stop_reason}.", err=True)
        return 1
    return 0


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("run_id", metavar="RUN", required=False)
@click.option("--finish", is_flag=True, help="End the run after the step it is in.")
@url_option
@json_option
@database_option
@debug_option
def cancel(
    thread_id: str,
    run_id: str | None,
    finish: bool,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """End the run in progress of the conversation ID, or its run RUN."""

    async def work(runtime: AnyRuntime) -> int:
        thread = await runtime.connect(thread_id)
        run = await thread.active_run() if run_id is None else await thread.run(run_id)
        if run is None:
            raise RunNotInProgress("The conversation has no run in progress.")
        await (run.finish() if finish else run.cancel())
        if as_json:
            done = {"thread_id": thread_id, "run_id": run.id, "finish": finish}
            click.echo(msgspec.json.encode(done))
        return 0

    return asyncio.run(with_target(url, database, work))
