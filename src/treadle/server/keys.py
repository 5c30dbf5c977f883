"""Keys: random texts that identify a principal, kept as hashes in a file or a database."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from treadle.errors import ConfigurationError, JournalError
from treadle.server.ended_sessions import EndedSessions
from treadle.server.principal import Principal, Scope, require_scopes

if TYPE_CHECKING:
    from treadle.journal.postgres_access import AccessRows

if sys.platform == "win32":

    def _lock(file: int) -> None:
        """Does nothing: of two processes that change keys at a time, the last one counts."""

    def _give(file: int, path: Path) -> None:
        """Does nothing: files have the rights of their folder."""

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)

    def _give(file: int, path: Path) -> None:
        """Gives a file that root writes to the owner of `path`, or of its folder if it is new.

        The server often runs as another user than root, who creates its keys.
        """
        if os.geteuid() == 0:
            kept = (path if path.exists() else path.parent).stat()
            os.fchown(file, kept.st_uid, kept.st_gid)


MARK = "tk"
"""The beginning of every key, so that scanners of source code recognise one."""

CHECK_SECONDS = 1.0
"""How long a change of the file or of the database may take to be seen."""

WAIT_SECONDS = 0.5
"""How long a request waits for them to be read again."""

_LOGGER = logging.getLogger(__name__)
_ID_BYTES = 6
_SECRET_BYTES = 32
_MAX_KEY_CHARS = 200
NO_HASH = "0" * 64


class StoredKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is kept: its public beginning `id`, and the SHA-256 of the whole.

    `name` describes it to people. `owner` None is for all owners. Times are Unix seconds;
    `expires_at` None never expires.
    """

    id: str
    sha256: str
    name: str = ""
    owner: str | None = None
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None = None

    @property
    def principal(self) -> Principal:
        """The principal of requests with this key."""
        return Principal(by=f"key:{self.id}", owner=self.owner, scopes=frozenset(self.scopes))

    def is_valid(self, now: float) -> bool:
        """Returns whether it has not expired at `now`, in Unix seconds."""
        return self.expires_at is None or now < self.expires_at


class _KeyFile(Struct, frozen=True, kw_only=True):
    """The content of the file; `session_secret` signs the cookies of sessions."""

    version: int = 1
    session_secret: str
    keys: tuple[StoredKey, ...] = ()


def new_key(
    *,
    name: str = "",
    owner: str | None = None,
    scopes: Iterable[str] = ("admin",),
    expires_at: float | None = None,
) -> tuple[str, StoredKey]:
    """Returns a new key, and what is kept of it; the key itself cannot be had again."""
    id = secrets.token_hex(_ID_BYTES)
    key = f"{MARK}_{id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    stored = StoredKey(
        id=id,
        sha256=hash_of(key),
        name=name,
        owner=owner,
        scopes=tuple(sorted(require_scopes(scopes))),
        created_at=time.time(),
        expires_at=expires_at,
    )
    return key, stored


def hash_of(key: str) -> str:
    """Returns the SHA-256 of a key; its 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class Keys:
    """The keys of a server: those of a file, which other processes may change, and `extra` ones.

    Without a file they are in the database of the server, if that has `AccessRows`; the sessions
    that ended early are there in any case. Both are read again within a second after a change. A
    file that cannot be read lets no request in. While a database is away, what was read last
    counts.
    """

    def __init__(self, path: Path | None = None, extra: Iterable[StoredKey] = ()) -> None:
        self._path = path
        self._extra = {key.id: key for key in extra}
        self._stored: dict[str, StoredKey] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._checked = -CHECK_SECONDS
        self._own_secret = secrets.token_hex(_SECRET_BYTES)
        self._shared_secret = ""
        self._rows: AccessRows | None = None
        self._ended = EndedSessions()
        self._newest = 0
        self._reading: asyncio.Task[None] | None = None
        self._are_read = False
        self._unreadable: frozenset[str] = frozenset()  # the ids of keys that were logged

    def use_rows(self, rows: "AccessRows") -> None:
        """Reads the rows of a database from now on."""
        self._rows = rows

    def find(self, key: str) -> StoredKey | None:
        """Returns the stored key of a key that a client sent, or None.

        The time it takes does not depend on how much of a key is right.
        """
        mark, _, rest = key[:_MAX_KEY_CHARS].partition("_")
        known = self.by_id(rest.partition("_")[0]) if mark == MARK else None
        expected = known.sha256 if known is not None else NO_HASH
        if not hmac.compare_digest(hash_of(key[:_MAX_KEY_CHARS]), expected):
            return None
        return known

    def by_id(self, id: str) -> StoredKey | None:
        """Returns the stored key of that id, unless it was revoked or has expired."""
        known = self._extra.get(id) or self._stored.get(id)
        return known if known is not None and known.is_valid(time.time()) else None

    def holds(self, key: StoredKey) -> bool:
        """Returns whether a key that was found is still the same, and neither revoked nor expired.

        The file is not read.
        """
        return self.by_id(key.id) == key

    @property
    def session_secret(self) -> str:
        """Signs the cookies of sessions: that of file or database, or one of this process."""
        return self._shared_secret or self._own_secret

    async def refresh(self) -> None:
        """Reads file and database if they may have changed: once a second at most."""
        now = time.monotonic()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            if self._path is not None:
                await asyncio.to_thread(self._read, self._path)
            if self._rows is not None and (self._reading is None or self._reading.done()):
                self._reading = asyncio.create_task(self._read_rows(self._rows))
        if self._reading is not None and not self._reading.done():
            # A database that is away must not hold up the clock of the streams.
            await asyncio.wait([self._reading], timeout=WAIT_SECONDS if self._are_read else None)

    async def _read_rows(self, rows: "AccessRows") -> None:
        try:
            found = await rows.read(self._own_secret, self._newest)
            self._note_ended(found.ended)
            while found.has_more:
                found = await rows.read(self._own_secret, found.newest)
                self._note_ended(found.ended)
        except JournalError as error:
            _LOGGER.warning("The keys could not be read: %s", error.message)
            return
        self._are_read = True
        self._newest = found.newest
        if self._path is None:
            self._stored = _decode_keys(found.keys, self._unreadable)
            self._unreadable = frozenset(found.keys) - self._stored.keys()
            self._shared_secret = found.secret

    async def end_session(self, id: str, ends_at: float) -> None:
        """Ends a session early, at all servers of a database with rows."""
        self._note_ended({id: ends_at})
        if self._rows is not None:
            await self._rows.end_session(id, ends_at)

    def has_ended(self, session_id: str, ends_at: float) -> bool:
        """Returns whether a session was ended early, as far as this process knows."""
        return self._ended.has(session_id, ends_at)

    def _note_ended(self, ended: Mapping[str, float]) -> None:
        now = time.time()
        for id, ends_at in ended.items():
            self._ended.add(id, ends_at, now)

    def _read(self, path: Path) -> None:
        stamp = _stamp_of(path)
        if stamp == self._stamp:
            return
        try:
            content = read_keys(path) if stamp is not None else None
        except ConfigurationError as error:
            _LOGGER.error("%s", error)
            content = None
        self._stored = {key.id: key for key in content.keys} if content is not None else {}
        self._shared_secret = content.session_secret if content is not None else ""
        self._stamp = stamp


def _decode_keys(
    bodies: Mapping[str, bytes], logged: frozenset[str] = frozenset()
) -> dict[str, StoredKey]:
    """Returns the keys of a database by their ids, and logs those that cannot be read.

    A newer server may have added one that this version does not know; the others count as before.
    """
    keys = dict[str, StoredKey]()
    for id, body in bodies.items():
        try:
            keys[id] = msgspec.json.decode(body, type=StoredKey)
        except msgspec.MsgspecError as error:
            if id not in logged:
                _LOGGER.warning(
                    "The key %s cannot be read and is refused (%s): upgrade treadle if a newer"
                    " version made it, or run treadle keys revoke %s.",
                    id,
                    error,
                    id,
                )
    return keys


async def stored_rows(rows: "AccessRows") -> tuple[StoredKey, ...]:
    """Returns the keys of a database, the oldest first."""
    found = await rows.read("")
    return tuple(sorted(_decode_keys(found.keys).values(), key=lambda key: key.created_at))


async def add_row(rows: "AccessRows", key: StoredKey) -> None:
    """Adds a key to a database."""
    await rows.add_key(key.id, msgspec.json.encode(key))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_keys(path: Path) -> _KeyFile:
    """Returns the content of a file of keys; raises `ConfigurationError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_KeyFile)
    except OSError as error:
        raise ConfigurationError(f"The keys in {path} cannot be read: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} is not a file of keys: {error}.") from error


def stored_keys(path: Path) -> tuple[StoredKey, ...]:
    """Returns the keys of a file, the oldest first; none if it does not exist."""
    return read_keys(path).keys if path.exists() else ()


def add_key(path: Path, key: StoredKey) -> None:
    """Adds a key to a file, which is created with access for its owner only."""
    with _changing(path) as content:
        _write(path, msgspec.structs.replace(content, keys=(*content.keys, key)))


def revoke_key(path: Path, id: str) -> bool:
    """Removes a key from a file; returns whether it was there."""
    with _changing(path) as content:
        left = tuple(key for key in content.keys if key.id != id)
        if len(left) < len(content.keys):
            _write(path, msgspec.structs.replace(content, keys=left))
    return len(left) < len(content.keys)


@contextlib.contextmanager
def _changing(path: Path) -> Generator[_KeyFile]:
    """Yields the content of the file, while no other process changes it."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock.open("w") as held:
            _lock(held.fileno())
            _give(held.fileno(), path)
            yield (
                read_keys(path)
                if path.exists()
                else _KeyFile(session_secret=secrets.token_hex(_SECRET_BYTES))
            )
    except OSError as error:
        raise ConfigurationError(
            f"The keys in {path} cannot be written: {error.strerror}."
        ) from error


def _write(path: Path, content: _KeyFile) -> None:
    # A new file takes the place of the old one, so that a reader never sees a half of it.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give(descriptor, path)
            file.write(msgspec.json.format(msgspec.json.encode(content)))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
