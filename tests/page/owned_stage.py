"""Serves the agent of `stage.py` to many owners, so that tests share a server and no thread.

The cookie `owner` names the owner; there are no keys.
"""

import asyncio

import stage  # next to this script
from starlette.requests import Request

import treadle
from treadle.server import Principal, Scope, ServerSettings, create_app
from treadle.server.server import Server, listen


def by_cookie(request: Request) -> Principal:
    owner = request.cookies.get("owner", "")
    scopes: frozenset[Scope] = frozenset({"read", "write", "approve", "admin"})
    return Principal(by=owner, owner=owner, scopes=scopes)


async def main() -> None:
    runtime = treadle.open("sqlite:///treadle.db", agents=[stage.agent])
    app = create_app(runtime, ServerSettings(access_log=False), authenticate=by_cookie)
    with listen("127.0.0.1", 0) as listener:
        await Server(app, lambda url: print(f"Page: {url}")).serve([listener])


asyncio.run(main())
