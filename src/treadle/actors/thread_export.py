"""A thread as JSON lines: a header, its events in order, and the files they need before them.

An export is untrusted input: each line is decoded, each file is compared with its id, and each
event must fit the state that those before it led to.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.actors.fork import Addition, Seed, close
from treadle.domain.arguments import is_list, shown
from treadle.domain.envelope import decode_recorded, readable, recorded
from treadle.domain.events import RecordedEvent, UnknownEvent
from treadle.domain.files import FILE_ID
from treadle.domain.media import MAX_CONTENT, media_type, safe_name, too_large
from treadle.domain.metadata import MAX_TITLE
from treadle.domain.state import ThreadState
from treadle.errors import ExportInvalid, InvalidInput, JournalTooNew
from treadle.journal.base import ThreadInfo
from treadle.journal.files import FileInfo, NewFile, file_id
from treadle.journal.projection import Standing, project

FORMAT = 1
"""The version of the format; a change that older versions would misread raises it."""

MAX_LINE = 80 * 1024 * 1024
"""The most bytes of a line: a file of 50 MiB in base64."""

MAX_EXPORT = 1024 * 1024 * 1024
"""The most bytes of an export that is imported, whose events and files are in memory meanwhile."""

MAX_ID = 2000
"""The most bytes of an id or a key: an entry of an index of PostgreSQL has at most 2,704."""

_IDS = ("id", "key")
_THREAD_ID = re.compile(r"thread_[0-9a-z]{1,100}")
_LAST_TIME = 253_402_300_799.0  # the end of the year 9999
_MENTION = re.compile(FILE_ID.pattern.encode())

Lines = Iterable[bytes | str] | bytes | str


class ExportedThread(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an export contains of a thread besides its events; see `ThreadInfo`."""

    id: str
    agent: str
    owner: str = ""
    metadata: dict[str, Any] = {}
    title: str = ""
    created_at: float
    updated_at: float
    key: str = ""
    key_digest: str = ""
    expires_at: float | None = None
    store: bool = True


class ExportHeader(Struct, frozen=True, kw_only=True, tag="export"):
    """The first line of an export, by a treadle of the version `treadle`.

    `events` and `files` count the lines that follow, so that a file that was cut is found out.
    """

    format: int
    treadle: str
    events: int
    files: int
    thread: ExportedThread


class ExportedFile(Struct, frozen=True, kw_only=True, tag="file", omit_defaults=True):
    """A file that the next events need; `content` is base64."""

    id: str
    media_type: str
    size: int
    name: str = ""
    created_at: float = 0.0
    content: str


class Imported(NamedTuple):
    """A thread that was read from an export, as it is to be added."""

    info: ThreadInfo
    seed: Seed
    files: Sequence[NewFile]


class _Version(Struct):
    type: str
    format: int = 0
    treadle: str = ""


_ENCODER = msgspec.json.Encoder()
_VERSION = msgspec.json.Decoder(_Version)
_HEADER = msgspec.json.Decoder(ExportHeader)
_FILE = msgspec.json.Decoder(ExportedFile)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# Writing


def header_line(info: ThreadInfo, *, events: int, files: int) -> bytes:
    """Returns the first line of the export of a thread."""
    thread = ExportedThread(
        id=info.id,
        agent=info.agent,
        owner=info.owner,
        metadata=dict(info.metadata),
        title=info.title,
        created_at=info.created_at,
        updated_at=info.updated_at,
        key=info.key,
        key_digest=info.key_digest,
        expires_at=info.expires_at,
        store=info.store,
    )
    version: str = import_module("treadle").__version__  # the package is above this layer
    header = ExportHeader(format=FORMAT, treadle=version, events=events, files=files, thread=thread)
    return _ENCODER.encode(header)


def file_line(info: FileInfo, content: bytes) -> bytes:
    """Returns the line of a file."""
    return _ENCODER.encode(
        ExportedFile(
            id=info.id,
            media_type=info.media_type,
            size=info.size,
            name=info.name,
            created_at=info.created_at,
            content=base64.b64encode(content).decode(),
        )
    )


def files_in(event: bytes) -> list[str]:
    """Returns the ids of files that a stored event may mention, even if it cannot be read."""
    return list(dict.fromkeys(one.decode() for one in _MENTION.findall(event)))


# Reading


def read_export(lines: Lines, thread_id: str, at: float) -> Imported:
    """Returns the thread of an export, which gets the id `thread_id`, or keeps its own with "".

    `at` is the present time in Unix seconds, which a thread without a loop does not know. The
    export is decoded and folded, which takes its time: call it outside of the event loop. What was
    under way is ended as `close` does. Raises `InvalidInput` and `ExportInvalid`.
    """
    numbered = enumerate(lines_of(lines), 1)
    header = _header(next(numbered, (1, b""))[1], at)
    added = Addition(thread_id or header.thread.id, ThreadState(), at)
    files: dict[str, NewFile] = {}
    missing: dict[str, int] = {}
    number = 1
    for number, line in numbered:
        if _is_file(line):
            file = _file(number, line, at)
            if (needed := missing.get(file.info.id)) is not None:
                raise _invalid(number, f"has a file that line {needed} needs before it")
            if file.info.id in files:
                raise _invalid(number, f"has the file {file.info.id} a second time")
            files[file.info.id] = file
            continue
        if added.state.seq == header.events:
            raise _invalid(number, f"is more than the {header.events:,} events of the header")
        _add(added, number, line)
        missing |= {id: number for id in files_in(line) if id not in files and id not in missing}
    if (added.state.seq, len(files)) != (header.events, header.files):
        raise ExportInvalid(
            f"The export ends after line {number:,}, with {added.state.seq:,} of "
            f"{header.events:,} events and {len(files):,} of {header.files:,} files: it was cut. "
            "Export the thread again.",
            number,
        )
    close(added)
    info = _info(header, added.id, at)
    return Imported(info, _seed(info, added, keeps_keys=not thread_id), list(files.values()))


def lines_of(lines: Lines) -> Iterator[bytes]:
    """Yields the lines as bytes; an empty one at the end is left out.

    Raises `InvalidInput` for what has no lines, and `ExportInvalid`.
    """
    if isinstance(lines, str | bytes):
        lines = lines.split("\n") if isinstance(lines, str) else lines.split(b"\n")
    elif not is_list(lines):
        raise InvalidInput(
            f"lines must be those of an export, or a file opened for reading, not {shown(lines)}."
        )
    size, empty = 0, 0
    for number, given in enumerate(cast("Iterable[object]", lines), 1):
        if not isinstance(given, str | bytes):
            raise ExportInvalid(f"Line {number:,} must be bytes or a text, not {shown(given)}.")
        try:
            line = (given.encode() if isinstance(given, str) else given).strip(b" \r\n")
        except UnicodeEncodeError as error:
            raise _invalid(number, "is not valid UTF-8") from error
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_EXPORT:
            most = "80 MiB, the most of a line" if len(line) > MAX_LINE else "1 GiB in all"
            raise _invalid(number, f"is too long: {most}")
        if empty:
            raise _invalid(empty, "is empty")
        if line:
            yield line
        else:
            empty = number


def _header(line: bytes, at: float) -> ExportHeader:
    try:
        version = _VERSION.decode(line)
    except _UNREADABLE:
        version = _Version("")
    if version.type != "export":
        raise _invalid(1, "is not the header of an export of treadle")
    if version.format != FORMAT:
        raise _invalid(
            1,
            f"has the format {version.format}, and this version reads {FORMAT}; install treadle "
            f"{version.treadle[:20]}",
        )
    try:
        header = _HEADER.decode(line)
    except _UNREADABLE as error:
        raise _invalid(1, f"is not a valid header: {error}") from error
    thread = header.thread
    if not thread.agent:
        raise _invalid(1, "names no agent: a shared memory cannot be imported")
    if not _THREAD_ID.fullmatch(thread.id):
        raise _invalid(1, f"has the id {shown(thread.id)}, which no thread can have")
    _require_ids(1, thread)
    if len(thread.title) > MAX_TITLE:
        raise _invalid(1, f"has a title of more than {MAX_TITLE} characters")
    times = (thread.created_at, thread.updated_at, thread.expires_at or 0.0)
    if not all(0 <= one <= _LAST_TIME for one in times):
        raise _invalid(1, "has a time that is not one, in Unix seconds")
    if thread.expires_at is not None and thread.expires_at <= at:
        raise _invalid(
            1, "has expires_at in the past; change it there, or leave it out to keep the thread"
        )
    return header


def _is_file(line: bytes) -> bool:
    # Most lines are events, which are decoded once. No type of an event is the word "file".
    try:
        return b'"file"' in line and _VERSION.decode(line).type == "file"
    except _UNREADABLE:
        return False


def _file(number: int, line: bytes, at: float) -> NewFile:
    try:
        file = _FILE.decode(line)
        content = base64.b64decode(file.content, validate=True)
    except (*_UNREADABLE, binascii.Error, ValueError) as error:
        raise _invalid(number, f"is not a valid file: {error}") from error
    if not content or len(content) > MAX_CONTENT:
        raise _invalid(number, f"has a file that is refused: {too_large() if content else 'empty'}")
    if file_id(content) != file.id:
        raise _invalid(number, f"has another content than that of {shown(file.id)}")
    name = safe_name(file.name)
    kind = media_type(content, name, file.media_type)
    created_at = min(file.created_at, at) if file.created_at > 0 else at
    return NewFile(FileInfo(file.id, kind, len(content), name, created_at), content)


def _add(added: Addition, number: int, line: bytes) -> None:
    try:
        event = decode_recorded(line)
    except _UNREADABLE as error:
        raise _invalid(
            number,
            f"is not an event: {error}. If it is so in the database, repair the thread first",
        ) from error
    if isinstance(event, UnknownEvent):
        raise _too_new(number, event.original_type)
    _require_place(added.state, number, event)
    _require_ids(number, event)
    try:
        added.add(readable(event)[0])
    except JournalTooNew as error:
        raise _too_new(number, event.type) from error
    except Exception as error:  # the fold of a forged event may raise anything
        raise _invalid(number, f"has an event that cannot follow: {error}") from error


def _require_place(state: ThreadState, number: int, event: RecordedEvent) -> None:
    if event.seq != state.seq + 1:
        raise _invalid(number, f"has the event {event.seq}, where {state.seq + 1} must follow")
    if not 0 <= event.at <= _LAST_TIME:
        raise _invalid(number, f"has the time {event.at!r}, which is not one in Unix seconds")


def _require_ids(number: int, value: Struct) -> None:
    """Raises `ExportInvalid` for an id that is longer than an index can hold."""
    for field in value.__struct_fields__:
        found: object = getattr(value, field)
        if isinstance(found, Struct):
            _require_ids(number, found)
        elif (
            field.endswith(_IDS)
            and isinstance(found, str)
            and len(found) * 4 > MAX_ID
            and len(found.encode("utf-8", "replace")) > MAX_ID
        ):
            raise _invalid(
                number, f"has the {field} {shown(found)}, which is longer than {MAX_ID:,} bytes"
            )


def _info(header: ExportHeader, thread_id: str, at: float) -> ThreadInfo:
    given = header.thread
    return ThreadInfo(
        id=thread_id,
        agent=given.agent,
        owner=given.owner,
        metadata=given.metadata,
        title=given.title,
        created_at=min(given.created_at, at),
        # One that is not stored would be deleted at once if it were as old as its export.
        updated_at=min(given.updated_at, at) if given.store else at,
        key=given.key,
        key_digest=given.key_digest,
        expires_at=given.expires_at,
        store=given.store,
    )


def _seed(info: ThreadInfo, added: Addition, *, keeps_keys: bool) -> Seed:
    if not added.entries:
        return Seed((), added.state, None)
    projection = project(recorded(added.entries), Standing(), added.state, added.final)
    if projection is not None:
        # The header has what became of these in the end. Programs that watch all threads were told
        # of the events where they happened; here they are told of the new thread only.
        projection = replace(
            projection,
            updated_at=info.updated_at,
            title=info.title,
            new_title=info.title,
            metadata=None,
            expires_at=None,
            # The id of a message with a key follows from that of its thread.
            keys=projection.keys if keeps_keys else (),
            told=(),
            due=tuple(one for one in projection.due if one.kind == "schedule"),
        )
    try:
        _ENCODER.encode((projection, added.state.ended))
    except OverflowError as error:
        raise ExportInvalid(
            f"The events of the export have sums that are too large: {error}."
        ) from error
    return Seed(added.entries, added.state, projection)


def _invalid(number: int, what: str) -> ExportInvalid:
    return ExportInvalid(f"Line {number:,} of the export {what}.", number)


def _too_new(number: int, type: str) -> ExportInvalid:
    return _invalid(
        number,
        f"has an event of the type {type[:60]!r}, which a newer version of treadle wrote; install "
        "that version",
    )
