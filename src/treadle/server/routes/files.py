"""Files: put them up, and read them; a browser never executes one."""

from typing import Any
from urllib.parse import quote

from msgspec import Struct

from treadle.domain.media import IMAGES
from treadle.journal.files import FileInfo
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Answer, Content, Operations
from treadle.server.streams import NO_CONTENT

FILES = Operations("Files")

_OCTETS = "application/octet-stream"


class FileQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a file; `owner` is for keys without an owner."""

    name: str = ""
    owner: str = ""


@FILES.add("POST", "/files", scope="write", query=FileQuery, body=bytes, answers={201: FileInfo})
async def put_file(request: ApiRequest[FileQuery, bytes]) -> FileInfo:
    """Stores a file, whose bytes are the body; its id is the `file_id` of a part."""
    claimed = request.headers.get(b"content-type").partition(";")[0].strip()
    return await request.runtime.files.put(
        request.body, name=request.query.name, media_type=claimed, owner=request.query.owner
    )


@FILES.add("GET", "/files/{file_id}", scope="read", answers={200: FileInfo})
async def read_file(request: ApiRequest[Any, None]) -> FileInfo:
    """Returns what is known of a file."""
    return await request.runtime.files.info(request.path["file_id"])


@FILES.add("GET", "/files/{file_id}/content", scope="read", answers={200: bytes})
async def read_content(request: ApiRequest[Any, None]) -> Answer:
    """Returns the bytes of a file, to be saved; a PNG, JPEG, GIF or WebP may be shown."""
    files, file_id = request.runtime.files, request.path["file_id"]
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
