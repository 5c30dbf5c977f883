"""The work of `treadle serve`."""

import asyncio
import gc
import os
from pathlib import Path

import click
import msgspec

from treadle.actors.restate import Restate
from treadle.bus.listener import NodeListener
from treadle.cli.database import Database, file_of, shown, url_of, with_access
from treadle.cli.model_choice import choose_model
from treadle.cli.plain_text import clean
from treadle.cli.serve import DEMO, keys_path
from treadle.demo.demo_agent import demo_agent
from treadle.errors import ConfigurationError
from treadle.runtime.runtime import open as open_runtime
from treadle.server.agents import AnyAgent, load_agents
from treadle.server.app import create_app
from treadle.server.keys import Keys, new_key, stored_keys, stored_rows
from treadle.server.server import serve as serve_app
from treadle.server.settings import ServerSettings


async def serve(
    target: str,
    settings: ServerSettings,
    place: Database | None,
    model: str | None,
    folder: Path,
    *,
    as_json: bool = False,
) -> int:
    """Serves agents until a signal; returns the exit code.

    With `as_json`, what it serves is printed as one line of JSON once it listens.
    """
    agents = await _agents(target, model, folder, place)
    path = keys_path(settings, place)
    key = ""
    keys = Keys(path)
    if settings.auth and not await _are_there_keys(path, place):
        key, stored = new_key(name="start")
        keys = Keys(path, [stored])
    listener = await asyncio.to_thread(_listener, settings)
    url = None if place is None else url_of(place)
    runtime = open_runtime(
        url,
        agents=agents,
        pooler=settings.pooler or None,
        listener=listener,
        engine=_restate(settings),
        max_runs_per_owner=settings.max_runs_per_owner,
        max_runs_per_node=settings.max_runs_per_node or None,
    )
    stored = "not stored" if place is None else shown(place)
    app = create_app(runtime, settings, keys=keys)

    def announce(url: str) -> None:
        page = f"{url}/{f'#key={key}' if key else ''}"
        if as_json:
            serving = {
                "url": url,
                "agents": [agent.name for agent in agents],
                "database": None if place is None else shown(place),
                "key": key,
                "page": page,
            }
            click.echo(msgspec.json.encode(serving))
            return
        names = ", ".join(agent.name for agent in agents)
        click.echo(clean(f"Serving {names} on {url}/api/v1 ({stored})"))
        if key:
            click.echo(f"Key for this start: {key}")
        elif not settings.auth:
            click.echo("Requests need no key (--no-auth).")
        # What follows a # is not sent to a server, and so not logged by a proxy on the way.
        click.echo(f"Page: {page}")

    tune_collector()
    await serve_app(app, on_listening=announce)
    return 0


async def _are_there_keys(path: Path | None, place: Database | None) -> bool:
    if path is not None:
        return bool(await asyncio.to_thread(stored_keys, path))
    return place is not None and bool(await with_access(str(place), stored_rows))


def _listener(settings: ServerSettings) -> NodeListener | None:
    """Returns where other servers reach this one, None for the default."""
    host, port, name = settings.node_host or "127.0.0.1", settings.node_port, settings.node_name
    files = (settings.node_certificate, settings.node_key, settings.node_authority)
    if all(files):
        return NodeListener.with_certificate(*files, host=host, port=port, name=name)
    if any(files):
        raise ConfigurationError(
            "node_certificate, node_key and node_authority belong together; set all of them."
        )
    return NodeListener(host, port, name) if settings.node_host or port or name else None


def _restate(settings: ServerSettings) -> Restate | None:
    """Returns the Restate server that asks this one to drive threads, None without one."""
    if not settings.restate_ingress:
        return None
    return Restate(
        settings.restate_ingress,
        settings.restate_admin,
        settings.restate_url,
        settings.restate_host,
        settings.restate_port,
        settings.restate_keys,
        settings.restate_token,
        settings.restate_service,
    )


def tune_collector() -> None:
    """Lets the garbage collector look less often, and never at what was imported.

    Each collection visits all that is in memory, and so costs more the more runs are in progress,
    but finds little: a thread that leaves the memory, and a stream that ends with an error. The
    oldest generation is visited as often as by default, or these would add up to tens of megabytes.
    A program that uses treadle as a library decides this for itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


async def _agents(
    target: str, model: str | None, folder: Path, place: Database | None
) -> list[AnyAgent]:
    if target != DEMO:
        if model is not None:
            raise ConfigurationError("--model is for the demo agent: an agent has its own model.")
        return await asyncio.to_thread(load_agents, target)
    choice = await choose_model(model, os.environ)
    click.echo(clean(choice.note), err=True)
    return [demo_agent(choice.model, folder, file_of(place))]
