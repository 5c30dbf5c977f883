"""A server for agents: conversations over HTTP and server-sent events.

`treadle serve` starts it. A program makes its own with `create_app`, and serves that with `serve`
or with any ASGI server:

    runtime = treadle.open("sqlite:///treadle.db", agents=[agent])
    app = create_app(runtime, authenticate=authenticate)
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

if TYPE_CHECKING:
    from treadle.server.app import ServerApp, create_app
    from treadle.server.keys import Keys, StoredKey, new_key
    from treadle.server.principal import Principal, Scope
    from treadle.server.server import serve
    from treadle.server.services import Authenticate
    from treadle.server.settings import ServerSettings, load_settings

__all__ = [
    "Authenticate",
    "Keys",
    "Principal",
    "Scope",
    "ServerApp",
    "ServerSettings",
    "StoredKey",
    "create_app",
    "load_settings",
    "new_key",
    "serve",
]

_MODULES = {
    "Authenticate": "treadle.server.services",
    "Keys": "treadle.server.keys",
    "Principal": "treadle.server.principal",
    "Scope": "treadle.server.principal",
    "ServerApp": "treadle.server.app",
    "ServerSettings": "treadle.server.settings",
    "StoredKey": "treadle.server.keys",
    "create_app": "treadle.server.app",
    "load_settings": "treadle.server.settings",
    "new_key": "treadle.server.keys",
    "serve": "treadle.server.server",
}


def __getattr__(name: str) -> object:
    # Imported when first named: some of these modules are slow to import.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
