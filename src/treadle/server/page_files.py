"""The page that the server shows at its root, and the client for JavaScript: files of the package.

They are kept plain and compressed; their hash is their entity tag.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from msgspec import Struct
from starlette.routing import Route

from treadle.server.gate import ROUTE
from treadle.server.problems import RequestRefused
from treadle.server.stream import Receive, Scope, Send

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "txt": b"text/plain; charset=utf-8",
}
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What was sent before is asked for again, and answered with 304: a new version is there at once.
_CACHE = b"no-cache"


class _File(Struct, frozen=True, gc=False):
    content: bytes
    packed: bytes
    type: bytes
    tag: bytes


class Page:
    """The files of the page at `/` and `/page/`, and `/client.js`, as an ASGI application.

    They are read with the first request for one of them.
    """

    def __init__(self) -> None:
        self._files: Mapping[str, _File] = {}

    def routes(self) -> list[Route]:
        """Returns the routes of all files."""
        return [Route(path, self) for path in ("/", "/client.js", "/page/{path:path}")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a file, or that the client has it."""
        if not self._files:
            self._files = await asyncio.to_thread(_read, files("treadle.server") / "page")
        file = self._files.get(scope["path"])
        if file is None:
            raise RequestRefused(404, "route_not_found", "The page has no such file.")
        scope[ROUTE] = scope["path"]
        if scope["method"] not in {"GET", "HEAD"}:
            raise RequestRefused(
                405, "method_not_allowed", "A file can only be read.", headers=((b"allow", b"GET"),)
            )
        asked = dict[bytes, bytes](scope["headers"])
        headers = [
            (b"etag", file.tag),
            (b"cache-control", _CACHE),
            (b"vary", b"accept-encoding"),
            (b"content-security-policy", _POLICY),
        ]
        if file.tag in asked.get(b"if-none-match", b""):
            await _respond(send, 304, headers, b"")
            return
        content = file.content
        if file.packed and b"gzip" in asked.get(b"accept-encoding", b""):
            content = file.packed
            headers.append((b"content-encoding", b"gzip"))
        headers += [
            (b"content-type", file.type),
            (b"content-length", str(len(content)).encode()),
        ]
        await _respond(send, 200, headers, content if scope["method"] == "GET" else b"")


async def _respond(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _read(folder: Traversable, below: str = "/page/") -> dict[str, _File]:
    """Returns the files in a folder and those below it, by the path of their URL."""
    found: dict[str, _File] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _read(entry, f"{below}{entry.name}/")
            continue
        kind = entry.name.rpartition(".")[2]
        if kind not in _TYPES:
            continue
        content = entry.read_bytes()
        packed = gzip.compress(content, mtime=0)
        tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'.encode()
        file = _File(content, packed if len(packed) < len(content) else b"", _TYPES[kind], tag)
        found[_PLACES.get(f"{below}{entry.name}", f"{below}{entry.name}")] = file
    return found


_PLACES = {"/page/index.html": "/", "/page/client.js": "/client.js"}
"""The files that have another address than their place in the folder."""
