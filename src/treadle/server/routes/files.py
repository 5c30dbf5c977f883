"""Files: put them up, and read them; a browser never executes one."""

from typing import Any
from urllib.parse import quote

from msgspec import Struct

from treadle.domain.media import IMAGES
from treadle.journal.files import FileInfo
from treadle.runtime.files import Files
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Answer, Content, Operations
from treadle.server.streams import NO_CONTENT

FILES = Operations("Files")

_OCTETS = "application/octet-stream"


class NameQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a file."""

    name: str = ""


class FileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a file; `owner` is for keys without an owner."""

    name: str = ""
    owner: str = ""


async def _files(request: ApiRequest[Any, Any]) -> Files:
    """Returns the files of the thread in the path, or those of the owner."""
    thread_id = request.path.get("thread_id")
    if thread_id is None:
        return request.runtime.files
    return (await request.runtime.connect(thread_id)).files


@FILES.add("POST", "/files", scope="write", query=FileQuery, body=bytes, answers={201: FileInfo})
async def put_file(request: ApiRequest[FileQuery, bytes]) -> FileInfo:
    """Stores a file, whose bytes are the body; its id is the `file_id` of a part."""
    return await request.runtime.files.put(
        request.body,
        name=request.query.name,
        media_type=_claimed(request),
        owner=request.query.owner,
    )


@FILES.add(
    "POST",
    "/threads/{thread_id}/files",
    scope="write",
    query=NameQuery,
    body=bytes,
    answers={201: FileInfo},
)
async def put_thread_file(request: ApiRequest[NameQuery, bytes]) -> FileInfo:
    """Stores a file that only this thread may use; it is deleted with the thread."""
    return await (await _files(request)).put(
        request.body, name=request.query.name, media_type=_claimed(request)
    )


def _claimed(request: ApiRequest[Any, Any]) -> str:
    return request.headers.get(b"content-type").partition(";")[0].strip()


@FILES.add(
    "GET",
    "/threads/{thread_id}/files/{file_id}",
    scope="read",
    answers={200: FileInfo},
    id="read_thread_file",
)
@FILES.add("GET", "/files/{file_id}", scope="read", answers={200: FileInfo})
async def read_file(request: ApiRequest[Any, None]) -> FileInfo:
    """Returns what is known of a file."""
    return await (await _files(request)).info(request.path["file_id"])


@FILES.add(
    "GET",
    "/threads/{thread_id}/files/{file_id}/content",
    scope="read",
    answers={200: bytes},
    id="read_thread_content",
)
@FILES.add("GET", "/files/{file_id}/content", scope="read", answers={200: bytes})
async def read_content(request: ApiRequest[Any, None]) -> Answer:
    """Returns the bytes of a file, to be saved; a PNG, JPEG, GIF or WebP may be shown."""
    files, file_id = await _files(request), request.path["file_id"]
    info, content = await files.info(file_id), await files.get(file_id)
    is_image = info.media_type in IMAGES
    disposition = "inline" if is_image else "attachment"
    if info.name:
        disposition += f"; filename*=UTF-8''{quote(info.name, safe='')}"
    headers = (
        (b"content-disposition", disposition.encode()),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
        (b"cache-control", b"private, max-age=3600"),
    )
    # Text could be taken for HTML by an old browser; only images keep their type.
    kind = info.media_type if is_image else _OCTETS
    return Answer(200, Content(content, kind.encode()), headers)


@FILES.add("DELETE", "/files/{file_id}", scope="write", query=FileQuery, answers={204: None})
async def delete_file(request: ApiRequest[FileQuery, None]) -> Answer:
    """Removes a file; what threads use stays with them."""
    await request.runtime.files.delete(request.path["file_id"], owner=request.query.owner)
    return NO_CONTENT
